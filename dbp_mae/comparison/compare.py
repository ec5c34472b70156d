"""The comparison of ways to pre-train: tune each, measure them in turns, fine-tune what they made.

The variants of one seed take turns on the device, so that what slows the machine for a while slows all.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from dbp_mae.comparison.contender import (
    Contender,
    encoder_file,
    finish_together,
    load_measurement,
    save_together,
)
from dbp_mae.comparison.measurement import Measurement
from dbp_mae.comparison.plan import Plan, is_plain
from dbp_mae.comparison.power import estimated_power, with_estimate
from dbp_mae.comparison.progress import Progress
from dbp_mae.comparison.results import Data, EnergySource, Finetuned, Results
from dbp_mae.comparison.subject import Subject
from dbp_mae.comparison.tuning import Trial, Tuning, best_rate, next_rate
from dbp_mae.energy import EnergyMeter
from dbp_mae.environment import code_sha256, environment
from dbp_mae.errors import UserError
from dbp_mae.files import sha256_of
from dbp_mae.params import Block, FinetuneParams, Params, PretrainParams
from dbp_mae.pretraining.images import PretrainingImages
from dbp_mae.pretraining.run import create_run
from dbp_mae.training.checkpoint import ROOT, Checkpoint, run_folder
from dbp_mae.training.compilation import make_room_for_compiled
from dbp_mae.training.precision import resolve

FINETUNING_NEEDS = ("albumentations", "segmentation_models_pytorch", "onnx", "onnxruntime")


class Conditions(Block):
    """What a finished run stands for, beside its data, its settings and the code."""

    environment: dict[str, Any]


def compare(
    plan: Plan, params: Params, subject: Subject, announce: Callable[[str], None]
) -> Iterator[Results]:
    """Run what is not finished yet; yield the results so far whenever they have grown.

    A comparison that was killed goes on from .checkpoints/; a finished seed is never repeated there
    while data, settings, hardware, versions and code are the same.

    Raises:
        UserError: a setting is out of range, a split is empty, or the fine-tuning lacks a package.
    """
    with Checkpoint(ROOT / "comparison").alone():  # two at once would slow each other
        comparison = _Comparison(plan, params, subject, announce)
        folder = comparison.folder("power", plan)
        measured = comparison.energy.measured
        with estimated_power(params.emissions, measured, folder) as watts:
            for _ in comparison.run():
                yield comparison.results(watts())


class _Comparison:
    """The work that a plan makes, and what came of it so far."""

    def __init__(
        self, plan: Plan, params: Params, subject: Subject, announce: Callable[[str], None]
    ) -> None:
        self.plan, self.subject, self.announce = plan, subject, announce
        self.params = plan.common(params)
        self.settings = plan.settings(self.params.pretrain)
        self.recipes = plan.recipes(self.params.finetune)
        if self.recipes:
            _check_finetuning(subject.frame)
        self.images = PretrainingImages.of(subject.frame, params.data)
        for images in (self.images.training, self.images.validation):
            images.fill(os.cpu_count() or 1)  # else the first variant would do it for the others
        self.energy = EnergyMeter.of_this_machine()
        self.conditions = Conditions(environment=environment())
        for variant in self.settings.values():  # what cannot be trained is refused before any is
            run = create_run(self.images, variant)
            run.check_eps(self.images.batches(variant)[0])
        self.constant_loss = run.constant_loss()  # the same for all
        self.data = Data(
            source=self.params.data.source.name,
            sha256=sha256_of(subject.manifest),
            training_images=int((subject.frame["split"] == "train").sum()),
            validation_images=int((subject.frame["split"] == "val").sum()),
        )
        self.tuning: dict[str, Tuning] = {}
        self.measurements: list[Measurement] = []
        self.finetuned: list[Finetuned] = []

    def run(self) -> Iterator[None]:
        """Do all of the work; yield whenever the results have grown."""
        progress = Progress(self.announce)
        self._plan_steps(progress)
        self.tuning = {name: self._tune(name, progress) for name in self.plan.variants}
        self.settings = self._tuned(progress)
        for seed in self.plan.seeds:
            self.measurements += self._measure(seed, progress)
            yield
        progress = Progress(self.announce)
        progress.plan(len(self.measurements) * len(self.recipes))
        for seed in self.plan.seeds:
            for recipe in self.recipes:
                self.finetuned += self._finetune(seed, recipe, progress)
                yield

    def results(self, watts: float | None) -> Results:
        """Return the results so far; where no counter was read, joules follow from `watts`."""
        source = EnergySource(measured=self.energy.measured, watts=watts)
        return Results(
            plan=self.plan,
            settings=self.settings,
            recipe=self.recipes[0] if self.recipes else None,
            environment={
                **self.conditions.environment,
                "precision": resolve(self.params.pretrain.precision),
                "code": code_sha256(),
            },
            data=self.data,
            energy=source,
            constant_loss=self.constant_loss,
            tuning=self.tuning,
            measurements=[with_estimate(run, source) for run in self.measurements],
            finetuned=self.finetuned,
        )

    def folder(self, name: str, *settings: Block) -> Path:
        """Return the folder of a piece of work, by all that its result depends on."""
        return run_folder(
            f"compare-{name}", self.subject.frame, self.params.data, self.conditions, *settings
        )

    def _plan_steps(self, progress: Progress) -> None:
        for name, variant in self.plan.variants.items():
            tried = len(set(variant.learning_rates)) * len(self.plan.tuning.seeds)
            runs = tried + len(self.plan.seeds)
            progress.plan(self.settings[name].steps * runs)

    def _tune(self, name: str, progress: Progress) -> Tuning:
        """Try learning rates until the best one stands between two that are worse."""
        rates = list(dict.fromkeys(self.plan.variants[name].learning_rates))
        allowed = len(rates) + self.plan.tuning.extensions
        trials: list[Trial] = []
        losses: dict[float, float] = {}
        while rates:
            trials.append(self._try(name, rates.pop(0), progress))
            losses[trials[-1].learning_rate] = trials[-1].loss
            if not rates and len(losses) < allowed and (following := next_rate(losses)):
                rates.append(following)
                progress.plan(self.settings[name].steps * len(self.plan.tuning.seeds))
        return Tuning(
            trials=sorted(trials, key=lambda trial: trial.learning_rate),
            best=best_rate(losses),
            bracketed=next_rate(losses) is None,
        )

    def _tuned(self, progress: Progress) -> dict[str, PretrainParams]:
        """Return what is measured: each variant at its best rate, a level one under a name of its own."""
        tuned = {}
        for name, params in self.settings.items():
            best, *level = self.tuning[name].measured(is_plain(params))
            tuned[name] = params.model_copy(update={"learning_rate": best})
            for rate in level:
                tuned[f"{name} at {rate:g}"] = params.model_copy(update={"learning_rate": rate})
                progress.plan(params.steps * len(self.plan.seeds))
        return tuned

    def _try(self, name: str, rate: float, progress: Progress) -> Trial:
        """Run a variant at one learning rate with the tuning's seeds, up to the first that diverges."""
        losses: list[float | None] = []
        for seed in self.plan.tuning.seeds:
            loss = self._run_alone(name, rate, seed, progress).best_loss
            losses.append(loss if math.isfinite(loss) else None)
            if losses[-1] is None:
                break
        progress.skip(self.settings[name].steps * (len(self.plan.tuning.seeds) - len(losses)))
        return Trial(learning_rate=rate, losses=losses)

    def _run_alone(self, name: str, rate: float, seed: int, progress: Progress) -> Measurement:
        params = self.settings[name].model_copy(update={"learning_rate": rate, "seed": seed})
        folder = self.folder("tune", params)
        if done := load_measurement(folder):
            progress.skip(params.steps)
            return done
        make_room_for_compiled(1)
        contender = Contender(name, self.images, params, folder, self.energy)
        progress.skip(contender.training.step)
        while not contender.finished:
            _take_slice(contender, f"tune {name}, learning rate {rate:g}, seed {seed}", progress)
            if contender.due:
                save_together([contender])
        (done,) = finish_together([contender], encoders=False)
        return done

    def _measure(self, seed: int, progress: Progress) -> list[Measurement]:
        """Run all variants with one seed, in turns.

        The first of a round is the last of the next, and each seed begins with another variant.
        """
        done, turns = self._go_on(seed)
        progress.skip(sum(self.settings[name].steps for name in done))
        progress.skip(sum(contender.training.step for contender in turns))
        turns = _rotated(turns, self.plan.seeds.index(seed))
        while running := [contender for contender in turns if not contender.finished]:
            for contender in running:
                _take_slice(contender, f"measure {contender.variant}, seed {seed}", progress)
            if any(contender.due for contender in running):
                save_together(turns)
            turns = _rotated(turns, turns.index(running[0]) + 1)
        done |= {run.variant: run for run in finish_together(turns, encoders=True)}
        # A variant may have been renamed since.
        return [done[name].model_copy(update={"variant": name}) for name in self.settings]

    def _go_on(self, seed: int) -> tuple[dict[str, Measurement], list[Contender]]:
        """Return the runs of a seed that have ended, and the others where they were saved.

        They are compared round by round: runs that a kill left at different rounds begin anew.
        """
        folders = self._measure_folders(seed)
        done = {name: run for name, folder in folders.items() if (run := load_measurement(folder))}
        make_room_for_compiled(len(folders))
        turns = [
            Contender(
                name,
                self.images,
                self.settings[name].model_copy(update={"seed": seed}),
                folder,
                self.energy,
            )
            for name, folder in folders.items()
            if name not in done
        ]
        if _at_one_round(done, turns):
            return done, turns
        turns.clear()  # a device may not hold them twice
        for folder in folders.values():
            Checkpoint(folder).discard()
        return self._go_on(seed)

    def _measure_folders(self, seed: int) -> dict[str, Path]:
        """Return where each variant of a seed is kept: a run counts beside those it ran with."""
        settings = [params.model_copy(update={"seed": seed}) for params in self.settings.values()]
        group = self.folder(f"seed-{seed}", *settings)
        return {name: group / str(index) for index, name in enumerate(self.settings)}

    def _finetune(
        self, seed: int, recipe: FinetuneParams, progress: Progress
    ) -> Iterator[Finetuned]:
        """Fine-tune the encoders of one seed, and judge what comes of them on held-out images."""
        from dbp_mae.comparison import finetuning  # its packages may be absent

        diverged = {run.variant for run in self.measurements if run.seed == seed and run.diverged}
        for name, measured in self._measure_folders(seed).items():
            if name in diverged:
                progress.skip(1)
                continue
            folder = self.folder(
                f"finetune-{seed}-{recipe.seed}",
                self.settings[name].model_copy(update={"seed": seed}),
                recipe,
                self.params.export,
            )
            done = finetuning.miou_file(folder).exists()
            miou = finetuning.held_out_miou(
                encoder_file(measured), recipe, self.params, self.subject, folder
            )
            yield Finetuned(variant=name, seed=seed, finetune_seed=recipe.seed, miou=miou)
            if done:
                progress.skip(1)
            else:
                text = f"fine-tune {name}, seed {seed}, fine-tuning seed {recipe.seed}"
                progress.report(text, 1)


