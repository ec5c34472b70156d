"""The report: one offline page for managers and quality engineers, a model card, the energy bill."""

import base64
import json
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dbp_mae.data.manifest import SPLITS, count_splits, labelled_in, read_manifest
from dbp_mae.data.seen import is_seen, part_is_named, read_seen
from dbp_mae.emissions import Emissions
from dbp_mae.errors import UserError
from dbp_mae.evaluation.overlays import FALSE, MISSED, RIGHT, UNJUDGED
from dbp_mae.inspection.model_card import ModelCard
from dbp_mae.inspection.segmenter import Segmenter
from dbp_mae.pages import charts, formatting
from dbp_mae.pages.templates import render
from dbp_mae.params import Params
from dbp_mae.pretraining.constant_predictor import hardly_beaten

SHIPPED = ("pretrain", "finetune")
"""The stages whose energy went into the shipped model."""
CONTROL = "scratch"
FEW_PARTS = 10
"""Fewer held-out parts than these make a bootstrap interval unreliable."""
BILLED = ("seconds", "kwh", "measured_kwh", "estimated_kwh", "co2_kg")


@dataclass(frozen=True)
class Training:
    """What a training stage wrote."""

    curves: pd.DataFrame
    summary: dict[str, Any]
    emissions: Emissions


@dataclass(frozen=True)
class ModelFile:
    """The shipped file."""

    card: ModelCard
    sha256: str
    bytes: int
    parity: dict[str, Any]
    chosen_min_score: float | None
    """None where it was given, or nothing was found to choose it by."""


@dataclass(frozen=True)
class Run:
    """Everything that the pipeline wrote, read once."""

    trainings: dict[str, Training]
    """By stage: pretrain, finetune, scratch."""
    model: ModelFile
    metrics: dict[str, Any]
    classes: pd.DataFrame
    per_image: pd.DataFrame
    thresholds: pd.DataFrame
    frame: pd.DataFrame
    """The validated manifest."""
    quarantined: int
    """How many images the data check set aside."""
    pretrained_on: pd.DataFrame | None
    """The images that the pre-training saw, perhaps in an earlier run (`data.seen`); None: unknown."""
    reconstructions: bytes
    overlays: dict[str, bytes]

    @property
    def total(self) -> Emissions:
        """What the shipped model cost; the control stands apart."""
        first, *others = (self.trainings[name].emissions for name in SHIPPED)
        return sum(others, start=first)

    @property
    def places(self) -> list[tuple[Emissions, list[str]]]:
        """The trainings of the shipped model by where they ran: an encoder may come from elsewhere."""
        spent = {name: self.trainings[name].emissions for name in SHIPPED}
        together = groupby(SHIPPED, key=lambda name: spent[name].place)
        return [(spent[first], [first, *others]) for _, (first, *others) in together]

    @property
    def grids(self) -> list[tuple[str, float]]:
        """The countries of those places, each with the CO2 of a kWh of its grid in kg."""
        return list(dict.fromkeys((it.country, it.grid_kg_per_kwh) for it, _ in self.places))

    @property
    def held_out(self) -> pd.DataFrame:
        """The rows of the manifest that the figures are of."""
        return labelled_in(self.frame, "test")

    @cached_property
    def held_out_but_seen(self) -> int | None:
        """How many held-out images, or others of their parts, the pre-training saw; None: unknown."""
        if self.pretrained_on is None:
            return None
        return int(is_seen(self.frame, self.pretrained_on)[self.held_out.index].sum())

    @cached_property
    def without_part(self) -> int:
        """Of how many images the part is not named."""
        return int((~part_is_named(self.frame)).sum())

    @property
    def learnt_nothing(self) -> bool:
        """Whether pre-training did hardly better than a constant."""
        summary = self.trainings["pretrain"].summary
        return hardly_beaten(summary["val_loss"], summary["constant_loss"])


