"""From a source folder to the manifest: true figures, whatever the form of images and labels."""

import hashlib
from pathlib import Path
from typing import Any
from unicodedata import normalize

import cv2
import numpy as np
import pandas as pd
import pytest
import source_folder as folder
from hostile_images import HOSTILE, turned

from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import CHUNK, SCHEMA, manifest_from_rows, read_manifest, write_manifest
from dbp_mae.errors import UserError
from dbp_mae.files import sha256_of
from dbp_mae.inspection.drift import STATISTICS, image_statistics
from dbp_mae.inspection.images import read_image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder.write_source(tmp_path / "source")


def ingested(source: Path, **changes: Any) -> pd.DataFrame:
    """Return the manifest by image name."""
    params = folder.data_params(source, **changes)
    frame = ingest(source, params, source.parent / "data/masks")
    return frame.set_index(frame["path"].str.removeprefix("images/"), drop=False)


def mask_at(source: Path, row: pd.Series) -> np.ndarray:
    return cv2.imread(str(source.parent / "data" / row["mask_path"]), cv2.IMREAD_UNCHANGED)


def test_row_tells_what_the_file_holds(source: Path) -> None:
    row = ingested(source).loc["p0_f0.png"]
    file = source / "images/p0_f0.png"
    image = read_image(file, channels=1)
    assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (row["width"], row["height"]) == (folder.WIDTH, folder.HEIGHT)
    assert (row["channels"], row["bit_depth"], row["group"]) == (1, 8, "p0")
    assert row[list(STATISTICS)].to_dict() == image_statistics(image)
    assert row["channel_mean"] == pytest.approx([image.mean() / 255])
    assert row["channel_std"] == pytest.approx([image.std() / 255])
    assert pd.isna(row[["image_error", "label_error", "label_error_kind"]]).all()

    counts = np.bincount(folder.index_mask().ravel(), minlength=256)
    assert row["pixels"].tolist() == counts[:3].tolist()
    assert row["ignored_pixels"] == counts[255] == 2
    assert np.array_equal(mask_at(source, row), folder.index_mask())
    assert row["mask_sha256"] == sha256_of(source.parent / "data" / row["mask_path"])


def test_labelme_and_masks_agree(source: Path, tmp_path: Path) -> None:
    drawn = ingested(folder.write_source(tmp_path / "drawn" / "source", labels="labels"))
    masked = ingested(source)
    assert drawn["split"].equals(masked["split"])
    mask = mask_at(tmp_path / "drawn" / "source", drawn.loc["p0_f0.png"])
    assert np.array_equal(drawn["pixels"].iloc[0], np.bincount(mask.ravel(), minlength=3))
    labelled = folder.index_mask()
    assert (mask[labelled == 1] == 1).all()
    assert (mask[labelled == 2] == 2).mean() > 0.8


def test_two_runs_write_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_manifest(ingested(source), tmp_path / f"{name}.parquet")
    assert sha256_of(tmp_path / "a.parquet") == sha256_of(tmp_path / "b.parquet")


def test_manifest_survives_its_file(source: Path, tmp_path: Path) -> None:
    (source / "masks/p5_f0.png").unlink()
    (source / "images/p5_f1.png").write_bytes(b"")
    frame = ingested(source).reset_index(drop=True)
    write_manifest(frame, tmp_path / "manifest.parquet")
    read = read_manifest(tmp_path / "manifest.parquet")
    assert list(read) == SCHEMA.names
    pd.testing.assert_frame_equal(read, frame)


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1])
def test_rows_keep_their_order_from_chunk_to_chunk(count: int) -> None:
    rows = ({"path": f"{number}.png", "width": number} for number in range(count))
    frame = manifest_from_rows(rows)
    assert list(frame) == SCHEMA.names
    assert frame["width"].to_list() == list(range(count))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "is missing"),
        (lambda path: path.write_text("path,sha256"), "is not a manifest"),
        (lambda path: pd.DataFrame({"path": ["a"]}).to_parquet(path), "lacks the columns sha256"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, write: Any, words: str) -> None:
    write(tmp_path / "manifest.parquet")
    with pytest.raises(UserError, match=words):
        read_manifest(tmp_path / "manifest.parquet")


