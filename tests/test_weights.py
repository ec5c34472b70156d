"""Weights in files."""

from pathlib import Path

from full_disk import error_on_a_full_disk


def test_a_full_disk_ends_in_one_sentence_and_leaves_the_last_file(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    file.write_bytes(b"the last one")
    imports = "from torch import nn; from dbp_mae.weights import write_weights"
    error = error_on_a_full_disk(
        imports, "write_weights(path, nn.Linear(300, 300), {'spec': 1})", file
    )
    assert error.startswith("error: File too large: make room")
    assert file.read_bytes() == b"the last one"
    assert list(tmp_path.iterdir()) == [file]
