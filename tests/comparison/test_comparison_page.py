"""The page on a comparison."""

import re
from datetime import date

import pytest
from made_results import clear_win, plan, results, with_finetuning

from dbp_mae.comparison.page import page
from dbp_mae.comparison.results import EnergySource


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([0], "highest over the seeds of the pre-training."),
        ([0, 1], "pre-training, each with the mean of 2 seeds of the fine-tuning."),
    ],
)
def test_the_page_says_how_often_an_encoder_is_fine_tuned(seeds: list[int], said: str) -> None:
    found = with_finetuning(results(clear_win()), {"AdamW": 0.5})
    planned = found.model_copy(update={"plan": plan(finetune={"seeds": seeds})})
    assert said in page(planned, date(2026, 1, 31))


@pytest.mark.parametrize(
    "energy",
    [
        EnergySource(measured=["gpu"], watts=None),
        EnergySource(measured=[], watts=40.0),
        EnergySource(measured=[], watts=None),
    ],
)
def test_the_page_says_where_the_energy_comes_from(energy: EnergySource) -> None:
    html = page(results(clear_win(), energy), date(2026, 1, 31))
    assert {"measured": "read from the counters of the GPU", "estimated": "Energy is estimated",
            "not measured": "Energy was not measured"}[energy.kind] in html  # fmt: skip
    assert html.count("<svg") == (3 if energy.kind == "not measured" else 4)


def test_the_page_is_whole_and_offline() -> None:
    found = with_finetuning(results(clear_win()), {"AdamW": 0.712, "Muon": None})
    html = page(found, date(2026, 1, 31))
    for words in (*found.settings, "diverged", "DVC", "0.712", "held-out mIoU"):
        assert words in html, words
    assert not re.search(r"<(script|link|iframe|img)|url\((?!#)|@import", html)
    assert not re.search(r"\b(None|nan|inf)\b", re.sub(r"<svg.*?</svg>", "", html, flags=re.S))


def test_names_are_text_and_nothing_else() -> None:
    found = results(clear_win())
    data = found.data.model_copy(update={"source": "<script>alert(1)</script>"})
    assert "<script>" not in page(found.model_copy(update={"data": data}), date(2026, 1, 31))


def test_a_page_is_made_where_every_run_diverged() -> None:
    runs = [
        run.model_copy(update={"rows": [], "diverged": True})
        for run in clear_win()
        if run.seed == 1
    ]
    assert "diverged" in page(results(runs), date(2026, 1, 31))