def test_colour_and_deep_images_as_trained(source: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (folder.HEIGHT, folder.WIDTH, 3), np.uint8)
    folder.write_png(source / "images/p0_f0.png", colour)
    deep = folder.photograph(1).astype(np.uint16) * 16
    folder.write_png(source / "images/p0_f1.png", deep)
    rows = ingested(source, channels=3, white_level=4080)
    assert rows.loc["p0_f0.png", "channels"] == 3
    assert rows.loc["p0_f0.png", "channel_mean"] == pytest.approx(
        colour[..., ::-1].mean(axis=(0, 1)) / 255  # OpenCV writes BGR
    )
    assert rows.loc["p0_f1.png", ["channels", "bit_depth"]].to_list() == [1, 16]
    assert rows.loc["p0_f1.png", "channel_mean"] == pytest.approx(
        [folder.photograph(1).mean() / 255] * 3
    )


def test_orientation_of_the_camera_is_applied_before_the_labels(source: Path) -> None:
    upright = folder.photograph(0)
    (source / "images/p0_f0.png").write_bytes(turned(np.rot90(upright).copy(), "PNG"))
    row = ingested(source).loc["p0_f0.png"]
    assert (row["width"], row["height"]) == (folder.WIDTH, folder.HEIGHT)
    assert row["mean"] == pytest.approx(upright.mean() / 255)
    assert row["pixels"] is not None


def test_folders_below_and_capital_endings(source: Path) -> None:
    for kind in ("images", "masks"):
        (source / kind / "lot 1").mkdir()
        (source / kind / "p0_f0.png").rename(source / kind / "lot 1/p0_f0.png")
    (source / "images/p1_f0.png").rename(source / "images/p1_f0.PNG")
    (source / "images/.DS_Store").write_bytes(b"x")
    rows = ingested(source, group_pattern=r"(p\d+)_")
    assert len(rows) == folder.PARTS * folder.FRAMES
    assert rows.loc["lot 1/p0_f0.png", "mask_path"] == "masks/lot 1/p0_f0.png"
    assert mask_at(source, rows.loc["lot 1/p0_f0.png"]).any()
    assert rows.loc["p1_f0.PNG", "label_state"] == "labelled"


@pytest.mark.parametrize("name", ["Masks", "label"])
def test_a_folder_of_labels_under_another_name_is_refused(source: Path, name: str) -> None:
    (source / "masks").rename(source / name)
    with pytest.raises(UserError, match=rf"{name} is not read, for labels are read from masks"):
        ingested(source)
    assert len(ingested(source, classes=[], defects=[])) == 12


def test_names_may_be_composed_otherwise(source: Path) -> None:
    for folder_name, form in (("images", "NFC"), ("masks", "NFD")):
        file = source / folder_name / "p0_f0.png"
        file.rename(file.with_name(normalize(form, "p0_größe.png")))
    row = {"Image": normalize("NFD", "p0_größe.png"), "Group": "lot"}
    folder.write_parts(source, [row])
    rows = ingested(source)
    assert rows.loc[normalize("NFC", "p0_größe.png"), ["group", "label_state"]].tolist() == [
        "lot",
        "labelled",
    ]


def test_the_pattern_sees_the_file_name_alone(source: Path) -> None:
    (source / "images/p7_lot").mkdir()
    (source / "images/p0_f0.png").rename(source / "images/p7_lot/p0_f0.png")
    (source / "masks/p7_lot").mkdir()
    (source / "masks/p0_f0.png").rename(source / "masks/p7_lot/p0_f0.png")
    rows = ingested(source, group_pattern=r"^(p\d+)_")
    assert rows.loc["p7_lot/p0_f0.png", "group"] == "p0"


@pytest.mark.parametrize("linked", ["images", "masks", "images/line2"])
def test_a_link_to_a_folder_is_refused(source: Path, tmp_path: Path, linked: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (source / linked).exists():
        (source / linked).rename(elsewhere)
    else:
        elsewhere.mkdir()
    (source / linked).symlink_to(elsewhere)
    with pytest.raises(UserError, match=f"{linked} is a link to a folder"):
        ingested(source)


def test_the_source_itself_may_be_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "nas").symlink_to(source)
    for images in ("images", "."):
        masks = {"classes": [], "defects": []} if images == "." else {}
        found = ingested(tmp_path / "nas", images=images, group_pattern=r"(p\d+)_", **masks)
        assert len(found) == 12


def test_other_files_beside_the_images_are_named(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "images/notes.txt").write_text("x")
    ingested(source)
    assert "1 of 13 files are no images, such as notes.txt" in capsys.readouterr().out


