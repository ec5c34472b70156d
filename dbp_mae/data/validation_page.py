"""The page on the gate: one HTML file that opens without a network."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dbp_mae.data.manifest import SPLITS
from dbp_mae.data.validation import Validation
from dbp_mae.templates import render

BINS = 30
LISTED_FILES = 200
"""How many files the page lists for a rule."""

DISTRIBUTIONS = {
    "mean": "Brightness (mean, 1 is white)",
    "std": "Contrast (standard deviation, 1 is white)",
    "sharpness": "Sharpness (variance of the Laplacian)",
    "saturated": "Saturated share",
}


@dataclass(frozen=True)
class Histogram:
    """Images by one of their statistics."""

    title: str
    edges: list[float]
    counts: dict[str, list[int]]
    """By split, then by bin."""

    @property
    def highest(self) -> int:
        """The largest number of images in a bin, over all splits."""
        return max(map(sum, zip(*self.counts.values(), strict=True)))


def render_page(validation: Validation, classes: list[str]) -> str:
    """Return the page: verdict, counts, rules, offending files, distributions."""
    return render(
        "data/validation.html.j2",
        validation=validation,
        outcomes=sorted(validation.outcomes, key=lambda o: (o.passed, o.rule.severity)),
        splits=_count_splits(validation),
        classes=_count_classes(validation.validated, classes),
        histograms=[
            _histogram(validation.validated, column, title)
            for column, title in DISTRIBUTIONS.items()
            if len(validation.validated)
        ],
        listed=LISTED_FILES,
    )


def _count_splits(validation: Validation) -> list[dict[str, str | int]]:
    """Count parts and images by split."""
    rows: list[dict[str, str | int]] = []
    for split in SPLITS:
        given = validation.manifest[validation.manifest["split"] == split]
        excluded = int((given["label_state"] == "excluded").sum())
        valid = validation.validated[validation.validated["split"] == split]
        rows.append(
            {
                "split": split,
                "parts": valid["group"].nunique(),
                "images": len(valid),
                "labelled": int((valid["label_state"] == "labelled").sum()),
                "unlabelled": int((valid["label_state"] == "unlabelled").sum()),
                "quarantined": len(given) - len(valid) - excluded,
                "excluded": excluded,
            }
        )
    return rows


def _count_classes(validated: pd.DataFrame, classes: list[str]) -> list[dict[str, object]]:
    """Count by class and split the labelled images that show it, and its share of their pixels."""
    labelled = validated.dropna(subset="pixels")
    rows: list[dict[str, object]] = []
    for index, name in enumerate(classes, start=1):
        cells = []
        for split in SPLITS:
            chosen = labelled[labelled["split"] == split]
            pixels = np.array(chosen["pixels"].to_list()).reshape(len(chosen), -1)
            total = pixels.sum()
            shown = pixels[:, index] if total else np.zeros(0)
            share = shown.sum() / total if total else 0.0
            cells.append({"images": int((shown > 0).sum()), "share": share})
        rows.append({"name": name, "cells": cells})
    return rows


def _histogram(validated: pd.DataFrame, column: str, title: str) -> Histogram:
    edges = np.histogram_bin_edges(validated[column], BINS)
    counts = {
        split: np.histogram(validated.loc[validated["split"] == split, column], edges)[0].tolist()
        for split in SPLITS
    }
    return Histogram(title, edges.tolist(), counts)