def load_run(root: Path) -> Run:
    """Read what the stages wrote in a project's folder.

    Raises:
        UserError: a file is missing.
    """
    evaluation, seen = root / "reports/evaluation", root / "models/pretrain/seen.csv"
    try:
        per_image = pd.read_csv(evaluation / "per_image.csv")
        drawn = per_image["overlay"].dropna()
        return Run(
            trainings={
                name: _load_training(root / "models" / name) for name in (*SHIPPED, CONTROL)
            },
            model=_load_model(root / "models"),
            metrics=_load_json(root / "reports/metrics.json"),
            classes=pd.read_csv(evaluation / "classes.csv", converters={"class": str}),
            per_image=per_image,
            thresholds=pd.read_csv(evaluation / "thresholds.csv"),
            frame=read_manifest(root / "data/validated.parquet"),
            quarantined=pd.read_csv(root / "data/quarantine.csv")["path"].nunique(),
            pretrained_on=read_seen(seen) if seen.exists() else None,
            reconstructions=(root / "models/pretrain/reconstructions.png").read_bytes(),
            overlays={name: (evaluation / "overlays" / name).read_bytes() for name in drawn},
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is missing: run the stage that writes it (dvc repro)."
        ) from None


def emissions_bill(run: Run) -> dict[str, Any]:
    """Return the energy and CO2 of the shipped model and of each stage."""
    return {
        "total": _bill(run.total),
        "stages": {
            name: _bill(training.emissions)
            | {
                "grid_kg_per_kwh": training.emissions.grid_kg_per_kwh,
                "country": training.emissions.country,
            }
            for name, training in run.trainings.items()
        },
    }


def page(run: Run, params: Params, made: date) -> str:
    """Return the report as one self-contained HTML page."""
    trainings = run.trainings
    pictures = {
        "pretraining": charts.pretraining_chart(
            trainings["pretrain"].curves, trainings["pretrain"].summary["constant_loss"]
        ),
        "finetuning": charts.finetuning_chart(
            trainings["finetune"].curves, trainings[CONTROL].curves
        ),
        "classes": charts.class_chart(run.classes),
        "energy": charts.energy_chart(_kwh(trainings)),
        "thresholds": charts.threshold_chart(run.thresholds, run.model.card.min_score)
        if params.data.defects
        else "",
    }
    return _render(
        "pages/report.html.j2",
        run,
        params,
        charts=pictures,
        made=made,
        counters=sorted({part for place, _ in run.places for part in place.hardware.measured}),
        reconstructions=_data_uri(run.reconstructions),
        overlays={name: _data_uri(picture) for name, picture in run.overlays.items()},
        worst=run.per_image.dropna(subset=["overlay"]).to_dict("records"),
        overlay_colors={"right": RIGHT, "false": FALSE, "missed": MISSED, "ignored": UNJUDGED},
        splits=count_splits(run.frame),
        labels=_labels(run.frame, run.model.card),
    )


def model_card(run: Run, params: Params) -> str:
    """Return the model card in Markdown."""
    return _render("pages/model_card.md.j2", run, params)


def _load_training(folder: Path) -> Training:
    return Training(
        curves=pd.read_csv(folder / "curves.csv"),
        summary=_load_json(folder / "summary.json"),
        emissions=Emissions.model_validate(_load_json(folder / "emissions.json")),
    )


def _load_model(folder: Path) -> ModelFile:
    path = folder / "segmenter.onnx"
    segmenter = Segmenter.load(path)
    return ModelFile(
        card=segmenter.card,
        sha256=segmenter.sha256,
        bytes=path.stat().st_size,
        parity=_load_json(folder / "export/parity.json"),
        chosen_min_score=_load_json(folder / "export/min_score.json")["chosen"],
    )


def _load_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _kwh(trainings: dict[str, Training]) -> pd.DataFrame:
    """Return what of each training's energy was measured and what estimated, a row a training."""
    spent = {name: training.emissions for name, training in trainings.items()}
    return pd.DataFrame(
        {name: (bill.measured_kwh, bill.estimated_kwh) for name, bill in spent.items()},
        index=["measured", "estimated"],
    ).T


def _bill(emissions: Emissions) -> dict[str, float]:
    return {name: getattr(emissions, name) for name in BILLED}


