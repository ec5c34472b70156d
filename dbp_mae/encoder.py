"""The encoder: a plain timm Vision Transformer, by size name, and its file."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dbp_mae.weights import read_weights, write_weights

NANO = {"embed_dim": 128, "depth": 4, "num_heads": 4}
"""Smaller than timm's sizes: what two CPU cores can pre-train in minutes."""


@register_model
def vit_nano_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Create a ViT of width 128 and depth 4."""
    return _create("vit_tiny_patch16_224", pretrained=pretrained, **(NANO | kwargs))


@dataclass(frozen=True)
class EncoderSpec:
    """What rebuilds an encoder and feeds it; stored in the header of its file."""

    model: str
    """Size by name: nano, tiny, small, base, large."""
    patch: int
    image_size: int
    """Side in pixels of the images its position embeddings are for."""
    channels: int
    mean: tuple[float, ...]
    """By channel, on the scale of 0 to 1."""
    std: tuple[float, ...]

    @classmethod
    def from_header(cls, fields: dict[str, Any]) -> Self:
        """Rebuild the spec from its entry in a file's header."""
        return cls(**fields | {name: tuple(fields[name]) for name in ("mean", "std")})

    def resized(self, image_size: int) -> Self:
        """Return the spec of the same encoder for images of another size."""
        return replace(self, image_size=image_size)

    @property
    def timm_name(self) -> str:
        """Name for timm.create_model; `nano` is registered by this module."""
        return f"vit_{self.model}_patch16_224"

    @property
    def timm_arguments(self) -> dict[str, Any]:
        """Keyword arguments for timm.create_model beside the name."""
        return {
            "patch_size": self.patch,
            "img_size": self.image_size,
            "in_chans": self.channels,
        }


class Normalize(nn.Module):
    """Raw pixels, B C H W, with the data's own mean and deviation removed."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the images that the encoder takes."""
        return (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std

    def inverse(self, images: Tensor) -> Tensor:
        """Return the raw pixels, not rounded, of normalised images."""
        return (images * self.std + self.mean) * 255


def create_encoder(spec: EncoderSpec) -> VisionTransformer:
    """Create an encoder with random weights and without a head."""
    return _create(spec.timm_name, num_classes=0, **spec.timm_arguments)


def _create(name: str, **arguments: Any) -> VisionTransformer:
    model = timm.create_model(name, **arguments)
    assert isinstance(model, VisionTransformer)
    return model


def save_encoder(path: Path, encoder: nn.Module, spec: EncoderSpec) -> None:
    """Write the weights under timm's own keys.

    The header's `timm` entry holds the name and arguments with which an unmodified timm rebuilds the
    model, its `spec` entry the EncoderSpec.
    """
    plain = {"name": spec.timm_name, "num_classes": 0, **spec.timm_arguments}
    if spec.model == "nano":
        plain |= {"name": "vit_tiny_patch16_224", **NANO}
    write_weights(path, encoder, {"timm": plain, "spec": asdict(spec)})


def load_encoder(path: Path) -> tuple[dict[str, Tensor], EncoderSpec]:
    """Read an encoder's weights and its spec.

    Raises:
        UserError: the file is missing or was not written by `save_encoder`.
    """
    weights, header = read_weights(path, "pretrain")
    return weights, EncoderSpec.from_header(header["spec"])


def resample_positions(weights: dict[str, Tensor], encoder: VisionTransformer) -> dict[str, Tensor]:
    """Return `weights` with the position embeddings resampled to the grid of `encoder`."""
    positions = resample_abs_pos_embed(
        weights["pos_embed"],
        new_size=list(encoder.patch_embed.grid_size),
        num_prefix_tokens=encoder.num_prefix_tokens,
    )
    return weights | {"pos_embed": positions}


def sincos_positions(dim: int, grid: int) -> Tensor:
    """Return fixed 2-D sine-cosine position embeddings, 1 x (1 + grid^2) x dim, zero for the class token.

    Source: MAE (arXiv 2111.06377), appendix A.1, after "Attention Is All You Need".
    """
    frequencies = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # G D/4
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # G D/2
    columns = axis[None, :, :].expand(grid, grid, -1)
    rows = axis[:, None, :].expand(grid, grid, -1)
    positions = torch.cat([columns, rows], dim=2).reshape(1, grid * grid, dim)
    return torch.cat([torch.zeros(1, 1, dim), positions.float()], dim=1)
