"""What decorrelation costs a training step: `python -m benchmarks.step_overhead --models nano small`.

The untouched model and the variants take turns in one run, so that a noisy machine slows all alike;
the figure is the median of the ratios of neighbouring steps.
"""

import argparse
import time
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.results_file import environment, write_results
from dbp_mae.encoder import EncoderSpec
from dbp_mae.params import DecorrelationParams, PretrainParams, load_params
from dbp_mae.precision import resolve
from dbp_mae.pretraining.decorrelation import Decorrelator
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder
from dbp_mae.pretraining.optimizers import create_optimizers

VARIANTS: dict[str, dict[str, object]] = {
    "untouched": {"update": "none"},
    "paper": {"update": "paper"},
    "function-preserving": {"update": "function-preserving"},
    "function-preserving, every 4": {"update": "function-preserving", "every": 4},
}
IMAGE, PATCH = 224, 16


class Stepper:
    """One variant, ready to take steps."""

    def __init__(self, params: PretrainParams, device: torch.device) -> None:
        torch.manual_seed(0)
        spec = EncoderSpec(params.model, PATCH, IMAGE, 3, (0.5,) * 3, (0.2,) * 3)
        self.params = params
        self.model = MaskedAutoencoder(spec, params).to(device)
        self.decorrelator = None
        if params.decorrelation.update != "none":
            self.decorrelator = Decorrelator(self.model.encoder, params.decorrelation, seed=0)
            self.model.to(device)
        self.optimizers = create_optimizers(self.model, params)
        self.autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=resolve(params.precision) == "bf16-mixed"
        )

    def seconds(self, batch: tuple[Tensor, Tensor]) -> float:
        """Take a step and return how long it took."""
        _synchronize()
        start = time.perf_counter()
        with self.autocast, self._sampling(len(batch[0])):
            loss = self.model(*batch)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.decorrelator:
            self.decorrelator.step()
        _synchronize()
        return time.perf_counter() - start

    def _sampling(self, images: int) -> AbstractContextManager[None]:
        if self.decorrelator is None:
            return nullcontext()
        return self.decorrelator.sampling(images * (1 + self.params.visible))


def measure(model: str, batch: int, steps: int, warmup: int) -> list[dict[str, object]]:
    """Return a row a variant: median seconds a step and the ratio to the untouched model."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    params = load_params().pretrain.model_copy(
        update={"model": model, "patch": PATCH, "crop": IMAGE, "batch": batch}
    )
    steppers = {
        name: Stepper(
            params.model_copy(update={"decorrelation": _settings(params, changes)}), device
        )
        for name, changes in VARIANTS.items()
    }
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 3, IMAGE, IMAGE), generator=generator, dtype=torch.uint8)
    noise = torch.rand(batch, (IMAGE // PATCH) ** 2, generator=generator)
    data = (pixels.to(device), noise.to(device))
    times = np.array(
        [[stepper.seconds(data) for stepper in steppers.values()] for _ in range(warmup + steps)]
    )[warmup:]
    ratios = times / times[:, :1]
    return [
        {
            "model": model,
            "batch": batch,
            "variant": name,
            "seconds": float(np.median(times[:, column])),
            "ratio": float(np.median(ratios[:, column])),
        }
        for column, name in enumerate(steppers)
    ]


def _settings(params: PretrainParams, changes: dict[str, object]) -> DecorrelationParams:
    return params.decorrelation.model_copy(update=changes)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Measure, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["small", "base"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    arguments = parser.parse_args()
    rows = [
        row
        for model in arguments.models
        for row in measure(model, arguments.batch, arguments.steps, arguments.warmup)
    ]
    print(" ".join(f"{name} {value}" for name, value in environment().items()))
    print(pd.DataFrame(rows).round(4).to_string(index=False))
    headline = {
        f"{row['model']}, {row['variant']}": round(float(str(row["ratio"])), 3)
        for row in rows
        if row["variant"] != "untouched"
    }
    print(write_results("step_overhead", headline, rows))


if __name__ == "__main__":
    main()
