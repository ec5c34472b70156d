"""The page on the gate: one HTML file that opens without a network."""

from typing import Any

import numpy as np
import pandas as pd

from dbp_mae.data.manifest import SPLITS, count_splits
from dbp_mae.data.validation import Validation
from dbp_mae.pages.charts import histogram_chart
from dbp_mae.pages.templates import render

LISTED_FILES = 200
"""How many files the page lists for a rule."""

DISTRIBUTIONS = {
    "mean": "Brightness (mean, 1 is white)",
    "std": "Contrast (standard deviation, 1 is white)",
    "sharpness": "Sharpness (variance of the Laplacian)",
    "saturated": "Saturated share",
}


def render_page(validation: Validation, classes: list[str]) -> str:
    """Return the page: verdict, counts, rules, offending files, distributions."""
    return render(
        "data/validation.html.j2",
        validation=validation,
        outcomes=sorted(validation.outcomes, key=lambda o: (o.passed, o.rule.severity)),
        splits=_count_splits(validation),
        classes=_count_classes(validation.validated, classes),
        histograms=[
            histogram_chart(_by_split(validation.validated, column), title)
            for column, title in DISTRIBUTIONS.items()
            if len(validation.validated)
        ],
        listed=LISTED_FILES,
    )


def _count_splits(validation: Validation) -> list[dict[str, Any]]:
    """Count what passed by split, and what was set aside."""
    given = validation.manifest["split"]
    excluded = validation.manifest["label_state"] == "excluded"
    rows = count_splits(validation.validated)
    for row in rows:
        row["excluded"] = int((excluded & (given == row["split"])).sum())
        row["quarantined"] = int((given == row["split"]).sum()) - row["images"] - row["excluded"]
    return rows


def _count_classes(validated: pd.DataFrame, classes: list[str]) -> list[dict[str, object]]:
    """Count by class and split the labelled images that show it, and its share of their pixels."""
    labelled = validated.dropna(subset="pixels")
    pixels = [  # N K+1 of each split
        np.array(chosen.to_list(), dtype=int).reshape(-1, len(classes) + 1)
        for chosen in _by_split(labelled, "pixels").values()
    ]
    totals = [int(part.sum()) for part in pixels]
    rows: list[dict[str, object]] = []
    for index, name in enumerate(classes, start=1):
        shown = [part[:, index] for part in pixels]
        cells = [
            {"images": int((part > 0).sum()), "share": part.sum() / max(1, total)}
            for part, total in zip(shown, totals, strict=True)
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _by_split(validated: pd.DataFrame, column: str) -> dict[str, pd.Series]:
    return {split: validated.loc[validated["split"] == split, column] for split in SPLITS}
