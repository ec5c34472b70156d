"""The list of the images that a training has seen."""

from pathlib import Path

import pandas as pd
import pytest

from dbp_mae.data.seen import is_seen, part_is_named, read_seen, write_seen
from dbp_mae.errors import UserError


def images(**splits: str) -> pd.DataFrame:
    """Return images of these names, each of the part named by its first letter."""
    rows = [
        {"sha256": name, "group": name[0], "split": split, "path": f"images/{name}.png"}
        for name, split in splits.items()
    ]
    return pd.DataFrame(rows)


def test_images_and_parts_of_a_training_are_known(tmp_path: Path) -> None:
    write_seen(tmp_path / "seen.csv", images(a1="train", b1="val", c1="test"))
    seen = read_seen(tmp_path / "seen.csv")
    later = images(a2="test", b1="test", c1="test", c2="test", d1="test")
    assert is_seen(later, seen).tolist() == [True, True, False, False, False]
    renamed = later.assign(group=["n1", "n2", "n2", "n3", "n3"])
    assert is_seen(renamed, seen).tolist() == [False, True, True, False, False]


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seen.csv").write_text("sha256\na\n")
    with pytest.raises(UserError, match="does not list images and their parts"):
        read_seen(tmp_path / "seen.csv")


def test_equal_file_names_are_no_part(tmp_path: Path) -> None:
    nameless = images(a1="train", b1="train").assign(group=["a1.png", "b1.png"])
    assert not part_is_named(nameless).any()
    write_seen(tmp_path / "seen.csv", nameless)
    later = nameless.assign(sha256=["a1", "other"])
    assert is_seen(later, read_seen(tmp_path / "seen.csv")).tolist() == [True, False]
