"""Results whose ratios are known: losses that fall by a known amount a step."""

from typing import Any

from default_params import default_params

from dbp_mae.comparison.measurement import Measurement, Row
from dbp_mae.comparison.plan import Plan
from dbp_mae.comparison.results import Data, EnergySource, Finetuned, Results
from dbp_mae.comparison.tuning import Trial, Tuning

EVERY, STEPS = 10, 100


def measurement(variant: str, seed: int, slope: float, pace: float = 0.5, watts: float = 10.0,
                diverged: bool = False, waiting: float = 0.05) -> Measurement:  # fmt: skip
    """Return a run whose loss falls by `slope` a step, at `pace` seconds a step, a share of them waiting."""
    rows = [
        Row(
            step=step,
            seconds=step * pace,
            joules=step * pace * watts,
            waited=step * pace * waiting,
            train_loss=1.0,
            val_loss=round(1 - slope * step, 9),
        )
        for step in range(EVERY, STEPS + 1, EVERY)
    ]
    return Measurement(variant=variant, seed=seed, learning_rate=1e-3, rows=rows, diverged=diverged)


def plan(**changes: Any) -> Plan:
    """Return a plan of two plain variants and two decorrelated ones."""
    variants = {
        name: {
            "learning_rates": [1e-3],
            "pretrain": {"optimizer": optimizer, "decorrelation": {"update": update}},
        }
        for name, optimizer, update in (
            ("AdamW", "adamw", "none"),
            ("Muon", "muon", "none"),
            ("AdamW, paper", "adamw", "paper"),
            ("Muon, function-preserving", "muon", "function-preserving"),
        )
    }
    content = {
        "baseline": "AdamW",
        "pretrain": {"steps": STEPS, "validate_every": EVERY},
        "variants": variants,
        "tuning": {"seeds": [0], "extensions": 3},
        "seeds": [1, 2, 3],
    }
    return Plan.model_validate(content | changes)


def tuning(loss: float) -> Tuning:
    """Return a tuning that ended at this loss, and diverged at the next rate."""
    trials = [Trial(learning_rate=1e-3, losses=[loss]), Trial(learning_rate=2e-3, losses=[None])]
    return Tuning(trials=trials, best=1e-3, bracketed=True)


def results(measurements: list[Measurement], energy: EnergySource | None = None) -> Results:
    """Return the results of these measurements, under `plan`."""
    settings = plan().settings(plan().common(default_params()).pretrain)
    tuned = {name: 0.4 if name == "Muon, function-preserving" else 0.5 for name in settings}
    return Results(
        plan=plan(),
        settings=settings,
        recipe=None,
        environment={"device": "a device"},
        data=Data(source="data/parts", sha256="d" * 64, training_images=1234, validation_images=20),
        energy=energy or EnergySource(measured=["gpu"], watts=None),
        constant_loss=0.98,
        tuning={name: tuning(loss) for name, loss in tuned.items()},
        measurements=measurements,
        finetuned=[],
    )


def with_finetuning(found: Results, mious: dict[str, float | None]) -> Results:
    """Return results with one fine-tuning of each variant."""
    tuned = [
        Finetuned(variant=name, seed=1, finetune_seed=0, miou=miou) for name, miou in mious.items()
    ]
    recipe = default_params().finetune
    changes = {"finetuned": tuned, "recipe": recipe, "plan": plan(finetune={"seeds": [0]})}
    return found.model_copy(update=changes)


def clear_win() -> list[Measurement]:
    """Return runs of three seeds in which function-preserving Muon is twice as fast as plain Muon."""
    slopes = {"AdamW": 1, "Muon": 2, "AdamW, paper": 2, "Muon, function-preserving": 4}
    return [
        measurement(name, seed, slope / 1000)
        for seed in (1, 2, 3)
        for name, slope in slopes.items()
    ]