def _at_one_round(done: Mapping[str, Measurement], turns: list[Contender]) -> bool:
    ended = [len(run.rows) for run in done.values()]
    reached = max([*ended, *(len(contender.rows) for contender in turns)])
    return all(contender.finished or len(contender.rows) == reached for contender in turns)


def _rotated(turns: list[Contender], by: int) -> list[Contender]:
    """Return the contenders in their order, beginning with another one."""
    first = by % max(1, len(turns))
    return turns[first:] + turns[:first]


def _take_slice(contender: Contender, text: str, progress: Progress) -> None:
    before = contender.training.step
    contender.take_slice()
    step, steps = contender.training.step, contender.params.steps
    if contender.diverged:
        progress.skip(steps - step)
        outcome = "diverged"
    else:
        outcome = f"validation loss {contender.rows[-1].val_loss:.4f}"
    progress.report(f"{text}: step {step} of {steps}, {outcome}", step - before)


def _check_finetuning(frame: pd.DataFrame) -> None:
    """Refuse, before anything is trained, what could not be fine-tuned at the end."""
    if missing := [name for name in FINETUNING_NEEDS if find_spec(name) is None]:
        raise UserError(
            f"Fine-tuning needs {', '.join(missing)}, which this machine lacks: install it, or set "
            "finetune to null in the comparison's file."
        )
    labelled = set(frame.loc[frame["label_state"] == "labelled", "split"])
    if bare := [split for split in ("train", "val", "test") if split not in labelled]:
        raise UserError(
            f"Fine-tuning needs labelled images in every split, and none is in {', '.join(bare)}: label "
            "parts of at least three groups, or set finetune to null in the comparison's file."
        )
