"""Reconstructions as pictures: what the autoencoder makes of crops it has never seen."""

import numpy as np
import torch
from torch import Tensor

from dbp_mae.data.crops import Batch
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder, select

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
    patches = model.patchify(images)
    visible, masked = model.random_masking(noise)
    latent = model.forward_encoder(select(patches, visible), visible)
    prediction = model.forward_decoder(latent, visible, masked)

    variance, mean = torch.var_mean(select(patches, masked), dim=-1, keepdim=True)
    places = masked[:, :, None].expand_as(prediction)
    hidden = patches.scatter(1, places, 0)
    reconstructed = patches.scatter(1, places, prediction * (variance + 1e-6).sqrt() + mean)
    rows = [images, model.unpatchify(hidden), model.unpatchify(reconstructed)]
    return _grid([_to_pixels(model, row) for row in rows])


def _to_pixels(model: MaskedAutoencoder, images: Tensor) -> np.ndarray:
    pixels = model.normalize.inverse(images).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()  # B H W C


def _grid(rows: list[np.ndarray]) -> np.ndarray:
    edges = ((0, 0), (GAP, GAP), (GAP, GAP), (0, 0))
    framed = [np.pad(row, edges, constant_values=255) for row in rows]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in framed], axis=0)
