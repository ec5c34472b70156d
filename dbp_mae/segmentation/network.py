"""The segmenter: a U-Net whose deepest level is the pre-trained Vision Transformer.

The transformer sees patches and knows the part; a few convolutions see pixels. Defects are smaller
than a patch, so a decoder fed by the transformer alone learns their outlines slowly. After UNETR
(arXiv 2103.10504) and TransUNet (arXiv 2102.04306).
"""

from dataclasses import asdict
from pathlib import Path

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from timm.layers import ConvNormAct
from torch import Tensor, nn

from dbp_mae.encoder import EncoderSpec, Normalize, create_encoder, resample_positions
from dbp_mae.weights import read_weights, write_weights

LEVELS = 4
"""Depths of the transformer, evenly spaced, whose tokens the decoder gets."""


class SegmentationNetwork(nn.Module):
    """Class logits, B K+1 H W, from raw tiles, B C H W; normalisation is part of the network."""

    def __init__(self, spec: EncoderSpec, tile: int, classes: int, decoder_width: int) -> None:
        super().__init__()
        self.shape = {"tile": tile, "classes": classes, "decoder_width": decoder_width}
        self.normalize = Normalize(spec)
        self.encoder = create_encoder(spec.resized(tile))
        depth = len(self.encoder.blocks)
        self.levels = [depth * (level + 1) // LEVELS - 1 for level in range(LEVELS)]

        # Levels of pixels at strides 2, 4, ... up to half a patch.
        widths = [decoder_width * 2**level for level in range(spec.patch.bit_length() - 2)]
        self.pixel_levels = nn.ModuleList(
            double_convolution(before, width)
            for before, width in zip([spec.channels, *widths[:-1]], widths, strict=True)
        )
        self.bridge = ConvNormAct(LEVELS * self.encoder.embed_dim, 2 * widths[-1], kernel_size=1)
        self.decoder = UnetDecoder(
            encoder_channels=[spec.channels, *widths, 2 * widths[-1]],
            decoder_channels=widths[::-1],
            n_blocks=len(widths),
        )
        self.head = SegmentationHead(decoder_width, classes + 1, upsampling=2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of raw tiles."""
        images = self.normalize(pixels)
        features = [images]
        for level in self.pixel_levels:
            features.append(level(features[-1]))
        features.append(self.forward_encoder(images))
        logits: Tensor = self.head(self.decoder(features))
        return logits

    def forward_encoder(self, images: Tensor) -> Tensor:
        """Return the transformer's tokens as the deepest level: B D' H/P W/P."""
        tokens = self.encoder.forward_intermediates(
            images, indices=self.levels, intermediates_only=True, norm=True
        )
        assert isinstance(tokens, list)
        bridged: Tensor = self.bridge(torch.cat(tokens, dim=1))
        return bridged

    @torch.no_grad()
    def offset_background(self, offset: float) -> None:
        """Add an offset to the logit of the background."""
        convolution = self.head[0]
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        convolution.bias[0] += offset

    def load_encoder_weights(self, weights: dict[str, Tensor]) -> None:
        """Start from a pre-trained encoder; its position embeddings are resampled to the tile."""
        self.encoder.load_state_dict(resample_positions(weights, self.encoder))


def double_convolution(before: int, width: int) -> nn.Sequential:
    """Return a level of a U-Net's contracting path; it halves the sides."""
    return nn.Sequential(
        ConvNormAct(before, width, kernel_size=3, stride=2),
        ConvNormAct(width, width, kernel_size=3),
    )


def save_segmenter(path: Path, segmenter: SegmentationNetwork, spec: EncoderSpec) -> None:
    """Write the weights, with what rebuilds the network in the header."""
    write_weights(path, segmenter, {"spec": asdict(spec), "shape": segmenter.shape})


def load_segmenter(path: Path) -> tuple[SegmentationNetwork, EncoderSpec]:
    """Rebuild a segmenter from its file, on the CPU, ready to predict.

    Raises:
        UserError: the file is missing or was not written by `save_segmenter`.
    """
    weights, header = read_weights(path, "finetune")
    spec = EncoderSpec.from_header(header["spec"])
    segmenter = SegmentationNetwork(spec, **header["shape"])
    segmenter.load_state_dict(weights)
    return segmenter.eval(), spec
