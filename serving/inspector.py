"""One inspection: the bytes of an image in, the answer to the client and a line in the log out."""

import base64
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from dbp_mae.inspection.drift import image_statistics
from dbp_mae.inspection.images import decode_image, encode_png
from dbp_mae.inspection.objects import InspectionObject
from dbp_mae.inspection.segmenter import Segmenter
from dbp_mae.inspection.verdict import verdict

MAX_PROBABILITY_BYTES = 4_000_000_000
"""What the probabilities of one image may take: a file of some kB can hold very many pixels."""


class Inspector:
    """A segmenter that answers clients and keeps the log for the drift monitor."""

    def __init__(self, segmenter: Segmenter, max_pixels: int, log: Path | None) -> None:
        self._segmenter = segmenter
        self._log = log
        self._max_pixels = min(max_pixels, MAX_PROBABILITY_BYTES // segmenter.bytes_per_pixel)

    def inspect(
        self, data: bytes, with_mask: bool, with_image: bool, given_up: Callable[[], bool]
    ) -> dict[str, Any]:
        """Return the answer to the client.

        Args:
            data: a PNG, JPEG, TIFF or BMP file.
            with_mask: add `mask`, a PNG file in base64: 0 is background, i the i-th class.
            with_image: add `image.png`, the image as the model sees it, in base64 (browsers show
                no TIFF files, and 12-bit ones as black).
            given_up: tells that nobody waits for the answer any more.

        Raises:
            ImageError: the image is refused.
            GivenUp: `given_up` said so in time.
        """
        card = self._segmenter.card
        started = perf_counter()
        image = decode_image(data, card.channels, card.white_level, self._max_pixels)
        decoded = perf_counter()
        found = self._segmenter.segment(image, given_up)
        predicted = perf_counter()
        decision = verdict(found.objects)
        self._append_to_log(image, decision)
        answer: dict[str, Any] = {
            "verdict": decision,
            "classes": self._classes(found.mask),
            "objects": [_describe(item) for item in found.objects],
            "image": {"width": image.shape[1], "height": image.shape[0]},
            "model": self.identity(),
        }
        if with_mask:
            answer["mask"] = _png(found.mask)
        if with_image:
            answer["image"]["png"] = _png(image)
        answer["milliseconds"] = {
            "decode": _milliseconds(started, decoded),
            "predict": _milliseconds(decoded, predicted),
            "total": _milliseconds(started, perf_counter()),
        }
        return answer

    def identity(self) -> dict[str, Any]:
        """Return which model answers, for the records of whoever acts on it."""
        card = self._segmenter.card
        return {
            "sha256": self._segmenter.sha256,
            "git_revision": card.git_revision,
            "data_sha256": card.data_sha256,
            "params_sha256": card.params_sha256,
            "provider": self._segmenter.provider,
            "validation": card.validation,
        }

    def _classes(self, mask: np.ndarray) -> list[dict[str, Any]]:
        """Return the pixels of each class in the mask, and their share of the image."""
        classes = []
        for index, info in enumerate(self._segmenter.card.classes, start=1):
            area = int(np.count_nonzero(mask == index))
            classes.append({**info.model_dump(), "area": area, "share": area / mask.size})
        return classes

    def _append_to_log(self, image: np.ndarray, decision: str) -> None:
        """Append the inspection to the log; a full disk must not stop the line."""
        if self._log is None:
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time,
            "model": self._segmenter.sha256,
            "verdict": decision,
            **image_statistics(image),
        }
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            print(f"{self._log} cannot be written: {error.strerror}", file=sys.stderr)


def _describe(item: InspectionObject) -> dict[str, Any]:
    return {
        "class": item.class_name,
        "defect": item.defect,
        "box": item.box,
        "area": item.area,
        "score": round(item.score, 4),
        "contour": item.contour,
    }


def _png(array: np.ndarray) -> str:
    return base64.b64encode(encode_png(array)).decode("ascii")


def _milliseconds(start: float, end: float) -> float:
    return round(1000 * (end - start), 1)
