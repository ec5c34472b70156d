"""Pre-training by masked autoencoding of crops, with or without decorrelation, on one device or several."""

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from lightning.fabric import Fabric
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from dbp_mae.data.crops import Batch
from dbp_mae.encoder import EncoderSpec
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams, DecorrelationParams, PretrainParams
from dbp_mae.pretraining.images import PretrainingImages, fixed_crops
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder
from dbp_mae.pretraining.run import Pretraining, create_run
from dbp_mae.training.checkpoint import Checkpoint
from dbp_mae.training.interruption import Interrupted, held_back
from dbp_mae.training.loop import DivergedError, create_fabric


@dataclass(frozen=True)
class Pretrained:
    """What a pre-training gives."""

    model: MaskedAutoencoder
    """R folded in, its weights averaged, on the CPU."""
    spec: EncoderSpec
    curves: pd.DataFrame
    """step, seconds (of training alone), train_loss, learning_rate, images_per_second,
    data_wait_share, val_loss, correlation."""
    constant_loss: float
    """The validation loss of predicting each patch's mean: what a network that learnt nothing scores."""
    validation: Batch


def pretrain(
    frame: pd.DataFrame,
    data: DataParams,
    params: PretrainParams,
    checkpoint: Checkpoint,
) -> Pretrained:
    """Pre-train on the images of `frame` (a validated manifest), split train; validate on split val.

    A run that was killed goes on from `checkpoint` and ends bit-identical to one that was not.

    Raises:
        UserError: a split is empty, a setting is out of range, or (DivergedError) the training diverges.
        Interrupted: by SIGINT or SIGTERM.
    """
    images = PretrainingImages.of(frame, data, params.devices)
    if params.devices > 1:
        train = partial(_train_in_process, images=images, params=params, checkpoint=checkpoint)
        _launch(create_fabric(params, params.devices), train)
    # After a launch this finds the state of the last step in `checkpoint`, and no step left to take.
    run = _train(create_fabric(params), images, params, checkpoint)
    constant_loss = run.constant_loss()
    validation = fixed_crops(images.validation, params)
    return Pretrained(run.fold(), run.spec, pd.DataFrame(run.rows), constant_loss, validation)


def _train(
    fabric: Fabric,
    images: PretrainingImages,
    params: PretrainParams,
    checkpoint: Checkpoint,
) -> Pretraining:
    """Return the finished training."""
    run = create_run(images, params, fabric)
    batches = images.batches(params, fabric.global_rank, fabric.world_size)
    if not checkpoint.path.exists():
        run.check_eps(batches[0])
    run.run(batches, checkpoint)
    return run


def _launch(fabric: Fabric, train: Callable[[Fabric], UserError | None]) -> None:
    """Train in a process for each device; raise here what one of them met.

    Raises:
        UserError: one met it.
        Interrupted: by SIGINT or SIGTERM.
    """
    with held_back(signal.SIGINT, signal.SIGTERM) as asked:  # the processes say what came of it
        try:
            error = fabric.launch(train)
        except (ProcessRaisedException, ProcessExitedException) as failure:
            if said := re.search(r"^dbp_mae\.\S+: (.+)$", str(failure), re.MULTILINE):
                raise UserError(said[1]) from None
            if asked():  # before they could hold it back
                raise Interrupted(
                    f"{Pretraining.name} was stopped: the same command goes on from its last state, or "
                    "from its beginning."
                ) from None
            if isinstance(failure, ProcessExitedException) and failure.signal_name == "SIGKILL":
                raise UserError(
                    f"In {Pretraining.name}, the process of a device was ended, most likely for want of "
                    "memory: free some, or lower pretrain.workers. The same command goes on from the "
                    "last state."
                ) from None
            raise
    if error:
        raise error


def _train_in_process(
    fabric: Fabric, images: PretrainingImages, params: PretrainParams, checkpoint: Checkpoint
) -> UserError | None:
    """Train in one of several processes; return what all of them meet, for raised it loses its type.

    What one process meets alone it raises: that ends the others, which would wait for it.
    """
    try:
        _train(fabric, images, params, checkpoint)
    except (DivergedError, Interrupted) as error:
        return error
    return None


def summarize(result: Pretrained, params: PretrainParams, images: int) -> dict[str, Any]:
    """Return the figures of a pre-training that stand in the report."""
    last = result.curves.iloc[-1]
    return {
        "val_loss": float(last["val_loss"]),
        "constant_loss": result.constant_loss,
        "seconds": float(last["seconds"]),
        "steps": int(last["step"]),
        "parameters": sum(weight.numel() for weight in result.model.encoder.parameters()),
        "images": images,
        "model": params.model,
        "optimizer": params.optimizer,
        "decorrelation": _describe(params.decorrelation),
        "averaging": params.averaging,
    }


def _describe(params: DecorrelationParams) -> str:
    layers = "" if params.update == "none" else f" ({', '.join(params.layers)})"
    return f"{params.update}{layers}"
