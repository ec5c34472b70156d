"""Our MAE training step against transformers' ViTMAEForPreTraining: `python -m benchmarks.mae_step`.

The same configuration, weights, optimizer, precision, crops and masks, which give the same loss; all
take turns in one run. Theirs gets crops that are normalised already; ours normalises them.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.command import create_parser, report, run
from benchmarks.training_step import (
    CYCLE,
    add_arguments,
    pretraining,
    random_batch,
    step_params,
    stepper,
    with_update,
)
from benchmarks.turns import add_rounds, ratios, take_turns
from dbp_mae.data.crops import Batch
from dbp_mae.errors import UserError
from dbp_mae.params import PretrainParams
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder
from dbp_mae.pretraining.optimizers import create_optimizers
from dbp_mae.training.loop import clip_gradients
from dbp_mae.training.precision import resolve

OURS, DECORRELATED = "ours", "ours, decorrelated"
THEIRS, WRITTEN_OUT = "transformers", "transformers, attention written out"
"""Theirs has PyTorch's fused attention by default, whose backward pass is slow on a CPU in bf16."""


def create_theirs(
    ours: MaskedAutoencoder, image_size: int, attention: str | None = None
) -> nn.Module:
    """Return transformers' model in our model's configuration, with our model's weights.

    `attention` is transformers' name of an implementation, None its default.

    Raises:
        UserError: transformers is not installed.
    """
    try:
        library: Any = import_module("transformers")
    except ImportError:
        raise UserError(
            "transformers is not installed: pip install -c constraints.txt -e '.[dev]'."
        ) from None
    encoder, first = ours.encoder, ours.decoder_blocks[0]
    block: Any = encoder.blocks[0]
    decoder_block: Any = first
    config = library.ViTMAEConfig(
        image_size=image_size,
        patch_size=ours.patch,
        num_channels=encoder.patch_embed.proj.in_channels,
        hidden_size=encoder.embed_dim,
        num_hidden_layers=len(encoder.blocks),
        num_attention_heads=block.attn.num_heads,
        intermediate_size=block.mlp.fc1.out_features,
        layer_norm_eps=block.norm1.eps,
        decoder_hidden_size=decoder_block.norm1.normalized_shape[0],
        decoder_num_hidden_layers=len(ours.decoder_blocks),
        decoder_num_attention_heads=decoder_block.attn.num_heads,
        decoder_intermediate_size=decoder_block.mlp.fc1.out_features,
        mask_ratio=ours.mask_ratio,
        norm_pix_loss=True,
        attn_implementation=attention,
    )
    theirs: nn.Module = library.ViTMAEForPreTraining(config)
    copy_weights(ours, theirs)
    return theirs


@torch.no_grad()
def copy_weights(ours: MaskedAutoencoder, theirs: Any) -> None:
    """Give their model our weights: linear layers and norms in the order of both, the rest by name."""
    encoder = ours.encoder
    linear = [layer for layer in theirs.modules() if isinstance(layer, nn.Linear)]
    for name in ("weight", "bias"):
        parts = chain.from_iterable(_split(path, getattr(m, name)) for path, m in _linear(ours))
        for layer, value in zip(linear, parts, strict=True):
            getattr(layer, name).copy_(value)
        for one, other in zip(_norms(theirs), _norms(ours), strict=True):
            getattr(one, name).copy_(getattr(other, name))
        projection = theirs.vit.embeddings.patch_embeddings.projection
        getattr(projection, name).copy_(getattr(encoder.patch_embed.proj, name))
    theirs.vit.embeddings.cls_token.copy_(encoder.cls_token)
    theirs.vit.embeddings.position_embeddings.copy_(encoder.pos_embed)
    theirs.decoder.mask_token.copy_(ours.mask_token)
    theirs.decoder.decoder_pos_embed.copy_(ours.decoder_positions)


def _linear(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Linear)]


def _norms(model: nn.Module) -> list[nn.LayerNorm]:
    return [m for m in model.modules() if isinstance(m, nn.LayerNorm)]


def _split(path: str, value: Tensor) -> tuple[Tensor, ...]:
    """Return queries, keys and values apart, as theirs are; other layers whole."""
    return value.chunk(3) if path.endswith("qkv") else (value,)


