from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dbp_mae.inspection.images import MAX_PIXELS, encode_png
from dbp_mae.inspection.segmenter import Segmenter
from serving.inspector import Inspector


def answer(model: Path, log: Path | None) -> dict[str, Any]:
    """Return the answer for a part with a defect, but for its times."""
    image = encode_png(np.full((20, 30), 250, np.uint8))
    inspector = Inspector(Segmenter.load(model), MAX_PIXELS, log)
    whole = inspector.inspect(image, with_mask=True, with_image=True, given_up=lambda: False)
    return {key: value for key, value in whole.items() if key != "milliseconds"}


@pytest.mark.parametrize("log", [".", "gone/inspections.jsonl", "/dev/full"])
def test_a_log_that_cannot_be_written_stops_no_inspection(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], log: str
) -> None:
    path = tmp_path / log
    assert answer(tiny_model, path) == answer(tiny_model, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path} cannot be written: ")
