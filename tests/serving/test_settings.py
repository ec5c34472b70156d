from pathlib import Path

import pytest

from dbp_mae.errors import UserError
from dbp_mae.inspection.images import MAX_PIXELS
from serving.settings import Settings


def test_an_empty_environment_has_defaults_and_so_have_empty_paths() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings(Path("models/segmenter.onnx"), 64 * 1024**2, 100_000_000, None)
    empty = {"DBP_MAE_MODEL": "", "DBP_MAE_INSPECTION_LOG": ""}
    assert Settings.from_environment(empty) == settings


@pytest.mark.parametrize("name", ["DBP_MAE_MAX_BODY_MB", "DBP_MAE_MAX_MEGAPIXELS"])
@pytest.mark.parametrize("value", ["", "much", "0", "-1", "1.5"])
def test_a_wrong_limit_is_refused(name: str, value: str) -> None:
    with pytest.raises(UserError, match=name):
        Settings.from_environment({name: value})


@pytest.mark.parametrize(("value", "pixels"), [("20", 20_000_000), ("500", MAX_PIXELS)])
def test_images_may_be_limited_further(value: str, pixels: int) -> None:
    assert Settings.from_environment({"DBP_MAE_MAX_MEGAPIXELS": value}).max_pixels == pixels


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "new" / "inspections.jsonl"
    assert Settings.from_environment({"DBP_MAE_INSPECTION_LOG": str(log)}).log == log
    with pytest.raises(UserError, match=r"cannot be written \(.+\): name another"):
        Settings.from_environment({"DBP_MAE_INSPECTION_LOG": str(log / "inside")})
