"""One step is one step: cut into micro-batches, shared by processes, compiled, or stopped in time."""

import os
import signal
from functools import partial, partialmethod
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from tiny import start, step, tiny_params, train
from torch import Tensor, nn
from watched_checkpoint import WatchedCheckpoint

from dbp_mae.data.batches import Pair
from dbp_mae.errors import UserError
from dbp_mae.params import PretrainParams
from dbp_mae.pretraining.train import _launch
from dbp_mae.training import loop
from dbp_mae.training.checkpoint import Checkpoint, not_finite
from dbp_mae.training.interruption import Interrupted
from dbp_mae.training.loop import DivergedError

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = {"steps": 5, "warmup_steps": 1, "validate_every": 3}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        pair = [value, second[name]]
        if name.endswith("qkv.bias"):
            # Softmax does not feel the keys' bias: its gradient is rounding, which Adam makes large.
            pair = [torch.cat([q, v]) for q, _, v in (bias.chunk(3) for bias in pair)]
        torch.testing.assert_close(
            *pair, atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def only_r(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if is_r(name)}


def is_r(name: str) -> bool:
    return name.endswith("decorrelator")


@pytest.mark.parametrize("update", ["paper", "function-preserving"])
def test_micro_batches_make_one_step(update: str) -> None:
    states, losses = [], []
    for accumulate in (1, 4):
        params = tiny_params(update=update, sample=1.0, accumulate=accumulate, **SHORT)
        training, batches = start(params)
        for group in training.optimizers[0].param_groups:
            # Else Adam makes steps of rounding where a gradient is next to nothing.
            group["eps"] = 1e-4
        losses.append([step(training, batches) for _ in range(params.steps)])
        states.append(training.plain_model.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert_same(*states)


def test_a_batch_may_be_smaller_than_the_settings_say() -> None:
    training, batches = start(tiny_params(sample=0.5))
    pixels, noise = batches[0]
    assert torch.isfinite(training.optimize((pixels[:4], noise[:4])))


def two_processes() -> Fabric:
    strategy = DDPStrategy(start_method="spawn", broadcast_buffers=False)
    return Fabric(accelerator="cpu", devices=2, strategy=strategy)


def train_shares(fabric: Fabric, runs: list[PretrainParams], folder: Path) -> None:
    for index, params in enumerate(runs):
        train(params, folder / str(index), fabric)


def test_two_processes_make_one_step(tmp_path: Path) -> None:
    whole = tiny_params(sample=1.0, **SHORT)
    sampled = tiny_params(sample=0.5, every=2, optimizer="muon", **SHORT)
    two_processes().launch(partial(train_shares, runs=[whole, sampled], folder=tmp_path))
    for index, params in enumerate([whole, sampled]):
        state = Checkpoint(tmp_path / str(index)).load()
        assert state is not None
        shared = state["learnt"]["model"]
        # Two micro-batches are summed in the order of two processes; one joint batch is not, so that
        # Adam's weights differ by the steps it makes of rounding.
        halves = params.model_copy(update={"accumulate": 2})
        assert_same(train(halves, tmp_path / f"halves-{index}"), shared)
        if params is whole:
            assert_same(only_r(train(whole, tmp_path / "joint")), only_r(shared))


def test_a_training_keeps_the_memory_that_it_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Itself, for what makes its Fabric may be another process."""
    kept = []
    monkeypatch.setattr(loop, "keep_freed_memory", lambda: kept.append(True))
    start(tiny_params())
    assert kept == [True]


def test_compiled_training_is_as_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = partialmethod(nn.Module.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(nn.Module, "compile", traced)
    states = []
    for compiled in (False, True):
        training, batches = start(tiny_params(compile=compiled, every=2, **SHORT))
        for _ in range(4):
            step(training, batches)
            with torch.no_grad():
                training.validate()
        states.append(training.plain_model.state_dict())
    assert_same(*states)


def test_decoder_and_heads_are_left_alone() -> None:
    training, batches = start(tiny_params(**SHORT))
    step(training, batches)
    names = {
        name.rpartition(".parametrizations")[0] for name in training.learnt()["model"] if is_r(name)
    }
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = {f"encoder.blocks.{block}.{layer}" for block in range(4) for layer in layers}
    assert names == blocks | {"encoder.patch_embed.proj"}


def test_a_diverging_r_is_named_and_the_last_good_state_kept(tmp_path: Path) -> None:
    calm = tiny_params(update="paper", eps=0.02, checkpoint_every=4)
    training, batches = start(calm)

    def worsen() -> None:
        assert training.decorrelator
        weight = training.decorrelator.layers["blocks.3.attn.proj"].parametrizations["weight"]
        weight[0].decorrelator *= 3e5

    message = r"R of blocks\.3\.attn\.proj is no longer finite since step 6: .*eps of pretrain\.decorrelation"
    with pytest.raises(DivergedError, match=message):
        training.run(batches, WatchedCheckpoint(tmp_path, worsen))
    assert_is_good(Checkpoint(tmp_path), step=4)
    train(calm, tmp_path)


def test_a_loss_that_is_not_finite_leaves_the_last_good_state(tmp_path: Path) -> None:
    training, batches = start(tiny_params(update="none", checkpoint_every=4))

    def worsen() -> None:
        training.plain_model.register_forward_hook(lambda _, inputs, loss: loss * torch.nan)

    with pytest.raises(DivergedError, match=r"the loss is no longer finite since step 5: lower"):
        training.run(batches, WatchedCheckpoint(tmp_path, worsen))
    assert_is_good(Checkpoint(tmp_path), step=4)


def assert_is_good(checkpoint: Checkpoint, step: int) -> None:
    state = checkpoint.load()
    assert state is not None
    assert state["step"] == step
    assert not list(not_finite(state))


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_step_too_large_for_the_gpu_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    training, batches = start(tiny_params(**SHORT))

    monkeypatch.setattr(training.optimizers[-1], "step", out_of_memory)
    with pytest.raises(UserError, match=r"a step needs .* raise pretrain\.accumulate"):
        training.advance(iter([batches[0]]), stop=1)


def run_out_of_memory_on_one_device(fabric: Fabric, folder: Path) -> None:
    training, batches = start(tiny_params(**SHORT), fabric)
    if fabric.global_rank == 1:
        training.optimizers[-1].step = out_of_memory
    training.run(batches, Checkpoint(folder))


def test_a_step_too_large_for_one_of_two_gpus_is_one_sentence(tmp_path: Path) -> None:
    message = r"\AIn pretrain, a step needs .* raise pretrain\.accumulate.*\.\Z"
    with pytest.raises(UserError, match=message):
        _launch(two_processes(), partial(run_out_of_memory_on_one_device, folder=tmp_path))


def stop_the_parent(fabric: Fabric) -> None:
    if fabric.global_rank == 0:
        os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()


def test_processes_that_are_stopped_before_they_train_leave_no_trace(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Interrupted, match="pretrain was stopped: the same command goes on"):
        _launch(two_processes(), stop_the_parent)
    assert "Traceback" not in capfd.readouterr().err


def test_a_loader_that_is_ended_is_one_sentence() -> None:
    training, _ = start(tiny_params(workers=1))
    loader = map(loader_error, range(1))
    with pytest.raises(
        UserError, match=r"In pretrain, one of 1 processes .* lower pretrain\.workers"
    ):
        training.advance(loader, stop=1)


def loader_error(index: int) -> Pair:
    """Raise what PyTorch does where a loader's process is gone."""
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def end_one_process(fabric: Fabric) -> None:
    if fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    fabric.barrier()


def test_a_device_whose_process_is_ended_is_one_sentence() -> None:
    with pytest.raises(
        UserError, match=r"process of a device was ended, .*lower pretrain\.workers"
    ):
        _launch(two_processes(), end_one_process)


@pytest.mark.parametrize(
    "order", [("bf16-mixed", "32-true"), ("32-true", "bf16-mixed")], ids=" then ".join
)
def test_a_training_in_float32_rounds_no_factor_after_a_mixed_one(order: tuple[str, str]) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for precision in order:
            start(tiny_params(precision=precision))
            rounds = torch.get_float32_matmul_precision() != "highest"
            assert rounds == (precision == "bf16-mixed")
    finally:
        torch.set_float32_matmul_precision(before)


def test_validation_passes_are_as_large_as_those_of_a_step_and_give_the_same_loss() -> None:
    whole, _ = start(tiny_params(**SHORT, batch=300))
    parts, _ = start(tiny_params(**SHORT, batch=300, accumulate=3))
    sizes: list[int] = []
    parts.plain_model.register_forward_pre_hook(lambda _, crops: sizes.append(len(crops[0])))
    with torch.no_grad():
        losses = whole.validate()["val_loss"], parts.validate()["val_loss"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert sizes == [100, 100, len(parts.validation[0]) - 200]


def test_a_validation_too_large_for_the_gpu_says_what_to_lower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, batches = start(tiny_params(**SHORT))
    step(training, batches)
    monkeypatch.setattr(training.plain_model, "forward_encoder", out_of_memory)
    with pytest.raises(UserError, match=r"the validation needs .* raise pretrain\.accumulate"):
        training.log()


def test_a_check_of_eps_too_large_for_the_gpu_says_what_to_lower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, batches = start(tiny_params(update="paper"))
    monkeypatch.setattr(training.plain_model, "forward_encoder", out_of_memory)
    with pytest.raises(UserError, match=r"the check .* raise pretrain\.accumulate"):
        training.check_eps(batches[0])


def test_what_goes_on_has_the_optimizer_of_before_and_the_decay_of_now() -> None:
    before, _ = start(tiny_params(optimizer="muon", weight_decay=0.05))
    after, _ = start(tiny_params(optimizer="muon", weight_decay=0.2))
    after.load_state(before.state())
    other, _ = start(tiny_params(optimizer="soap"))
    with pytest.raises(UserError, match="another network or optimizer"):
        other.load_state(before.state())
    groups = [group for optimizer in after.optimizers for group in optimizer.param_groups]
    assert [group["weight_decay"] for group in groups] == [0.2, 0.2, 0.0]


def test_a_state_that_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    training, batches = start(tiny_params(checkpoint_every=2))
    step(training, batches)
    moments = next(iter(training.optimizers[0].state.values()))["exp_avg"]
    moments.fill_(torch.inf)  # the loss of step 2 is finite, the weights after it are not
    with pytest.raises(DivergedError, match=r"model\.\S+ is no longer finite since step 2: lower"):
        training.run(batches, Checkpoint(tmp_path))
    assert Checkpoint(tmp_path).load() is None
