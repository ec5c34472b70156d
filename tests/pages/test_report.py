"""The report of a small project on disk: whole, offline, honest about what is unknown."""

import json
import re
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from default_params import default_params
from made_project import METRICS, spent, write_project
from page_tags import Tags

from dbp_mae.data.manifest import manifest_from_rows
from dbp_mae.errors import UserError
from dbp_mae.pages import charts
from dbp_mae.pages.report import Run, emissions_bill, load_run, model_card, page
from dbp_mae.params import Params
from pipelines.stages import report as stage

MADE = date(2025, 1, 31)


@pytest.fixture(scope="module")
def params() -> Params:
    params = default_params()
    update = {"classes": ["wire", "epoxy"], "defects": ["epoxy"]}
    return params.model_copy(update={"data": params.data.model_copy(update=update)})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_project(root, tiny_model)
    return root


@pytest.fixture(scope="module")
def run(project: Path) -> Run:
    return load_run(project)


@pytest.fixture(scope="module")
def html(run: Run, params: Params) -> str:
    return page(run, params, MADE)


def test_the_page_is_well_formed_and_needs_nothing_else(html: str) -> None:
    tags = Tags(html)
    assert not {"script", "link", "iframe", "object"} & tags.names
    for link in tags.links:
        assert link.startswith(("data:image/png;base64,", "#")) or link == "validation.html"
    assert not re.search(r"url\((?!#)|@import", html)


def test_the_page_says_the_figures(html: str) -> None:
    text = Tags(html).text
    for figure in (
        "0.74", "0.69 to 0.78", "+0.089", "+0.041 to +0.131", "92.2 %", "128",
        "2.5 % of the 40 defective images",
        "5.7 % of the 35 good ones", "of 35 good images rejected", "changed by +0.250",
        "16.0 Wh", "6.40 g", "2.00 min", "75 %", "images/a.png", "1 of 2 defects found",
        "1.3e-06", "revision 0123abc", "2025-01-31", "40.0 ms",
    ):  # fmt: skip
        assert figure in text, figure


def test_every_chart_is_drawn(html: str) -> None:
    text = Tags(html).text
    for label in ("constant's loss", "from scratch", "escape", "overkill", "electricity in Wh"):
        assert label in text
    assert html.count("<svg") == 5


def test_the_page_and_the_card_are_reproducible(run: Run, params: Params, html: str) -> None:
    assert page(run, params, MADE) == html
    assert model_card(run, params) == model_card(run, params)


def test_the_bill_is_what_the_shipped_model_cost(run: Run) -> None:
    bill = emissions_bill(run)
    assert bill["stages"].keys() == {"pretrain", "finetune", "scratch"}
    for key, total in bill["total"].items():
        parts = bill["stages"]["pretrain"][key] + bill["stages"]["finetune"][key]
        assert total == pytest.approx(parts)
    assert bill["total"]["kwh"] == pytest.approx(0.016)
    for spending in bill["stages"].values():
        assert spending["co2_kg"] == pytest.approx(spending["kwh"] * spending["grid_kg_per_kwh"])
        assert spending["country"] == "DEU"


@pytest.mark.parametrize(
    ("low", "gain", "high", "parts", "sentence"),
    [
        (0.01, 0.05, 0.1, 15, "Pre-training was ahead in this run"),
        (-0.1, -0.05, -0.01, 15, "Pre-training was behind in this run"),
        (-0.01, 0.05, 0.1, 15, "cannot be told"),
        (0.01, 0.05, 0.1, 7, "seems to have been ahead in this run: +0.050 mIoU"),
        (None, 0.05, None, 4, "with the images of 4 parts only, whether that is chance"),
        (None, 0.05, None, 1, "whether that is chance cannot be told"),
    ],
)
def test_the_claim_follows_from_the_interval(
    run: Run,
    params: Params,
    low: float | None,
    gain: float,
    high: float | None,
    parts: int,
    sentence: str,
) -> None:
    images = {**METRICS["images"], "groups": parts}
    metrics = {**METRICS, "gain": gain, "gain_low": low, "gain_high": high, "images": images}
    assert sentence in Tags(page(replace(run, metrics=metrics), params, MADE)).text


