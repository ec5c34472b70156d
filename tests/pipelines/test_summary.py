"""What `make run` prints at the end."""

import json
from pathlib import Path

import pytest

from dbp_mae.errors import UserError
from pipelines import summary
from pipelines.artifacts import EMISSIONS, METRICS, REPORT
from pipelines.flows.promotion import PRODUCTION


def test_the_summary_shows_the_figures_of_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.json is missing"):
        summary.main()
    defects = {"labelled": 0, "found_share": None, "false_per_image": 0.25}
    bill = {"seconds": 90, "kwh": 0.0123, "co2_kg": 0.0047}
    METRICS.parent.mkdir()
    images = {"defective": 8, "escape_share": 0.125, "good": 3, "overkill_share": 1 / 3}
    METRICS.write_text(
        json.dumps({"miou": 0.612, "scratch_miou": 0.55, "defects": defects, "images": images})
    )
    EMISSIONS.write_text(json.dumps({"total": bill, "stages": {"pretrain": bill}}))
    summary.main()
    printed = capsys.readouterr().out
    for figure in (
        "0.612",
        "0.550",
        "not measured",
        "0.25",
        "12% of 8",
        "33% of 3",
        "1.50 min",
        "12.3 Wh",
        "4.70 g",
    ):
        assert figure in printed.replace("\u00a0", " ")
    assert REPORT.resolve().as_uri() in printed
    assert printed.rstrip().endswith("  make serve")
    assert summary.stage_minutes() == {"pretrain": 1.5}

    PRODUCTION.parent.mkdir(parents=True)
    PRODUCTION.touch()
    summary.main()
    assert "DBP_MAE_MODEL=models/segmenter.onnx make serve" in capsys.readouterr().out

    EMISSIONS.write_text("{")
    with pytest.raises(UserError, match=r"emissions\.json is not JSON"):
        summary.main()
