"""The gate: which images may be trained on, and whether they suffice."""

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations as gx
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig

from dbp_mae.data.rules import (
    Rule,
    class_evidence,
    class_rules,
    image_evidence,
    image_rules,
    table_evidence,
    table_rules,
)

NAMED_FILES = 10
"""How many offending files the complaint names."""


@dataclass(frozen=True)
class Outcome:
    """What a rule found."""

    rule: Rule
    passed: bool
    checked: int
    failures: dict[str, str]
    """Sentence by path of the image, or by name of the class; empty for a rule on the whole table."""


@dataclass(frozen=True)
class Validation:
    """The gate's decision on a manifest, and what led to it."""

    manifest: pd.DataFrame
    validated: pd.DataFrame
    """The manifest without excluded and quarantined images."""
    quarantine: pd.DataFrame
    """Columns path, rule and reason: a row for each critical rule that an image fails."""
    by_image: list[Outcome]
    overall: list[Outcome]
    """Of the rules on the classes, and on the table as a whole."""
    tolerated_share: float

    @property
    def outcomes(self) -> list[Outcome]:
        """What every rule found."""
        return self.by_image + self.overall

    @property
    def lacking(self) -> list[str]:
        """The sentences of the critical rules that the images as a whole fail."""
        return [
            sentence
            for outcome in self.overall
            if outcome.rule.severity == "critical" and not outcome.passed
            for sentence in outcome.failures.values() or [outcome.rule.sentence]
        ]

    @property
    def quarantined(self) -> int:
        """How many images are quarantined."""
        return self.quarantine["path"].nunique()

    @property
    def judged(self) -> int:
        """How many images were judged: all but the excluded ones."""
        return len(self.validated) + self.quarantined

    @property
    def gate_open(self) -> bool:
        """Whether training may go on with the validated images."""
        share = self.quarantined / max(self.judged, 1)
        return share <= self.tolerated_share and not self.lacking

    @property
    def verdict(self) -> str:
        """The decision, the number of quarantined images, and what the others lack."""
        decision = "open" if self.gate_open else "closed"
        counts = (
            f"The data gate is {decision}: {self.quarantined} of {self.judged} images are "
            f"quarantined, {self.tolerated_share:.1%} are tolerated."
        )
        return " ".join([counts, *self.lacking])

    @property
    def warnings(self) -> str:
        """The titles of the rules that warn, each with the number that fail it; empty without any."""
        told = [
            f"{outcome.rule.title} (not so: {len(outcome.failures)})"
            for outcome in self.outcomes
            if outcome.rule.severity == "warning" and not outcome.passed
        ]
        return "; ".join(told)

    @property
    def complaint(self) -> str:
        """The verdict, and a line for each of the first offending files."""
        reasons = self.quarantine.groupby("path")["reason"].agg(" ".join)
        lines = [f"  {path}: {reason}" for path, reason in reasons.head(NAMED_FILES).items()]
        if len(reasons) > NAMED_FILES:
            lines.append(f"  and {len(reasons) - NAMED_FILES} more.")
        return "\n".join([self.verdict, *lines])


def validate(manifest: pd.DataFrame, classes: list[str], tolerated_share: float) -> Validation:
    """Judge a manifest's images one by one, and then what is left of them as a whole.

    The gate closes when more than `tolerated_share` of the images fail a critical rule, or when
    the rest fails a critical rule on the classes or on the whole table. Without classes there are no
    such rules: nothing needs to be labelled.
    """
    judged = manifest[manifest["label_state"] != "excluded"]
    by_image = _outcomes(image_evidence(judged), image_rules(judged), "path")
    quarantine = pd.DataFrame(
        [
            (path, outcome.rule.title, reason)
            for outcome in by_image
            if outcome.rule.severity == "critical"
            for path, reason in outcome.failures.items()
        ],
        columns=["path", "rule", "reason"],
    ).sort_values("path", kind="stable", ignore_index=True)
    validated = judged[~judged["path"].isin(quarantine["path"])]
    overall = []
    if classes:
        overall += _outcomes(table_evidence(validated), table_rules(), "path")
        overall += _outcomes(class_evidence(validated, classes), class_rules(), "class")
    return Validation(manifest, validated, quarantine, by_image, overall, tolerated_share)


def _outcomes(table: pd.DataFrame, rules: Sequence[Rule], name: str) -> list[Outcome]:
    """Run the rules' expectations on a table with Great Expectations; column `name` names its rows."""
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("gate").add_dataframe_asset("manifest")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
    suite = gx.ExpectationSuite("gate", expectations=[rule.build() for rule in rules])
    run = batch.validate(
        suite,
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [name]},
    )
    results = {
        config.meta["title"]: result
        for result in run.results
        if (config := result.expectation_config)
    }
    return [_outcome(rule, results[rule.title], len(table), name) for rule in rules]


def _outcome(rule: Rule, result: ExpectationValidationResult, rows: int, name: str) -> Outcome:
    found = result.result
    if not result.success and not found:
        raise RuntimeError(f"rule '{rule.title}' did not run: {result.exception_info}")
    checked = found.get("element_count", rows) - found.get("missing_count", 0)
    column = rule.arguments["column"]
    failures = {
        row[name]: rule.sentence.format(name=row[name], value=row[column])
        for row in found.get("unexpected_index_list") or []
    }
    return Outcome(rule, bool(result.success), checked, failures)