def test_groups_come_from_parts_csv_then_the_pattern_then_the_image(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingested(source).loc["p0_f0.png", "group"] == "p0"
    assert "no part is named" not in capsys.readouterr().out
    assert ingested(source, group_pattern=None).loc["p0_f0.png", "group"] == "p0_f0.png"
    assert "no part is named for 12 of 12 images" in capsys.readouterr().out
    folder.write_parts(source, [{"image": "p0_f0.png", "group": "lot", "machine": "7"}])
    rows = ingested(source)
    assert rows.loc[["p0_f0.png", "p0_f1.png"], "group"].to_list() == ["lot", "p0"]


def test_zero_that_is_no_background_is_ignored(source: Path) -> None:
    folder.write_parts(source, [{"image": "p0_f1.png", "group": "p0", "state": "clean"}])
    (source / "masks/p0_f1.png").unlink()
    rows = ingested(source, ignore_zero=True)
    counts = np.bincount(folder.index_mask().ravel(), minlength=256)
    row, clean = rows.loc["p0_f0.png"], rows.loc["p0_f1.png"]
    assert row["pixels"].tolist() == [0, *counts[1:3]]
    assert row["ignored_pixels"] == counts[0] + counts[255]
    assert mask_at(source, row).min() == 1
    assert clean["pixels"].tolist() == [folder.HEIGHT * folder.WIDTH, 0, 0], "it was inspected"


def test_archive_needs_no_labels_and_reads_none(source: Path) -> None:
    rows = ingested(source, classes=[], defects=[])
    assert set(rows["label_state"]) == {"unlabelled"}
    assert set(rows["split"]) == {"train", "val"}
    assert (source.parent / "data/masks").is_dir(), "the stage promises it to DVC"

    states = {"p0_f0": "labelled", "p0_f1": "clean", "p1_f0": "excluded", "p1_f1": "unlabelled"}
    parts = [{"image": f"{n}.png", "group": n[:2], "state": s} for n, s in states.items()]
    folder.write_parts(source, parts)
    rows = ingested(source, classes=[], defects=[])
    assert rows["label_state"].value_counts().to_dict() == {"unlabelled": 11, "excluded": 1}
    assert rows["label_error"].isna().all()


def test_images_in_another_folder_are_found(source: Path) -> None:
    usual = ingested(source)
    (source / "images").rename(source / "pictures")
    rows = ingested(source, images="pictures")
    assert rows["path"].str.removeprefix("pictures/").to_list() == list(usual.index)
    assert rows["mask_path"].to_list() == usual["mask_path"].to_list()


def test_an_image_folder_named_like_a_label_folder_is_not_left_out(source: Path) -> None:
    (source / "images/labels").mkdir()
    (source / "images/p0_f0.png").rename(source / "images/labels/p0_f0.png")
    (source / "masks/p0_f0.png").unlink()
    assert "labels/p0_f0.png" in ingested(source, group_pattern=None).index


def test_a_clean_image_may_have_an_ignored_region(source: Path) -> None:
    mask = np.zeros((folder.HEIGHT, folder.WIDTH), np.uint8)
    mask[:3] = 255
    cv2.imwrite(str(source / "masks/p0_f0.png"), mask)
    assert "or call the image clean" in ingested(source).loc["p0_f0.png", "label_error"]
    folder.write_parts(source, [{"image": "p0_f0.png", "group": "p0", "state": "clean"}])
    row = ingested(source).loc["p0_f0.png"]
    assert pd.isna(row["label_error_kind"])
    assert row["ignored_pixels"] == 3 * folder.WIDTH


def test_states_of_parts_csv(source: Path) -> None:
    (source / "masks/p0_f0.png").unlink()
    states = {"p0_f0": "clean", "p0_f1": "unlabelled", "p1_f0": "excluded", "p1_f1": ""}
    rows = [
        {"image": f"{name}.png", "group": name[:2], "state": state}
        for name, state in states.items()
    ]
    folder.write_parts(source, rows)
    frame = ingested(source).loc[[row["image"] for row in rows]]
    assert frame["label_state"].to_list() == ["labelled", "unlabelled", "excluded", "labelled"]
    for column in ("mask_path", "mask_sha256"):
        assert frame[column].notna().to_list() == [True, False, False, True]
    assert frame["pixels"].iloc[0].tolist() == [folder.HEIGHT * folder.WIDTH, 0, 0]
    assert not mask_at(source, frame.iloc[0]).any()


def test_no_file_stops_ingest(source: Path) -> None:
    for number, (_, data, _) in enumerate(HOSTILE):
        (source / f"images/p9_{number:03}.png").write_bytes(data)
    rows = ingested(source).iloc[-len(HOSTILE) :]
    refused = rows["image_error"].notna()
    assert refused.to_list() == [outcome != "ok" for _, _, outcome in HOSTILE]
    assert rows["sha256"].notna().all()
    assert (
        rows.loc[refused, ["width", "phash", "mean", "pixels", "mask_path"]].isna().all(axis=None)
    )
    assert rows.loc[~refused, ["width", "phash", "mean", "channel_std"]].notna().all(axis=None)
    assert rows.loc[refused, "image_error"].str.endswith(".").all()


def test_file_that_cannot_be_opened_becomes_a_row(source: Path) -> None:
    (source / "images/p9_f0.png").symlink_to(source / "gone.png")
    row = ingested(source).loc["p9_f0.png"]
    assert "cannot be opened" in row["image_error"]
    assert row["split"] == "train"


def delete_images(source: Path) -> None:
    for file in (source / "images").iterdir():
        file.unlink()


def parts(*rows: dict[str, str]) -> Any:
    return lambda source: folder.write_parts(source, list(rows))


def write(file: str, content: bytes) -> Any:
    def damage(source: Path) -> None:
        (source / file).parent.mkdir(exist_ok=True)
        (source / file).write_bytes(content)

    return damage


def nothing(source: Path) -> None:
    pass


ROW = {"image": "p0_f0.png", "group": "p0"}


@pytest.mark.parametrize(
    ("damage", "changes", "words"),
    [
        (lambda source: (source / "images").rename(source / "pictures"), {}, "images is missing"),
        (delete_images, {}, "images holds no image"),
        (write("images/p0_f0.jpg", b""), {}, "p0_f0.jpg and .*p0_f0.png have one name but for"),
        (write("masks/p7_f0.png", b""), {}, "masks/p7_f0.png labels no image"),
        (write("labels/p0_f0.json", b""), {}, "labels/p0_f0.json and .*masks/p0_f0.png label one"),
        (write("masks/p0_f0.bmp", b""), {}, "p0_f0.bmp and .*p0_f0.png have one name but for"),
        (nothing, {"splits": {"test": "lot 9"}}, "images/lot 9 holds no image, but data.splits"),
        (nothing, {"group_pattern": "(p[0-9"}, "group_pattern .* is not a regular expression"),
        (nothing, {"group_pattern": r"p\d"}, "group_pattern .* has no group in parentheses"),
        (nothing, {"group_pattern": r"(p[0-4])_"}, "group_pattern .* finds no part in 'p5_f0.png'"),
        (nothing, {"group_pattern": r"(x)?p"}, "group_pattern .* finds no part in 'p0_f0.png'"),
        (nothing, {"group_pattern": "(p)"}, "come from 1 parts"),
        (write("parts.csv", b""), {}, "parts.csv is not a comma-separated UTF-8 table"),
        (write("parts.csv", b"\xff\xfe\0"), {}, "parts.csv is not a comma-separated UTF-8 table"),
        (
            write("parts.csv", b"image;group\na;b"),
            {},
            "lacks the columns group and image: it has im",
        ),
        (
            write("parts.csv", b"image,group\np0_f0.png,p0,"),
            {},
            "rows have more fields than its first line, image,group, has",
        ),
        (parts({"image": "p0_f0.png"}), {}, "parts.csv lacks the column group"),
        (parts({**ROW, "Image": "p0_f0.png"}), {}, "parts.csv has two columns 'image': keep one"),
        (parts(ROW, ROW), {}, "names the image 'p0_f0.png' twice"),
        (parts(ROW | {"image": "p0_f0"}), {}, "names the image 'p0_f0', which is not among the im"),
        (
            parts(*(ROW | {"image": x} for x in "abc")),
            {},
            r"'a', .* images \(2 more likewise\): give its path",
        ),
        (parts(ROW | {"group": " "}), {}, "gives no group for 'p0_f0.png'"),
        (parts(ROW | {"state": "labeled"}), {}, "gives 'p0_f0.png' the state 'labeled'"),
    ],
)
def test_what_does_not_fit_together_stops(
    source: Path, damage: Any, changes: dict[str, Any], words: str
) -> None:
    damage(source)
    with pytest.raises(UserError, match=words):
        ingested(source, **changes)
