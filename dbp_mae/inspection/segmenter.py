"""A model file at work: an image in, class probabilities, a mask and objects out."""

import ctypes
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime

from dbp_mae.errors import UserError, one_line
from dbp_mae.inspection.model_card import ModelCard
from dbp_mae.inspection.objects import InspectionObject, find_objects
from dbp_mae.inspection.tiling import blend_tiles, cut_tiles

BATCH = 16
"""Tiles that the network sees at once."""


class GivenUp(Exception):
    """A segmentation that nobody waits for any more was left unfinished."""


@dataclass(frozen=True)
class Segmentation:
    """What was found in one image."""

    mask: np.ndarray
    """H W uint8: 0 background, i the i-th class."""
    objects: list[InspectionObject]


def read_model(path: Path) -> bytes:
    """Return the contents of segmenter.onnx.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Model file {path} cannot be read ({error.strerror}): run the pipeline, or name another file."
        ) from None


class Segmenter:
    """An exported segmenter.

    Memory grows with the image: `bytes_per_pixel` for the probabilities and weights. A batch of tiles
    comes to it, and a copy of an image that is smaller than a tile, extended to its size.
    """

    def __init__(self, session: onnxruntime.InferenceSession, card: ModelCard, sha256: str) -> None:
        self._session = session
        self.card = card
        self.sha256 = sha256
        self.provider: str = session.get_providers()[0]
        """CUDAExecutionProvider where a GPU truly does the work, else CPUExecutionProvider."""

    @classmethod
    def load(cls, path: Path, gpu: bool = True) -> Self:
        """Load segmenter.onnx.

        Args:
            path: of the file.
            gpu: whether to use one that is there.

        Raises:
            UserError: the file is missing, is not ONNX, or is not one of the export stage.
        """
        return cls.from_bytes(read_model(path), path, gpu)

    @classmethod
    def from_bytes(cls, data: bytes, path: Path, gpu: bool = True) -> Self:
        """Load what `read_model` read from a path, which errors name; for the others see `load`."""
        try:
            session = onnxruntime.InferenceSession(data, providers=_providers(gpu))
        except Exception as error:  # onnxruntime's errors for a bad file have no common class
            raise UserError(f"Model file {path} cannot be loaded ({one_line(error)}).") from None
        try:
            card = ModelCard.from_metadata(session.get_modelmeta().custom_metadata_map)
            _check_graph(session, card)
        except UserError as error:
            raise UserError(f"Model file {path} is refused: {error}.") from None
        return cls(session, card, hashlib.sha256(data).hexdigest())

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that the probabilities of K + 1 classes and the tiles' weights take."""
        return 4 * (len(self.card.classes) + 2)

    def probabilities(self, image: np.ndarray, given_up: Callable[[], bool]) -> np.ndarray:
        """Return the probabilities of background and classes, (K + 1) H W float32.

        Args:
            image: H W C uint8 with the card's channels, as `decode_image` gives.
            given_up: is asked before each batch of tiles whether to leave the rest.

        Raises:
            GivenUp: it said so.
        """
        tiles, origins = cut_tiles(image, self.card.tile, self.card.overlap)
        height, width = image.shape[:2]
        predicted = self._predict(tiles, given_up)
        return blend_tiles(predicted, origins, height, width, self.card.overlap)

    def segment(
        self, image: np.ndarray, given_up: Callable[[], bool] = lambda: False
    ) -> Segmentation:
        """Return the mask and the objects of an image; for arguments and errors see `probabilities`."""
        probabilities = self.probabilities(image, given_up)
        mask = _likeliest(probabilities)
        return Segmentation(mask, find_objects(mask, probabilities, self.card))

    def _predict(
        self, tiles: list[np.ndarray], given_up: Callable[[], bool]
    ) -> Iterator[np.ndarray]:
        for start in range(0, len(tiles), BATCH):
            if given_up():
                raise GivenUp
            batch = np.stack(tiles[start : start + BATCH])
            (probabilities,) = self._session.run(["probabilities"], {"tiles": batch})
            yield from probabilities


def _likeliest(probabilities: np.ndarray) -> np.ndarray:
    """Return the argmax over classes, ten times as fast as numpy's over a first axis."""
    mask = np.zeros(probabilities.shape[1:], np.uint8)
    highest = probabilities[0].copy()
    for index in range(1, len(probabilities)):
        np.copyto(mask, index, where=probabilities[index] > highest)
        np.maximum(highest, probabilities[index], out=highest)
    return mask


def _providers(gpu: bool) -> list[str | tuple[str, dict[str, str]]]:
    if not (gpu and _has_nvidia_driver()):  # without a driver the attempt prints errors
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()
    # Full precision, so that a GPU and a CPU give the same verdicts; no search for the fastest
    # convolution each time the batch has another size.
    options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def _has_nvidia_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _check_graph(session: onnxruntime.InferenceSession, card: ModelCard) -> None:
    """Raise UserError unless the graph does on two blank tiles what the card says.

    It also warms the session up, so that the first image takes no longer than the others.
    """
    tiles = np.zeros((2, card.tile, card.tile, card.channels), np.uint8)
    try:
        (probabilities,) = session.run(["probabilities"], {"tiles": tiles})
    except Exception as error:
        raise UserError(
            f"its graph does not take the tiles of its card ({one_line(error)}): export it again"
        ) from None
    expected = (2, len(card.classes) + 1, card.tile, card.tile)
    if probabilities.shape != expected:
        raise UserError(
            f"its graph gives {probabilities.shape} where its card says {expected}: export it again"
        )
