"""The rules of the gate: expectations on the manifest, and the columns of evidence they look at."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.row_conditions import Column

from dbp_mae.data.labels import LabelErrorKind
from dbp_mae.data.manifest import LABEL_STATES, SPLITS

Severity = Literal["critical", "warning"]

BLANK_STD = 0.004
"""An image whose channels all deviate by less, about one grey level of 255, shows nothing."""
SATURATED_SHARE = 0.5
BRIGHT = 1 / 8
"""What values of a 16-bit image should reach, as a share of white: those of a 12-bit camera reach 1/16."""
OUTLIER_FENCE = 3.0
"""Interquartile ranges between the quartiles and an outlier (Tukey's outer fence)."""

LABEL_RULES: dict[LabelErrorKind, str] = {
    "unreadable": "Label can be read",
    "unsupported": "Label is of a supported kind",
    "wrong_size": "Label is of its image's size",
    "binary_mask": "Mask holds class indices, not just 0 and 255",
    "unknown_class": "Label names known classes only",
    "contradiction": "Label agrees with parts.csv",
}
"""The title of the rule against each kind of label error."""


@dataclass(frozen=True)
class Rule:
    """An expectation, and the sentence that tells of its failure: of {name}, by the {value} found."""

    title: str
    severity: Severity
    expectation: type[gxe.Expectation]
    arguments: dict[str, Any]
    sentence: str

    def build(self) -> gxe.Expectation:
        """Return the expectation; its meta data name the rule."""
        severity = FailureSeverity(self.severity)
        return self.expectation(**self.arguments, severity=severity, meta={"title": self.title})


def image_evidence(manifest: pd.DataFrame) -> pd.DataFrame:
    """Add what the rules on single images look at: each column is null where all is well.

    group_splits: the splits of the image's group, where there are several.
    copy_elsewhere, lookalike_elsewhere: an image in another split with the same bytes, or hash.
    copy_nearby: another image in the same split with the same bytes.
    contrast: the largest standard deviation of a channel.
    bright: for 16-bit images, the mean and two standard deviations, which few values exceed.
    One column for each kind of label error holds the errors of that kind.
    """
    sides = manifest[["group", "split"]].drop_duplicates()
    several = sides[sides["group"].duplicated(keep=False)].sort_values("split")
    straddling = several.groupby("group")["split"].agg(" and ".join)
    copies = _twin_elsewhere(manifest, "sha256")
    return manifest.assign(
        group_splits=manifest["group"].map(straddling),
        copy_elsewhere=copies,
        lookalike_elsewhere=_twin_elsewhere(manifest, "phash").where(copies.isna()),
        copy_nearby=_twin_nearby(manifest, "sha256"),
        bright=(manifest["mean"] + 2 * manifest["std"]).where(manifest["bit_depth"] == 16),
        contrast=manifest["channel_std"].map(np.max, na_action="ignore").astype(float),
        **{
            _error_of(kind): manifest["label_error"].where(manifest["label_error_kind"] == kind)
            for kind in LABEL_RULES
        },
    )


def image_rules(manifest: pd.DataFrame) -> list[Rule]:
    """Return the rules on single images; the manifest tells which sharpness is usual."""
    softest, sharpest = _fences(manifest["sharpness"])
    return [
        Rule(
            "Image can be read",
            "critical",
            gxe.ExpectColumnValuesToBeNull,
            {"column": "image_error"},
            "{value}",
        ),
        *(
            Rule(
                title,
                "critical",
                gxe.ExpectColumnValuesToBeNull,
                {
                    "column": _error_of(kind),
                    "row_condition": Column("label_state") == "labelled",
                },
                "{value}",
            )
            for kind, title in LABEL_RULES.items()
        ),
        Rule(
            "Label state is known",
            "critical",
            gxe.ExpectColumnValuesToBeInSet,
            {"column": "label_state", "value_set": list(LABEL_STATES)},
            "The label state '{value}' is unknown.",
        ),
        Rule(
            "Image is not blank",
            "critical",
            gxe.ExpectColumnValuesToBeBetween,
            {"column": "contrast", "min_value": BLANK_STD},
            "The image is blank, or brighter than data.white_level: its values deviate by {value:.4f} of "
            "white.",
        ),
        Rule(
            "16-bit values reach towards white",
            "warning",
            gxe.ExpectColumnValuesToBeBetween,
            {"column": "bright", "min_value": BRIGHT},
            "Hardly a value is above {value:.3f} of white: is data.white_level the camera's largest value "
            "(4095 for 12 bits)?",
        ),
        Rule(
            "Part is in one split",
            "critical",
            gxe.ExpectColumnValuesToBeNull,
            {"column": "group_splits"},
            "Its part (group) is in {value}.",
        ),
        Rule(
            "No copy in another split",
            "critical",
            gxe.ExpectColumnValuesToBeNull,
            {"column": "copy_elsewhere"},
            "The same file is in another split as {value}: delete one, or give both one group.",
        ),
        Rule(
            "No look-alike in another split",
            "warning",
            gxe.ExpectColumnValuesToBeNull,
            {"column": "lookalike_elsewhere"},
            "It looks like {value}, which is in another split.",
        ),
        Rule(
            "No copy in its own split",
            "warning",
            gxe.ExpectColumnValuesToBeNull,
            {"column": "copy_nearby"},
            "It is the same file as {value}.",
        ),
        Rule(
            "Exposure keeps detail",
            "warning",
            gxe.ExpectColumnValuesToBeBetween,
            {"column": "saturated", "max_value": SATURATED_SHARE},
            "{value:.0%} of its values are black or white.",
        ),
        Rule(
            "Sharpness is usual",
            "warning",
            gxe.ExpectColumnValuesToBeBetween,
            {"column": "sharpness", "min_value": softest, "max_value": sharpest},
            f"Its sharpness {{value:.1f}} is outside {softest:.1f} to {sharpest:.1f}.",
        ),
    ]


def table_evidence(manifest: pd.DataFrame) -> pd.DataFrame:
    """Add what the rules on the whole table sum up: labelled images, and their pixels of any class."""
    return manifest.assign(
        labelled=(manifest["label_state"] == "labelled").astype(int),
        foreground=[0 if pixels is None else int(sum(pixels[1:])) for pixels in manifest["pixels"]],
    )


def table_rules() -> list[Rule]:
    """Return the rules on the table as a whole: every split is labelled and shows some class."""
    return [
        *(
            Rule(
                f"Labelled images in {split}",
                "critical",
                gxe.ExpectColumnSumToBeBetween,
                {"column": "labelled", "min_value": 1, "row_condition": Column("split") == split},
                f"No labelled image is left in {split}: label images of more parts.",
            )
            for split in SPLITS
        ),
        *(
            Rule(
                f"Some class in {split}",
                "critical",
                gxe.ExpectColumnSumToBeBetween,
                {"column": "foreground", "min_value": 1, "row_condition": Column("split") == split},
                f"No image left in {split} shows any class, which leaves its mean IoU undefined: "
                f"label more parts, or change data.seed or data.{split}_share.",
            )
            for split in SPLITS[1:]
        ),
    ]


def class_evidence(manifest: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return a row a class: its name and its pixels in each split."""
    table = pd.DataFrame({"class": classes})
    for split in SPLITS:
        labelled = manifest.loc[manifest["split"] == split, "pixels"].dropna()
        table[split] = np.sum([pixels[1:] for pixels in labelled], axis=0, dtype=np.int64)
    return table


def class_rules() -> list[Rule]:
    """Return the rules on single classes: each is trained, and should be validated and tested."""
    return [
        Rule(
            f"Every class in {split}",
            "critical" if split == "train" else "warning",
            gxe.ExpectColumnValuesToBeBetween,
            {"column": split, "min_value": 1},
            f"No image left in {split} shows '{{name}}': label it in more parts.",
        )
        for split in SPLITS
    ]


def _error_of(kind: LabelErrorKind) -> str:
    return f"label error {kind}"


def _twin_elsewhere(manifest: pd.DataFrame, key: str) -> pd.Series:
    """Name for each row the first path in another split with the same key, or null."""
    first = manifest.groupby([key, "split"])["path"].first().unstack()
    twins = first.reindex(index=manifest[key], columns=SPLITS)
    elsewhere = np.array(SPLITS) != manifest["split"].to_numpy()[:, None]
    return twins.where(elsewhere).bfill(axis=1).iloc[:, 0].set_axis(manifest.index)


def _twin_nearby(manifest: pd.DataFrame, key: str) -> pd.Series:
    """Name for each row the first path in its split with the same key, null for that one itself."""
    first = manifest.groupby([key, "split"])["path"].transform("first")
    return first.where(first != manifest["path"])


def _fences(values: pd.Series) -> tuple[float, float]:
    """Return the bounds of a positive quantity beyond which a value is an outlier."""
    logs = np.log(values[values > 0])
    if logs.empty:
        return 0.0, np.inf
    low, high = np.quantile(logs, [0.25, 0.75])
    reach = OUTLIER_FENCE * (high - low)
    return float(np.exp(low - reach)), float(np.exp(high + reach))
