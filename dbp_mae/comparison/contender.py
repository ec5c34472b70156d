"""One pre-training of a comparison: warmed up, taken in slices, its energy read, resumed after a kill."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch

from dbp_mae.comparison.measurement import Measurement, Row
from dbp_mae.data.batches import Batches, Pair
from dbp_mae.encoder import save_encoder
from dbp_mae.energy import EnergyMeter
from dbp_mae.files import atomic_path
from dbp_mae.params import PretrainParams
from dbp_mae.pretraining.images import PretrainingImages
from dbp_mae.pretraining.run import Pretraining, create_run
from dbp_mae.training.checkpoint import Checkpoint
from dbp_mae.training.loop import LOG_EVERY, DivergedError

WARM_UP_STEPS = 3
"""At least; and enough for R to move once."""


class Contender:
    """A variant at one learning rate and seed, ready to take its next slice.

    What `saving` and `finishing` leave is in `folder`; a contender made again from there goes on.
    """

    def __init__(
        self,
        variant: str,
        images: PretrainingImages,
        params: PretrainParams,
        folder: Path,
        energy: EnergyMeter,
    ) -> None:
        self.variant, self.params, self.folder = variant, params, folder
        self.training = create_run(images, params, energy=energy)
        self.rows: list[Row] = []
        self.diverged = False
        self.checkpoint = Checkpoint(folder)
        if state := self.checkpoint.load():
            self.training.load_state(state["training"])
            self.rows = [Row.model_validate(row) for row in state["rows"]]
        self.saved = self.training.step
        self.batches = images.batches(params)
        if not self.finished:
            warm_up(self.training, self.batches)

    @cached_property
    def loader(self) -> Iterator[Pair]:
        """The batches; to start their processes, with the first slice, takes no time of it."""
        batches = self.training.loader(self.batches)
        return chain([next(batches)], batches)

    @property
    def finished(self) -> bool:
        """Whether there is no slice left to take."""
        return self.diverged or self.training.finished

    @property
    def due(self) -> bool:
        """Whether it is time to save what is not finished."""
        taken = self.training.step - self.saved
        return not self.finished and taken >= self.params.checkpoint_every

    def take_slice(self) -> None:
        """Train up to the next validation, and validate."""
        stop = self.training.next_multiple(self.params.validate_every)
        try:
            self._train(stop)
        except DivergedError:
            self.diverged = True
        if not self.diverged:
            self.training.log()
            self._add_row()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Write the checkpoint, or the measurement of a run that diverged; kept when the block succeeds."""
        with self._ending() if self.diverged else self.checkpoint.saving(self._state()):
            yield
        self.saved = self.training.step

    def measurement(self) -> Measurement:
        """Return what was measured so far."""
        return Measurement(
            variant=self.variant,
            seed=self.params.seed,
            learning_rate=self.params.learning_rate,
            rows=self.rows,
            diverged=self.diverged,
        )

    @contextmanager
    def finishing(self, encoder: bool) -> Iterator[None]:
        """Write the measurement, and the encoder if wanted; kept when the block succeeds."""
        if encoder and not self.diverged:
            model = self.training.fold()
            save_encoder(encoder_file(self.folder), model.encoder, self.training.spec)
        with self._ending():
            yield
        self.checkpoint.path.unlink(missing_ok=True)

    def _state(self) -> dict[str, Any]:
        rows = [row.model_dump() for row in self.rows]
        return {"training": self.training.state(), "rows": rows}

    @contextmanager
    def _ending(self) -> Iterator[None]:
        with atomic_path(measurement_file(self.folder)) as temporary:
            temporary.write_text(self.measurement().model_dump_json(), encoding="utf-8")
            yield

    def _train(self, stop: int) -> None:
        while self.training.step < stop:  # in pieces: a processor's counter wraps every few minutes
            self.training.advance(self.loader, min(stop, self.training.next_multiple(LOG_EVERY)))

    def _add_row(self) -> None:
        row = self.training.rows[-1]
        self.diverged = not math.isfinite(row["val_loss"])
        if not self.diverged:
            self.rows.append(
                Row(
                    step=int(row["step"]),
                    seconds=row["seconds"],
                    joules=self.training.joules,
                    waited=self._waited(row),
                    train_loss=row["train_loss"],
                    val_loss=row["val_loss"],
                )
            )

    def _waited(self, row: dict[str, float]) -> float:
        """Return the seconds spent waiting for batches, up to a row of the training's curves."""
        seconds, waited = (self.rows[-1].seconds, self.rows[-1].waited) if self.rows else (0, 0)
        return waited + row["data_wait_share"] * (row["seconds"] - seconds)


def save_together(contenders: Iterable[Contender]) -> None:
    """Save all, or none where one cannot be written: they are compared round by round."""
    with ExitStack() as stack:
        for contender in contenders:
            stack.enter_context(contender.saving())


def finish_together(contenders: Sequence[Contender], encoders: bool) -> list[Measurement]:
    """Finish all, or none where one cannot be written; return what was measured."""
    with ExitStack() as stack:
        for contender in contenders:
            stack.enter_context(contender.finishing(encoders))
    return [contender.measurement() for contender in contenders]


def warm_up(training: Pretraining, batches: Batches) -> None:
    """Take a few steps and a validation, and undo them.

    So compilation, allocation and the choice of kernels fall before the clock begins; weights,
    optimizer, R, clock, counted energy and random state are afterwards as they were.
    """
    before = deepcopy(training.state())
    steps = max(WARM_UP_STEPS, training.params.decorrelation.every)
    device = training.fabric.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        with suppress(DivergedError):  # it will again, with the clock running
            training.advance(repeat(batches[training.step]), training.step + steps)
        training.log()
    training.load_state(before)


def load_measurement(folder: Path) -> Measurement | None:
    """Return the measurement of a finished run, or None."""
    file = measurement_file(folder)
    return Measurement.model_validate_json(file.read_bytes()) if file.exists() else None


def measurement_file(folder: Path) -> Path:
    """Return where a finished run keeps its measurement."""
    return folder / "measurement.json"


def encoder_file(folder: Path) -> Path:
    """Return where a finished run keeps its encoder."""
    return folder / "encoder.safetensors"