def test_what_is_unknown_is_said(run: Run, params: Params) -> None:
    structure = params.data.model_copy(update={"defects": []})
    counts = {"test": 2, "groups": 1, "defective": 0, "good": 0}
    metrics = {
        **dict.fromkeys(METRICS),
        "iou": {"wire": None, "epoxy": None},
        "defects": {"labelled": 0, "found_share": None, "false_per_image": None},
        "images": {**dict.fromkeys(METRICS["images"]), **counts},
    }
    empty = run.thresholds.assign(
        **dict.fromkeys(
            ["found_share", "false_per_image", "escape_share", "overkill_share"], np.nan
        )
    )
    unknown = replace(run, metrics=metrics, thresholds=empty)
    without = params.model_copy(update={"data": structure})
    text = Tags(page(unknown, without, MADE)).text
    assert "No class is named a defect" in text
    assert "no model trained from scratch" in text
    for written in (text, model_card(unknown, without)):
        assert not re.search(r"\b(None|nan)\b", written)

    assert "how many defects escape is unknown" in Tags(page(unknown, params, MADE)).text


def test_a_class_that_one_part_dominates_is_named(run: Run, params: Params) -> None:
    def said(epoxy: list[int]) -> str:
        rows = [
            {"path": f"images/{n}.png", "group": f"part{n}", "split": "test", "label_state": "labelled",
             "mask_path": f"masks/{n}.png", "pixels": [90, 8, count]}
            for n, count in enumerate(epoxy)
        ]  # fmt: skip
        return model_card(replace(run, frame=manifest_from_rows(rows)), params)

    warning = "more than half of the labelled pixels of epoxy in the held-out images"
    assert f"{warning}, which give the figures of this report, are of a single part (of 3)" in said(
        [5, 2, 2]
    )
    assert warning not in said([3, 3, 2])


def test_an_estimate_is_called_one(run: Run, params: Params) -> None:
    assert "read from the energy counters of the GPU" in Tags(page(run, params, MADE)).text
    guessed = {
        name: replace(training, emissions=spent(0.01, measured=0.0))
        for name, training in run.trainings.items()
    }
    text = Tags(page(replace(run, trainings=guessed), params, MADE)).text
    assert "None of it was measured" in text
    assert "all of that energy is an estimate" in text


def test_trainings_on_different_machines_are_told_apart(run: Run, params: Params) -> None:
    """As where an archive's encoder is taken over that another machine made."""
    here = spent(0.01, measured=0.0)
    plain = here.hardware.model_copy(update={"cpu": "Intel i7", "gpu": "", "gpus": 0})
    here = here.model_copy(
        update={"hardware": plain, "country": "FRA", "grid_kg_per_kwh": 0.05, "co2_kg": 0.0005}
    )
    finetune = replace(run.trainings["finetune"], emissions=here)
    mixed = replace(run, trainings={**run.trainings, "finetune": finetune})
    text = Tags(page(mixed, params, MADE)).text
    assert "were read from the energy counters of the GPU" in text
    assert "None of it was measured" not in text
    assert re.search(r"pretrain: AMD EPYC, .*H200, 0\.400 kg of CO₂ a kWh \(DEU\)", text)
    assert re.search(r"finetune: Intel i7, .*no GPU, 0\.050 kg of CO₂ a kWh \(FRA\)", text)
    assert "0.400 kg/kWh (DEU) and 0.050 kg/kWh (FRA)" in model_card(mixed, params)
    here = here.model_copy(update={"country": "DEU", "grid_kg_per_kwh": 0.4})
    near = {**run.trainings, "finetune": replace(finetune, emissions=here)}
    assert "of CO2, at 0.400 kg/kWh (DEU).\n" in model_card(replace(run, trainings=near), params)
    stages = emissions_bill(mixed)["stages"]
    assert [stages[name]["country"] for name in ("pretrain", "finetune")] == ["DEU", "FRA"]


def test_a_training_of_several_runs_says_so(run: Run, params: Params) -> None:
    twice = replace(run.trainings["pretrain"], emissions=spent(0.01) + spent(0.02))
    trainings = {**run.trainings, "pretrain": twice}
    text = Tags(page(replace(run, trainings=trainings), params, MADE)).text
    assert "pretrain, 2 runs" in text
    assert "finetune, " not in text


def test_a_pretraining_that_learnt_nothing_is_flagged(run: Run, params: Params) -> None:
    pretrain = run.trainings["pretrain"]
    idle = replace(pretrain, summary={**pretrain.summary, "val_loss": 0.979})
    trainings = {**run.trainings, "pretrain": idle}
    flags = (
        "A constant does about as well",
        "Pre-training learnt next to nothing",
        "so this says nothing of it",
    )
    text = Tags(page(replace(run, trainings=trainings), params, MADE)).text
    assert all(flag in text for flag in flags)
    assert "was ahead" not in text
    text = Tags(page(run, params, MADE)).text
    assert not any(flag in text for flag in flags)
    assert "was ahead" in text


