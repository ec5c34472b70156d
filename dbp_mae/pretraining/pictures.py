"""Reconstructions as pictures: what the autoencoder makes of crops it has never seen."""

import numpy as np
import torch
from torch import Tensor

from dbp_mae.data.crops import Batch
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder

GAP = 4
"""White pixels between two pictures."""


@torch.no_grad()
def draw_reconstructions(model: MaskedAutoencoder, batch: Batch, count: int = 8) -> np.ndarray:
    """Draw, one column a crop: the crop, its visible patches, and the reconstruction.

    Predictions are of normalised patches; each gets back the mean and variance of its true patch.

    Returns:
        uint8, H W C.
    """
    every = max(1, len(batch[0]) // count)
    pixels, noise = (part[::every][:count] for part in batch)
    images = model.normalize(pixels)
    visible, mask, restore = model.random_masking(noise)
    prediction = model.forward_decoder(model.forward_encoder(images, visible), restore)

    patches = model.patchify(images)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    masked = mask[:, :, None].bool()
    reconstructed = torch.where(masked, prediction * (variance + 1e-6).sqrt() + mean, patches)
    hidden = torch.where(masked, torch.zeros_like(patches), patches)
    rows = [images, model.unpatchify(hidden), model.unpatchify(reconstructed)]
    return _grid([_to_pixels(model, row) for row in rows])


def _to_pixels(model: MaskedAutoencoder, images: Tensor) -> np.ndarray:
    pixels = ((images * model.std + model.mean) * 255).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()  # B H W C


def _grid(rows: list[np.ndarray]) -> np.ndarray:
    edges = ((0, 0), (GAP, GAP), (GAP, GAP), (0, 0))
    framed = [np.pad(row, edges, constant_values=255) for row in rows]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in framed], axis=0)
