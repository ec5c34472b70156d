"""What both trainings share: the loop of steps, its clock and curves, and its resume."""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from tqdm import tqdm

from dbp_mae.data.batches import Batches, Pair, load, loader_was_ended
from dbp_mae.energy import EnergyMeter
from dbp_mae.errors import UserError, one_line
from dbp_mae.params import Precision
from dbp_mae.training.checkpoint import Checkpoint, not_finite
from dbp_mae.training.interruption import Interrupted, held_back
from dbp_mae.training.memory import keep_freed_memory
from dbp_mae.training.precision import resolve
from dbp_mae.training.schedule import warmup_cosine

LOG_EVERY = 10
"""Steps between two looks at the loss; each look waits for the device."""
CLIP_NORM = 1.0


class DivergedError(UserError):
    """A training whose loss, or something that it learnt, is no longer finite."""


class LoopParams(Protocol):
    """The parameters that every training has."""

    learning_rate: float
    steps: int
    warmup_steps: int
    batch: int
    validate_every: int
    checkpoint_every: int
    precision: Precision
    workers: int
    seed: int


def create_fabric(params: LoopParams, devices: int = 1) -> Fabric:
    """Return Fabric on the best device, with the parameters' precision, all seeds set.

    With more than one device, `launch` runs a function on each, in processes of their own. Buffers
    are not copied from the first to the others: what is in them differs before it is reduced.

    Raises:
        UserError: the machine has fewer devices.
    """
    ddp = DDPStrategy(start_method="spawn", broadcast_buffers=False)
    try:
        fabric = Fabric(
            accelerator="auto",
            devices=devices,
            strategy=ddp if devices > 1 else "auto",
            precision=resolve(params.precision),
        )
    except MisconfigurationException as error:
        raise UserError(f"This machine cannot give {devices} devices: {one_line(error)}") from None
    fabric.seed_everything(params.seed, verbose=False)
    return fabric