def test_an_encoder_that_saw_held_out_images_is_told(run: Run, params: Params) -> None:
    told = "had seen 2 of the 2 held-out images"
    for made in (page, model_card):
        arguments = (params, MADE) if made is page else (params,)
        assert told not in made(run, *arguments)
        assert "that no training saw" in made(run, *arguments)
        archive = replace(run, pretrained_on=run.frame)
        assert told in made(archive, *arguments)
        assert "that no training saw the labels of" in made(archive, *arguments)


def test_what_was_set_aside_is_counted_by_image(html: str) -> None:
    assert "<td>set aside</td><td></td><td>2</td>" in html


def test_without_a_list_it_is_unknown_what_an_encoder_saw(run: Run, params: Params) -> None:
    unknown = replace(run, pretrained_on=None)
    for text in (page(unknown, params, MADE), model_card(unknown, params)):
        assert "Whether the encoder that was taken over had seen held-out images" in text
        assert "that no training saw the labels of" in text


def test_without_named_parts_none_is_said_to_be_held_out(run: Run, params: Params) -> None:
    apart = "Images of one part never fall into two splits"
    assert apart in page(run, params, MADE)
    own = run.frame["path"].str.removeprefix("images/")
    nameless = replace(run, frame=run.frame.assign(group=own.where(own == "7.png", "a part")))
    html = page(nameless, params, MADE)
    assert apart not in html
    assert "no part is named for 1 of 10 images" in html
    assert "parts that no training saw" not in html + model_card(nameless, params)


def test_a_threshold_that_nothing_chose_is_told(run: Run, params: Params) -> None:
    def told(run: Run, params: Params) -> list[bool]:
        html = page(run, params, MADE)
        return [text in html for text in ("chosen on the", "which nothing speaks for")]

    assert told(run, params) == [True, False]
    unchosen = replace(run, model=replace(run.model, chosen_min_score=None))
    assert told(unchosen, params) == [False, True]
    given = params.export.model_copy(update={"min_score": 0.3})
    assert told(unchosen, params.model_copy(update={"export": given})) == [False, False]


def test_names_are_text_and_nothing_else(run: Run, params: Params) -> None:
    name = "<script>alert('$x$')</script>"
    classes = run.classes.assign(**{"class": [name, "epoxy"]})
    per_image = run.per_image.assign(path=[name, "b"])
    tags = Tags(page(replace(run, classes=classes, per_image=per_image), params, MADE))
    assert "script" not in tags.names
    assert tags.text.count(name) >= 3  # chart, table, caption


def test_many_classes_leave_the_worst_in_the_chart(run: Run, params: Params) -> None:
    names = [f"class {number:03}" for number in range(150)]
    iou = np.random.default_rng(0).permutation(150) / 150
    many = pd.concat([run.classes.iloc[:1]] * 150, ignore_index=True).assign(
        **{"class": names, "iou": iou}
    )
    chart = charts.class_chart(many)
    shown = re.findall(r">(class \d+)</text>", chart)
    assert shown == [name for name, share in zip(names, iou, strict=True) if share < 20 / 150]
    data = params.data.model_copy(update={"classes": names})
    metrics = {**METRICS, "iou": dict(zip(names, iou, strict=True))}
    wide = replace(run, classes=many, metrics=metrics), params.model_copy(update={"data": data})
    text = Tags(page(*wide, MADE)).text
    assert "Segments 150 classes" in text
    assert "of the 20 worst classes" in text
    assert len(model_card(*wide).splitlines()) < 80


def test_the_model_card_identifies_the_file(run: Run, params: Params) -> None:
    card = model_card(run, params)
    for fact in (
        run.model.sha256,
        "0123abc",
        "d" * 64,
        "e" * 64,
        "f" * 64,
        "0.742",
        "12.0\u00a0Wh",
        "its weights averaged over the last steps",
        "overkill, of 35 images known to be good",
    ):
        assert fact in card, fact
    assert "any epoxy" in card
    tables = [line for line in card.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {3, 4}


def test_a_missing_file_is_named(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "project")
    (tmp_path / "project/models/scratch/summary.json").unlink()
    with pytest.raises(UserError, match=r"scratch/summary\.json is missing.*dvc repro"):
        load_run(tmp_path / "project")


def test_the_stage_writes_its_outputs(
    project: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    stage.main(params)
    assert Path("reports/index.html").read_text().startswith("<!DOCTYPE html>")
    assert Path("reports/model_card.md").read_text().startswith("# Model card")
    assert json.loads(Path("reports/emissions.json").read_text())["total"]["seconds"] == 120
