"""Large images as overlapping square tiles, and the tiles' probabilities as one image again."""

from collections.abc import Iterable
from itertools import chain

import numpy as np

Origin = tuple[int, int]
"""Row and column of a tile's first pixel."""


def tile_origins(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin along a side, so that they cover it.

    Neighbours overlap by `overlap` pixels (0 <= overlap < tile), the last two by more where the
    length asks for it: the last tile is flush with the end. A side within one tile has origin 0.
    """
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def pad_to_tile(image: np.ndarray, tile: int) -> np.ndarray:
    """Extend an image (H W C) smaller than a tile to its size, mirrored at the lower right."""
    missing = [max(0, tile - side) for side in image.shape[:2]]
    if not any(missing):
        return image
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="reflect")


def cut_tiles(image: np.ndarray, tile: int, overlap: int) -> tuple[list[np.ndarray], list[Origin]]:
    """Cut an image (H W C) into tiles (T T C each) and their origins, padding it if it is smaller.

    The tiles are views: however much they overlap, they take no memory of their own.
    """
    padded = pad_to_tile(image, tile)
    origins = [
        (top, left)
        for top in tile_origins(image.shape[0], tile, overlap)
        for left in tile_origins(image.shape[1], tile, overlap)
    ]
    return [padded[top : top + tile, left : left + tile] for top, left in origins], origins


def blend_tiles(
    probabilities: Iterable[np.ndarray],
    origins: list[Origin],
    height: int,
    width: int,
    overlap: int,
) -> np.ndarray:
    """Blend the tiles' probabilities into those of the image.

    Each pixel is the mean of the tiles that hold it, weighted by a ramp that falls towards a tile's
    border, where the network sees least of the surroundings.

    Args:
        probabilities: K T T each, in the order of `origins`; may be a generator, so that only a
            batch of tiles is in memory.

    Returns:
        K H W float32.
    """
    tiles = iter(probabilities)
    first = next(tiles)
    classes, tile, _ = first.shape
    total = np.zeros((classes, height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    window = blending_window(tile, overlap)
    for probability, (top, left) in zip(chain([first], tiles), origins, strict=True):
        target = np.s_[top : top + tile, left : left + tile]
        inside = np.s_[: height - top, : width - left]  # a padded tile reaches beyond the image
        total[:, *target] += (probability * window)[:, *inside]
        weights[target] += window[inside]
    total /= weights
    return total


def blending_window(tile: int, overlap: int) -> np.ndarray:
    """Return the weights of a tile's pixels (T T): positive, rising over `overlap` pixels."""
    distance = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1))
    ramp = np.minimum(distance / (overlap + 1), 1).astype(np.float32)
    return np.outer(ramp, ramp)