class Training(ABC):
    """A training: all that changes from step to step.

    The clock, `seconds`, stands still during validation and checkpoints; so does `joules`, what the
    counters of `energy` tell, None without any.
    """

    name: str
    advice: str
    """What to do when something is no longer finite."""
    economy: str
    """What to do when something needs more memory than the GPU has."""

    def __init__(
        self, fabric: Fabric, params: LoopParams, energy: EnergyMeter | None = None
    ) -> None:
        keep_freed_memory()  # here, where every process comes by
        # What autocast leaves in float32, the decorrelation's update, may round its factors to TF32.
        mixed = resolve(params.precision) == "bf16-mixed"
        torch.set_float32_matmul_precision("high" if mixed else "highest")
        self.fabric = fabric
        self.params = params
        self.energy = energy or EnergyMeter()
        self.step = 0
        self.seconds = 0.0
        self.joules: float | None = 0.0
        self.waited = 0.0
        self.losses: list[Tensor] = []
        self.rows: list[dict[str, float]] = []

    @abstractmethod
    def optimize(self, batch: Pair) -> Tensor:
        """Take an optimization step; return the loss, still on the device."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Return the validation's columns of the curves."""

    def broken(self) -> dict[str, int]:
        """Return what beside the loss is no longer finite, and the step since which (may sync)."""
        return {}

    @abstractmethod
    def learnt(self) -> dict[str, Any]:
        """Return what optimization has changed, for a bit-identical resume."""

    @abstractmethod
    def load_learnt(self, state: dict[str, Any]) -> None:
        """Go on from what `learnt` returned."""

    def run(self, batches: Batches, checkpoint: Checkpoint) -> None:
        """Take the remaining steps; item `step` of `batches` is the batch of that step.

        Raises:
            DivergedError: the last state in `checkpoint` is a finite one from before.
            Interrupted: by SIGINT or SIGTERM; the state of the last step is in `checkpoint`.
        """
        if state := checkpoint.load():
            self.load_state(state)
        params = self.params
        pauses = (LOG_EVERY, params.validate_every, params.checkpoint_every)
        loader = self.loader(batches)
        interrupted = False
        with self._progress() as progress, held_back(signal.SIGINT, signal.SIGTERM) as asked:
            while not (self.finished or interrupted):
                self.advance(loader, self.next_multiple(*pauses), asked)
                figures = self._figures()
                if self.finished or self.step % params.validate_every == 0:
                    self.log()
                interrupted = self._agree(asked())
                if interrupted or self.finished or self.step % params.checkpoint_every == 0:
                    self._save(checkpoint)
                progress.set_postfix(figures, refresh=False)  # with the next update that shows
                progress.update(self.step - progress.n)
            if self._agree(interrupted or asked()):
                raise Interrupted(
                    f"{self.name} was stopped after step {self.step} of {params.steps}: the same "
                    "command goes on from there."
                )

    def advance(
        self, loader: Iterator[Pair], stop: int, asked: Callable[[], bool] = lambda: False
    ) -> None:
        """Take the steps up to `stop`, counted, until the device has done them.

        Fewer, where `asked` says so and no other process has to take the same ones.

        Raises:
            DivergedError: the loss or something learnt is no longer finite.
            UserError: the GPU's memory is too small, or a process that loads batches was ended.
        """
        with self.counted(), self._with_loaders():
            while self.step < stop:
                start = time.perf_counter()
                batch = next(loader)
                self.waited += time.perf_counter() - start
                self._train_step(batch)
                if self.fabric.world_size == 1 and asked():
                    stop = self.step
                if self.step == stop or self.step % LOG_EVERY == 0:
                    self._check_finite()  # waits for the device, whose work would not count else

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time and the energy of this block as the training's, however it ends."""
        self.energy.since_last()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            joules = self.energy.since_last()
            self.joules = None if joules is None or self.joules is None else self.joules + joules

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step == self.params.steps

    def next_multiple(self, *periods: int) -> int:
        """Return the next step that is a multiple of one of `periods`, or the last step."""
        return min(self.params.steps, *(self.step - self.step % n + n for n in periods))

    @property
    def schedule(self) -> float:
        """The factor on the learning rate at the present step."""
        return warmup_cosine(self.step, self.params.steps, self.params.warmup_steps)

    def loader(self, batches: Batches) -> Iterator[Pair]:
        """Return the batches of the remaining steps, loaded by `workers` processes."""
        return load(batches, range(self.step, self.params.steps), self.params.workers)

    def _progress(self) -> tqdm:
        return tqdm(
            total=self.params.steps,
            initial=self.step,
            desc=self.name,
            unit="step",
            disable=not self.fabric.is_global_zero,
        )

    def _agree(self, asked: bool) -> bool:
        """Return whether any process was asked to stop."""
        flag = torch.tensor(float(asked), device=self.fabric.device)
        return bool(self.fabric.all_reduce(flag, reduce_op="sum"))

    @contextmanager
    def within_memory(self, work: str) -> Iterator[None]:
        """Say what to change where `work` needs more memory than the GPU has.

        Raises:
            UserError: it does.
        """
        try:
            yield
        except torch.OutOfMemoryError:
            raise UserError(
                f"In {self.name}, {work} needs more memory than the GPU has: {self.economy}."
            ) from None

    @contextmanager
    def _with_loaders(self) -> Iterator[None]:
        """Say what to change where a process that loads batches is ended, which is told at any time.

        Raises:
            UserError: one was.
        """
        try:
            yield
        except (RuntimeError, ConnectionError, EOFError) as error:
            if not (self.params.workers and loader_was_ended(error)):
                raise
            raise UserError(
                f"In {self.name}, one of {self.params.workers} processes that load images was ended, most "
                f"likely for want of memory: free some, or lower {self.name}.workers. The same command "
                "goes on from the last state."
            ) from None

    def _train_step(self, batch: Pair) -> None:
        with self.within_memory("a step"):
            loss = self.optimize(self.fabric.to_device(batch))
        self.losses.append(loss.detach())
        self.step += 1

    def _check_finite(self) -> None:
        """Stop where the loss or anything else broke since the last look, naming what broke first."""
        finite = torch.stack(self.losses[-LOG_EVERY:]).isfinite().tolist()
        broken = self.broken()
        if not all(finite):
            broken["the loss"] = self.step - len(finite) + 1 + finite.index(False)
        if broken:
            first = min(broken.values())
            self._stop(first, [name for name, step in broken.items() if step == first])

    def _stop(self, step: int, names: list[str]) -> None:
        verb = "is" if len(names) == 1 else "are"
        raise DivergedError(
            f"In {self.name}, {' and '.join(names)} {verb} no longer finite since step {step}: "
            f"{self.advice}."
        )

    @torch.no_grad()
    def log(self) -> None:
        """Validate and add a row to the curves.

        Raises:
            UserError: the GPU's memory is too small.
        """
        with self.within_memory("the validation"), self._with_loaders():
            columns = self.validate()
        scale = warmup_cosine(self.step - 1, self.params.steps, self.params.warmup_steps)
        row = {
            "step": self.step,
            "seconds": self.seconds,
            "train_loss": float(torch.stack(self.losses).mean()),
            "learning_rate": self.params.learning_rate * scale,
            **self._pace(),
            **columns,
        }
        self.rows.append(row)
        self.losses.clear()
        self.waited = 0.0

    def _pace(self) -> dict[str, float]:
        """Return images a second, and the share of time waiting for data, since the last row."""
        since = self.rows[-1] if self.rows else {"step": 0, "seconds": 0.0}
        seconds = self.seconds - since["seconds"]
        images = (self.step - since["step"]) * self.params.batch
        return {"images_per_second": images / seconds, "data_wait_share": self.waited / seconds}

    def _figures(self) -> dict[str, str]:
        """Return the figures of the progress bar."""
        pace = self._pace()
        return {
            "loss": f"{float(self.losses[-1]):.3f}",
            "images/s": f"{pace['images_per_second']:.0f}",
            "waiting": f"{pace['data_wait_share']:.0%}",
        }

    def _save(self, checkpoint: Checkpoint) -> None:
        """Replace the last state, unless the present one is not finite."""
        state = self.state()
        if name := next(not_finite(state["learnt"]), None):
            self._stop(self.step, [name])
        if self.fabric.is_global_zero:
            checkpoint.save(state)

    def state(self) -> dict[str, Any]:
        """Return all that a bit-identical resume needs."""
        return {
            "learnt": self.learnt(),
            "step": self.step,
            "seconds": self.seconds,
            "joules": self.joules,
            "waited": self.waited,
            "losses": [float(loss) for loss in self.losses],
            "rows": self.rows,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.step, self.seconds, self.waited = state["step"], state["seconds"], state["waited"]
        self.joules = state.get("joules")  # states of earlier versions lack it
        self.losses = [torch.tensor(loss, device=self.fabric.device) for loss in state["losses"]]
        self.rows = state["rows"]
        try:
            self.load_learnt(state["learnt"])
        except (KeyError, RuntimeError, ValueError) as error:
            reason = one_line(error)[:200]
            raise UserError(
                f"The state to go on from is of a {self.name} with another network or optimizer: put "
                f"those settings back, or remove the state ({reason})."
            ) from None


def clip_gradients(parameters: Iterable[Tensor]) -> None:
    """Bound the norm of all gradients together, in place."""
    torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
