"""One contender: untouched where it is plain, warmed up without a trace, its clock and counters."""

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from small_plan import settings
from torch.nn.utils import parametrize

from dbp_mae.comparison import contender as contender_module
from dbp_mae.comparison.contender import (
    Contender,
    finish_together,
    save_together,
    warm_up,
)
from dbp_mae.data.crops import Batch
from dbp_mae.energy import EnergyMeter
from dbp_mae.params import Params
from dbp_mae.pretraining.images import PretrainingImages
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder
from dbp_mae.pretraining.run import Pretraining, create_run

QUIET = EnergyMeter([])


def test_the_baseline_is_untouched(
    params: Params, images: PretrainingImages, tmp_path: Path
) -> None:
    training = Contender("plain", images, settings(params, "plain"), tmp_path, QUIET).training
    untouched = MaskedAutoencoder(training.spec, training.params)
    assert list(training.plain_model.state_dict()) == list(untouched.state_dict())
    for module in training.plain_model.modules():
        assert not parametrize.is_parametrized(module)
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
        assert not module._backward_hooks
    decorrelated = create_run(images, settings(params, "preserving")).plain_model
    assert any(parametrize.is_parametrized(module) for module in decorrelated.modules())


@pytest.mark.parametrize(
    ("variant", "optimizer"), [("plain", "adamw"), ("plain", "soap"), ("preserving", "muon")]
)
def test_the_warm_up_leaves_no_trace(
    variant: str, optimizer: str, params: Params, images: PretrainingImages
) -> None:
    chosen = settings(params, variant).model_copy(update={"optimizer": optimizer})
    cold, warm = (create_run(images, chosen) for _ in range(2))
    state = torch.random.get_rng_state()
    before = (warm.step, warm.seconds, warm.joules, warm.waited, list(warm.rows))
    warm_up(warm, images.batches(chosen))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (warm.step, warm.seconds, warm.joules, warm.waited, warm.rows) == before
    for training in (cold, warm):
        training.advance(training.loader(images.batches(chosen)), 4)
        training.log()
    assert cold.rows[0]["val_loss"] == warm.rows[0]["val_loss"]
    assert cold.rows[0]["train_loss"] == warm.rows[0]["train_loss"]
    for name, weight in cold.plain_model.state_dict().items():
        assert torch.equal(weight, warm.plain_model.state_dict()[name]), name


def test_every_contender_is_warmed_up(
    params: Params, images: PretrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(contender_module, "warm_up", lambda training, _: seen.append(training))
    made = Contender("plain", images, settings(params, "plain"), tmp_path, QUIET)
    assert seen == [made.training]


@pytest.mark.parametrize(("variant", "whitens"), [("plain", False), ("preserving", True)])
def test_energy_is_of_the_training_and_the_whitening_of_patches_alone(
    variant: str,
    whitens: bool,
    params: Params,
    images: PretrainingImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OneWatt:
        """A counter of a machine that draws one watt: its joules are seconds."""

        part = "cpu"

        def __init__(self) -> None:
            self.last = time.perf_counter()

        def since_last(self) -> float:
            last, self.last = self.last, time.perf_counter()
            return self.last - last

    validating = []
    validate = Pretraining.validate

    def watched(training: Pretraining) -> dict[str, float]:
        start = time.perf_counter()
        columns = validate(training)
        validating.append(time.perf_counter() - start)
        return columns

    monkeypatch.setattr(Pretraining, "validate", watched)
    made = Contender(variant, images, settings(params, variant), tmp_path, EnergyMeter([OneWatt()]))
    training, whitening = made.training, made.training.joules
    assert whitening is not None
    assert training.seconds <= whitening
    assert (whitening > 0) == whitens
    validating.clear()
    start = time.perf_counter()
    while not made.finished:
        made.take_slice()
    elapsed = time.perf_counter() - start
    assert training.joules is not None
    assert training.seconds <= training.joules <= whitening + elapsed - sum(validating)
    assert len(validating) == 3


@pytest.mark.parametrize(
    ("together", "step"),
    [(save_together, 4), (partial(finish_together, encoders=False), 6)],
    ids=["save", "finish"],
)
def test_all_are_kept_or_none(
    together: Callable[[list[Contender]], object],
    step: int,
    params: Params,
    images: PretrainingImages,
    tmp_path: Path,
) -> None:
    first, second = pair = [
        Contender(name, images, settings(params, name), tmp_path / name, QUIET)
        for name in ("plain", "twin")
    ]
    for each in pair:
        each.take_slice()
    save_together(pair)
    before = files_of(first.folder)
    assert list(before) == ["last.pt"]
    while first.training.step < step:
        for each in pair:
            each.take_slice()

    shutil.rmtree(second.folder)
    second.folder.touch()
    with pytest.raises(FileExistsError):
        together(pair)
    assert files_of(first.folder) == before

    second.folder.unlink()
    together(pair)
    assert files_of(first.folder) != before
    assert list(files_of(first.folder)) == list(files_of(second.folder))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_waiting_for_batches_adds_up_over_the_rows(
    params: Params, images: PretrainingImages, tmp_path: Path
) -> None:
    made = Contender("plain", images, settings(params, "plain"), tmp_path, QUIET)
    batches, loading = made.loader, []

    def timed() -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            batch = next(batches)
            loading.append(time.perf_counter() - start)
            yield batch

    made.loader = timed()
    while not made.finished:
        made.take_slice()
    last = made.rows[-1]
    assert len(made.rows) > 1
    assert sum(loading) <= last.waited <= last.seconds