def trained_parameters(model: nn.Module) -> int:
    """Return the count of trained numbers; fixed positions are buffers in one model of the two."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


@torch.no_grad()
def check_same_function(ours: MaskedAutoencoder, theirs: nn.Module, batch: Batch) -> None:
    """Refuse to compare models that differ in size or, on the same weights and masks, in the loss."""
    sizes = trained_parameters(ours), trained_parameters(theirs)
    pixels, noise = (part[:4] for part in batch)
    losses = ours(pixels, noise), theirs(ours.normalize(pixels), noise=noise).loss
    if sizes[0] != sizes[1] or not torch.isclose(*losses, rtol=1e-3):
        raise UserError(
            f"The two models do not compute the same: {sizes[0]} and {sizes[1]} trained parameters, "
            f"losses {float(losses[0]):.6f} and {float(losses[1]):.6f}. Use another transformers."
        )


def their_stepper(
    params: PretrainParams, channels: int, attention: str | None = None
) -> Callable[[], object]:
    """Return a function that takes one training step of their model, as our loop takes it."""
    eager = params.model_copy(update={"compile": False})
    run = pretraining(with_update(eager, "none"), channels)
    batch = run.fabric.to_device(random_batch(params, channels))
    model = create_theirs(run.plain_model, params.crop, attention)
    model = model.to(run.fabric.device).train()
    check_same_function(run.plain_model, model, batch)
    images, noise = run.plain_model.normalize(batch[0]), batch[1]
    parameters, optimizers = list(model.parameters()), create_optimizers(model, params)
    if params.compile:
        model.compile()
    mixed = resolve(params.precision) == "bf16-mixed"

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed):
            loss = model(images, noise=noise).loss
        loss.backward()
        clip_gradients(parameters)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def contestants(params: PretrainParams, channels: int) -> dict[str, Callable[[], object]]:
    """Return who takes turns; on a CPU also theirs with the attention that may be faster there."""
    theirs = {THEIRS: their_stepper(params, channels)}
    if not torch.cuda.is_available():
        theirs[WRITTEN_OUT] = their_stepper(params, channels, "eager")
    return theirs | {
        OURS: stepper(with_update(params, "none"), channels),
        DECORRELATED: stepper(with_update(params, "function-preserving", CYCLE), channels),
    }


def measure(compiled: bool, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row a contestant: images a second, and how many times theirs."""
    params = step_params(
        arguments,
        model=arguments.model,
        optimizer="adamw",  # Muon would get other matrices: theirs has queries, keys and values apart
        decoder_dim=arguments.decoder_dim,
        decoder_depth=arguments.decoder_depth,
        compile=compiled,
    )
    channels = arguments.channels
    times = take_turns(
        "mae_step",
        {**params.model_dump(), "channels": channels},
        lambda: contestants(params, channels),
        arguments.rounds,
        arguments.warmup,
        CYCLE,
    )
    to_theirs = 1 / ratios(times, THEIRS)  # of their speed, not of their time
    return [
        {
            "model": params.model,
            "decoder": f"{params.decoder_dim}x{params.decoder_depth}",
            "batch": params.batch,
            "precision": params.precision,
            "compiled": compiled,
            "contestant": name,
            "rounds": len(times),
            "images_per_second": params.batch / float(times[name].median()),
            "times_theirs": float(to_theirs["median"][name]),
            "lowest": float(to_theirs["max"][name]),
            "highest": float(to_theirs["min"][name]),
        }
        for name in map(str, times)
    ]


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return how many times their images a second ours makes."""
    return {
        f"{row['contestant']}, {'compiled' if row['compiled'] else 'eager'}": round(
            row["times_theirs"], 3
        )
        for row in rows
        if row["contestant"] in (OURS, DECORRELATED)
    }


def main() -> None:
    """Measure, print the table and write the results."""
    parser = create_parser(__doc__)
    add_arguments(parser)
    add_rounds(parser)
    parser.add_argument(
        "--model",
        default="base" if torch.cuda.is_available() else "small",
        help="as pretrain.model",
    )
    parser.add_argument("--decoder-dim", type=int, default=512, help="width of the decoder")
    parser.add_argument("--decoder-depth", type=int, default=8, help="blocks of the decoder")
    parser.add_argument("--compile", action="store_true", help="both compiled, after both eager")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for compiled in (False, True) if arguments.compile else (False,):
        rows += measure(compiled, arguments)
        report(f"mae_step-{resolve(arguments.precision)}", headline(rows), rows)


if __name__ == "__main__":
    run(main)
