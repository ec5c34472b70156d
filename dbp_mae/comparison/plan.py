"""The comparison's file: which variants run, at which learning rates and seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from dbp_mae.errors import UserError
from dbp_mae.params import (
    AnyBlock,
    Block,
    FinetuneParams,
    Params,
    Positive,
    PretrainParams,
    Seed,
    check_block,
    load_block,
)

OWN = {"optimizer", "rest_rate", "weight_decay", "decorrelation", "steps", "warmup_steps"}
"""What a variant may change: these leave the data, the masks and the scale of the loss alone."""
GIVEN = {"learning_rate", "seed"}
"""What the comparison sets for every run."""

Changes = dict[str, Any]
"""Values by key, nested as in params.yaml; checked where they are applied."""


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{seeds} names one seed twice: name each once")
    return seeds


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]


class Variant(Block):
    """One way to pre-train."""

    learning_rates: Annotated[list[Positive], Field(min_length=1)]
    """Where the tuning starts; it goes on by factors of two."""
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of its steps in which the learning rate rises; None: the parameters' warmup_steps."""
    pretrain: Changes = Field(default_factory=dict)
    """What differs from the parameters of all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if shared := sorted(self.pretrain.keys() - OWN):
            raise ValueError(
                f"pretrain.{shared[0]} is none of what a variant may set ({', '.join(sorted(OWN))}); "
                "the rest must be equal for all, or their losses could not be compared"
            )
        if self.warmup is not None and "warmup_steps" in self.pretrain:
            raise ValueError("warmup and pretrain.warmup_steps are both given: leave one out")
        return self

    def settings(self, common: PretrainParams, name: str) -> PretrainParams:
        """Return its parameters, with its first learning rate; `name` says in an error whose they are.

        Raises:
            UserError: a key is unknown or out of range.
        """
        changes = {**self.pretrain, "learning_rate": self.learning_rates[0]}
        if self.warmup is None:
            return changed(common, changes, name)
        settings = changed(common, {**changes, "warmup_steps": 0}, name)
        return changed(settings, {"warmup_steps": round(self.warmup * settings.steps)}, name)


class TuningPlan(Block):
    """How each variant's learning rate is found."""

    seeds: Seeds
    """A rate is judged by its mean loss over these: one seed may be kind to a rate that is poor."""
    extensions: Annotated[int, Field(ge=0)]
    """How many learning rates may be tried beyond the first ones."""


class FinetunePlan(Block):
    """How each measured encoder is fine-tuned."""

    seeds: Seeds
    finetune: Changes = Field(default_factory=dict)
    """What differs from params.yaml."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "seed" in self.finetune:
            raise ValueError("finetune.seed comes from seeds: leave it out")
        return self


class Plan(Block):
    """A comparison's file."""

    baseline: str
    """The variant whose best loss the others are to reach."""
    pretrain: Changes = Field(default_factory=dict)
    """What differs from params.yaml, for all variants alike."""
    variants: Annotated[dict[str, Variant], Field(min_length=2)]
    tuning: TuningPlan
    seeds: Seeds
    """Of the measured runs; the tuning's are none of them."""
    finetune: FinetunePlan | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.baseline not in self.variants:
            raise ValueError(
                f"baseline is {self.baseline!r}, which is not among variants {list(self.variants)}"
            )
        if given := sorted(self.pretrain.keys() & GIVEN):
            raise ValueError(f"pretrain.{given[0]} is set by the comparison: leave it out")
        if shared := [seed for seed in self.tuning.seeds if seed in self.seeds]:
            raise ValueError(
                f"seed {shared[0]} of tuning.seeds {self.tuning.seeds} is among seeds {self.seeds}: "
                "measure with other seeds than those that chose the learning rates"
            )
        return self

    def common(self, params: Params) -> Params:
        """Return the parameters that all variants start from.

        Raises:
            UserError: a key is unknown or out of range, or several devices are asked for.
        """
        finetune = self.finetune.finetune if self.finetune else {}
        changes = {"pretrain": self.pretrain, "finetune": finetune}
        common = changed(params, changes, "The comparison")
        if common.pretrain.devices > 1:
            raise UserError(
                f"The comparison measures on one device, and pretrain.devices is "
                f"{common.pretrain.devices}: give it `devices: 1` under pretrain."
            )
        return common

    def settings(self, common: PretrainParams) -> dict[str, PretrainParams]:
        """Return the parameters of each variant, its first learning rate in them.

        Raises:
            UserError: a key is unknown or out of range, or the baseline is decorrelated.
        """
        settings = {
            name: variant.settings(common, f"The comparison's variant {name!r}")
            for name, variant in self.variants.items()
        }
        if not is_plain(settings[self.baseline]):
            raise UserError(
                f"The comparison's baseline {self.baseline!r} is decorrelated: give it "
                "`decorrelation: {update: none}`, or name another baseline."
            )
        return settings

    def recipes(self, common: FinetuneParams) -> list[FinetuneParams]:
        """Return the recipe of the fine-tuning with each of its seeds; none where none is planned."""
        seeds = self.finetune.seeds if self.finetune else []
        return [common.model_copy(update={"seed": seed}) for seed in seeds]


def load_plan(path: Path) -> Plan:
    """Read a comparison's file.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown, missing or out of range.
    """
    return load_block(path, Plan)


def is_plain(params: PretrainParams) -> bool:
    """Tell whether a pre-training has no decorrelation."""
    return params.decorrelation.update == "none"


def changed(params: AnyBlock, changes: Mapping[str, Any], name: str) -> AnyBlock:
    """Return a block with some values changed; `name` says in the error where they come from."""
    return check_block(_merged(params.model_dump(by_alias=True), changes), type(params), name)


def _merged(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**values, **changes}
    for key in values.keys() & changes.keys():
        if isinstance(values[key], dict) and isinstance(changes[key], Mapping):
            merged[key] = _merged(values[key], changes[key])
    return merged