def _render(template: str, run: Run, params: Params, **more: Any) -> str:
    return render(
        template,
        run=run,
        params=params,
        card=run.model.card,
        metrics=run.metrics,
        total=run.total,
        control=CONTROL,
        charted=charts.CHARTED,
        few_parts=FEW_PARTS,
        has_defects=bool(params.data.defects),
        learnt_nothing=run.learnt_nothing,
        not_measured=_not_measured(run, params),
        **more,
    )


def _not_measured(run: Run, params: Params) -> list[str]:
    """Say in plain sentences what the figures do not tell."""
    images = run.metrics["images"]
    unlabelled = int(((run.frame["split"] == "test") & run.frame["mask_path"].isna()).sum())
    speed = formatting.duration(run.per_image["seconds"].median())
    sentences = [
        "Chance in training: each training ran once, with one seed. The intervals tell what other "
        "parts might have given, not what another seed might.",
        "The labels: they are taken as the truth, so a wrong label counts as the model's mistake.",
        f"Speed on the line: where this evaluation ran, an image took {speed} at the median, "
        "reading the file not counted. The line's machine may be faster or slower.",
        "Other products, lights and cameras: the figures hold for images like the held-out ones.",
        "Energy beyond training: preparing the data, export, evaluation, cooling, the making of "
        "the machine, and the use of the model on the line are not counted.",
    ]
    if run.held_out_but_seen is None:
        sentences.append(
            "Whether the encoder that was taken over had seen held-out images: an earlier version made "
            "it, which did not list its images."
        )
    elif seen := run.held_out_but_seen:
        sentences.append(
            f"The worth of pre-training on images that are new to it: the encoder that was taken over "
            f"had seen {seen} of the {len(run.held_out)} held-out images, or others of their parts, "
            "without labels. That flatters the model, and its gain over the control."
        )
    if unnamed := run.without_part:
        sentences.append(
            f"Other parts alone: no part is named for {unnamed} of {len(run.frame)} images, and each of "
            "these counts as a part of its own. If several show one part, all figures and intervals "
            "flatter: name the parts in parts.csv or data.group_pattern."
        )
    if params.data.defects:
        sentences.append(
            "Whole parts: escape and overkill are shares of images. A part that is seen in several "
            "images is rejected when one of them is."
        )
    if unlabelled:
        sentences.append(f"{unlabelled} held-out images without labels: they were not judged.")
    if images["groups"] < FEW_PARTS:
        sentences.append(
            f"Much with certainty: the held-out images show {images['groups']} parts, so the "
            "intervals, where there are any, are rough themselves."
        )
    return sentences + _concentrated(run.frame, run.model.card)


def _concentrated(frame: pd.DataFrame, card: ModelCard) -> list[str]:
    """Warn of the classes whose labelled pixels are mostly of a single part."""
    uses = {
        "val": "validation images, which choose the fine-tuning's step and the reported score",
        "test": "held-out images, which give the figures of this report",
    }
    sentences = []
    labelled = frame[frame["label_state"] == "labelled"]
    for split, use in uses.items():
        rows = labelled[labelled["split"] == split]
        if rows.empty:
            continue
        pixels = pd.DataFrame(rows["pixels"].to_list(), index=rows["group"])
        by_part = pixels.groupby(level=0).sum()
        lone = 2 * by_part.max() > by_part.sum()
        if names := [item.name for index, item in enumerate(card.classes, 1) if lone[index]]:
            sentences.append(
                f"Most parts: more than half of the labelled pixels of {', '.join(names)} in the "
                f"{use}, are of a single part (of {len(by_part)})."
            )
    return sentences


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _labels(frame: pd.DataFrame, card: ModelCard) -> list[dict[str, Any]]:
    """Count by class in how many labelled images of each split it occurs, and its pixels' share."""
    labelled = frame[frame["label_state"] == "labelled"]
    pixels = np.stack(labelled["pixels"].to_list())
    shares = pixels.sum(axis=0) / pixels.sum()
    return [
        {
            "class": item.name,
            "color": item.color,
            "share": shares[index],
            **{
                split: int((pixels[(labelled["split"] == split).to_numpy(), index] > 0).sum())
                for split in SPLITS
            },
        }
        for index, item in enumerate(card.classes, start=1)
    ]
