"""The segmenter: the pre-trained encoder under a DPT decoder (arXiv 2103.13413)."""

import json
from dataclasses import asdict
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dbp_mae.encoder import EncoderSpec, resample_positions
from dbp_mae.errors import UserError
from dbp_mae.files import atomic_path


class Segmenter(nn.Module):
    """Class logits, B K+1 H W, from raw tiles, B C H W; normalisation is part of the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec, tile: int, classes: int, decoder_width: int) -> None:
        super().__init__()
        self.network = smp.DPT(
            encoder_name=f"tu-{spec.timm_name}",
            encoder_weights=None,
            in_channels=spec.channels,
            classes=classes + 1,
            decoder_intermediate_channels=[decoder_width] * 4,
            decoder_fusion_channels=decoder_width,
            img_size=tile,
            patch_size=spec.patch,
            num_classes=0,
        )
        self.encoder = self.network.encoder.model
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of raw tiles."""
        images = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        logits: Tensor = self.network(images)
        return logits

    def load_encoder_weights(self, weights: dict[str, Tensor]) -> None:
        """Start from a pre-trained encoder; its position embeddings are resampled to the tile."""
        self.encoder.load_state_dict(resample_positions(weights, self.encoder))


def save_segmenter(path: Path, segmenter: Segmenter, spec: EncoderSpec, tile: int) -> None:
    """Write the weights, with what rebuilds the network in the header."""
    head = segmenter.network.segmentation_head.head
    shape = {
        "tile": tile,
        "classes": head[-1].out_channels - 1,
        "decoder_width": head[0].in_channels,
    }
    header = {"spec": json.dumps(asdict(spec)), "shape": json.dumps(shape)}
    weights = {
        key: value.detach().cpu().contiguous()
        for key, value in segmenter.network.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata=header)


def load_segmenter(path: Path) -> tuple[Segmenter, EncoderSpec]:
    """Rebuild a segmenter from its file, on the CPU, ready to predict.

    Raises:
        UserError: the file is missing or was not written by `save_segmenter`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            spec, shape = (json.loads(header[key]) for key in ("spec", "shape"))
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the finetune stage first.") from None
    except (SafetensorError, KeyError, ValueError):
        raise UserError(
            f"{path} is not a segmenter of this project: expected the safetensors file that the "
            "finetune stage writes. Run that stage again."
        ) from None
    spec = EncoderSpec(**spec | {"mean": tuple(spec["mean"]), "std": tuple(spec["std"])})
    segmenter = Segmenter(spec, **shape)
    segmenter.network.load_state_dict(weights)
    return segmenter.eval(), spec
