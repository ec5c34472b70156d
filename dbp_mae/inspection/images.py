"""Image files into arrays: one decoder for ingest, training and the line, safe for any bytes."""

import io
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from dbp_mae.errors import UserError

Image.MAX_IMAGE_PIXELS = None  # _check_header has a limit of its own; Pillow would warn below it
MAX_PIXELS = 100_000_000
MIN_SIDE = 8
"""An image with a smaller side holds nothing to inspect."""
MAX_SIDE = 65_535
"""JPEG's own limit. A thin image is extended to a tile's height, which takes memory by its length."""

Reason = Literal["too_large", "too_small", "unsupported", "unreadable"]

# A format is what its first bytes say, never what its name or the client's Content-Type says.
_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
}
_PNG_BIT_DEPTH = slice(24, 25)


class ImageError(UserError):
    """An image that is refused; the message is one sentence for the user."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)  # all arguments, for pickle passes them again
        self.reason: Reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


def decode_image(
    data: bytes, channels: int, white_level: int = 65535, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode a PNG, JPEG, TIFF or BMP file to uint8 H W C with C = `channels` (1 or 3, RGB).

    16-bit values become value * 255 / `white_level`, rounded and clipped; alpha is dropped,
    palettes and other colour spaces become RGB, and the orientation in the EXIF data is applied.

    Raises:
        ImageError: more than `max_pixels`, fewer than 8 or more than 65,535 pixels a side, several
            images in one file, another format, damaged or incomplete data.
    """
    return convert_samples(decode_samples(data, max_pixels), channels, white_level)


def read_image(path: Path, channels: int, white_level: int = 65535) -> np.ndarray:
    """Read a file as `decode_image` does.

    Raises:
        ImageError: as `decode_image`, or the file cannot be opened; the message names the file.
    """
    try:
        return decode_image(path.read_bytes(), channels, white_level)
    except ImageError as error:
        raise ImageError(error.reason, f"{path}: {error}") from None
    except OSError as error:
        raise ImageError("unreadable", f"{path}: {error.strerror or error}.") from None


def decode_samples(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a file to the samples it holds: uint8 or uint16, H W C with C = 1 (grey) or 3 (RGB).

    Raises:
        ImageError: as `decode_image`.
    """
    file_format = _format_of(data)
    try:
        if file_format == "PNG":  # checks the chunks' checksums, which decoding skips
            Image.open(io.BytesIO(data), formats=[file_format]).verify()
        with Image.open(io.BytesIO(data), formats=[file_format]) as image:
            _check_header(image, max_pixels)
            samples = _samples(image, data)
    except (ImageError, MemoryError):
        raise
    except Exception:  # damaged files make Pillow's plugins raise almost anything
        raise ImageError(
            "unreadable",
            f"The {file_format} image cannot be read: it is damaged, incomplete or of a rare kind.",
        ) from None
    return samples if samples.ndim == 3 else samples[..., None]


def convert_samples(samples: np.ndarray, channels: int, white_level: int) -> np.ndarray:
    """Convert uint8 or uint16 samples (H W 1 or H W 3) to uint8 H W C with C = `channels`.

    Colour becomes grey by its luminance (ITU-R BT.601), grey becomes colour by repetition.
    """
    if samples.shape[2] == 3 and channels == 1:
        samples = cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)[..., None]
    if samples.dtype == np.uint16:
        values = np.arange(65536) * 255 / white_level
        samples = np.clip(np.rint(values), 0, 255).astype(np.uint8)[samples]
    if samples.shape[2] < channels:
        samples = np.repeat(samples, channels, axis=2)
    return samples


def encode_png(array: np.ndarray) -> bytes:
    """Encode uint8 H W, H W 1 or H W 3 (RGB) as a PNG file."""
    if array.ndim == 3 and array.shape[2] == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", array)[1].tobytes()


def _format_of(data: bytes) -> str:
    for name, signatures in _SIGNATURES.items():
        if data.startswith(signatures):
            return name
    if not data:
        raise ImageError("unreadable", "The image is empty: it has 0 bytes.")
    raise ImageError(
        "unsupported", "The file is not an image in one of the formats PNG, JPEG, TIFF and BMP."
    )


def _check_header(image: Image.Image, max_pixels: int) -> None:
    """Refuse what the header alone tells, before any pixel is decoded."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            "too_large",
            f"The image has {width} x {height} pixels; at most {max_pixels} in all are accepted: "
            "cut it into smaller images.",
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            "too_large",
            f"The image has {width} x {height} pixels; at most {MAX_SIDE} a side are accepted: "
            "cut it into shorter images.",
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            "too_small",
            f"The image has {width} x {height} pixels; at least {MIN_SIDE} a side are needed.",
        )
    if getattr(image, "is_animated", False):
        raise ImageError(
            "unsupported", "The file holds several images or pages; send each as a file of its own."
        )
    white_is_zero = _tiff_tag(image, ExifTags.Base.PhotometricInterpretation) == 0
    if image.mode in ("I", "F") or (image.mode == "I;16" and white_is_zero):
        raise ImageError(
            "unsupported",
            "The image has float, signed, 32-bit or inverted 16-bit values; "
            "save it with unsigned 8 or 16 bits and black as 0.",
        )


def _samples(image: Image.Image, data: bytes) -> np.ndarray:
    """Decode the pixels of an opened image to H W or H W 3."""
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return np.asarray(upright).astype(np.uint16)  # also to this machine's byte order
    if upright.mode in ("1", "L", "LA", "La"):
        return np.asarray(upright.convert("LA" if upright.mode == "La" else "L").convert("L"))
    colour = np.asarray(upright.convert("RGBA" if upright.mode == "RGBa" else "RGB").convert("RGB"))
    return _wide_colour(data, colour) if _bits(image, data) == 16 else colour


def _bits(image: Image.Image, data: bytes) -> int:
    """Return the bits a sample: Pillow's modes do not tell 16-bit colour from 8-bit colour."""
    if image.format == "PNG":
        return int.from_bytes(data[_PNG_BIT_DEPTH])
    return max(_tiff_tag(image, ExifTags.Base.BitsPerSample) or (8,))


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    return image.tag_v2.get(tag) if isinstance(image, TiffImageFile) else None


def _wide_colour(data: bytes, high_bytes: np.ndarray) -> np.ndarray:
    """Decode 16-bit colour, of which Pillow keeps only the high bytes, with OpenCV.

    The two decoders must agree on those: OpenCV reads rare layouts (separate planes) wrongly.
    """
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR
    wide = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if wide is None or not np.array_equal(wide[..., ::-1] // 256, high_bytes):
        raise ImageError(
            "unsupported",
            "The image stores 16-bit colour in a rare layout; save it as a PNG, or as a TIFF with "
            "interleaved RGB.",
        )
    return cv2.cvtColor(wide, cv2.COLOR_BGR2RGB)
