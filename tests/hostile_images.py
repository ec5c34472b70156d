"""Some sixty files a careless or hostile client may send, one line each."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

_RANDOM = np.random.default_rng(0)
GREY = _RANDOM.integers(0, 256, (24, 32), dtype=np.uint8)
RGB = _RANDOM.integers(0, 256, (24, 32, 3), dtype=np.uint8)
RGBA = _RANDOM.integers(0, 256, (24, 32, 4), dtype=np.uint8)
GREY16 = _RANDOM.integers(0, 65536, (24, 32), dtype=np.uint16)
RGB16 = _RANDOM.integers(0, 65536, (24, 32, 3), dtype=np.uint16)
RGBA16 = _RANDOM.integers(0, 65536, (24, 32, 4), dtype=np.uint16)


def saved(array: np.ndarray, file_format: str, mode: str | None = None, **options: Any) -> bytes:
    """Return an array as a file of Pillow's, in another colour mode if asked."""
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, file_format, **options)
    return buffer.getvalue()


def pages(file_format: str) -> bytes:
    """Return two images in one file."""
    return saved(GREY, file_format, save_all=True, append_images=[Image.fromarray(GREY[::-1])])


def turned(array: np.ndarray, file_format: str) -> bytes:
    """Return a file whose EXIF data ask for a quarter turn clockwise (orientation 6)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(array, file_format, exif=exif)


def png(
    width: int, height: int, bits: int, colour: int, rows: bytes, extra: Sequence[bytes] = ()
) -> bytes:
    """Return a PNG file with this header and these rows (each with its filter byte before it)."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows))]
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks, chunk(b"IEND", b"")])


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png16(array: np.ndarray, colour: int, extra: Sequence[bytes] = ()) -> bytes:
    """Return a 16-bit PNG file of H W C (colour type 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA)."""
    rows = array.astype(">u2").reshape(len(array), -1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    return png(array.shape[1], array.shape[0], 16, colour, body, extra)


def tiff(
    array: np.ndarray,
    photometric: int,
    order: Literal["<", ">"] = "<",
    kind: int = 1,
    planes: bool = False,
    extra: dict[int, list[int]] | None = None,
) -> bytes:
    """Return an uncompressed TIFF file.

    Args:
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK, 8 CIE L*a*b*.
        order: "<" or ">", the byte order.
        kind: 1 unsigned, 2 signed, 3 float.
        planes: each channel apart.
        extra: more tags (16-bit values), such as 274, the orientation.
    """
    samples = 1 if array.ndim == 2 else array.shape[2]
    strips = samples if planes else 1
    ordered = np.moveaxis(array, -1, 0) if planes else array
    data = ordered.astype(array.dtype.newbyteorder(order)).tobytes()
    short = {
        256: [array.shape[1]],
        257: [array.shape[0]],
        258: [array.dtype.itemsize * 8] * samples,
        259: [1],
        262: [photometric],
        273: [0] * strips,
        277: [samples],
        278: [array.shape[0]],
        279: [len(data) // strips] * strips,
        284: [2 if planes else 1],
        339: [kind] * samples,
        **(extra or {}),
    }
    outside = 8 + 2 + 12 * len(short) + 4
    begin = outside + sum(2 * len(values) for values in short.values() if len(values) > 2)
    short[273] = [begin + strip * len(data) // strips for strip in range(strips)]
    entries, tail = b"", b""
    for tag, values in sorted(short.items()):
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            packed, tail = struct.pack(f"{order}I", outside + len(tail)), tail + packed
        entries += struct.pack(f"{order}HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(short))
    return head + entries + bytes(4) + tail + data


PNG, JPEG = saved(RGB, "PNG"), saved(RGB, "JPEG", quality=95)
TIFF, BMP = saved(RGB, "TIFF"), saved(RGB, "BMP")
PACKED_TIFF = saved(RGB, "TIFF", compression="tiff_lzw")

# Name, bytes, and what `decode_image` makes of them: an image ("ok") or the reason of its refusal.
HOSTILE: list[tuple[str, bytes, str]] = [
    ("empty", b"", "unreadable"),
    ("one byte", b"\x89", "unsupported"),
    ("zeros", bytes(1000), "unsupported"),
    ("noise", _RANDOM.bytes(5000), "unsupported"),
    ("text", b"hello", "unsupported"),
    ("HTML", b"<!doctype html><html><body>502 Bad Gateway</body></html>", "unsupported"),
    ("JSON", b'{"image": "http://169.254.169.254/latest/meta-data"}', "unsupported"),
    ("URL", b"http://127.0.0.1:1/image.png", "unsupported"),
    ("path", b"/etc/passwd", "unsupported"),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "unsupported"),
    ("zip", b"PK\x03\x04" + bytes(200), "unsupported"),
    ("gzip", b"\x1f\x8b\x08" + bytes(200), "unsupported"),
    ("PDF", b"%PDF-1.7\n" + bytes(200), "unsupported"),
    ("pickle", b"\x80\x04cos\nsystem\n(S'true'\ntR.", "unsupported"),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported"),
    ("GIF", saved(GREY, "GIF"), "unsupported"),
    ("WebP", saved(RGB, "WEBP"), "unsupported"),
    ("ICO", saved(RGB, "ICO"), "unsupported"),
    ("PPM", saved(RGB, "PPM"), "unsupported"),
    ("NumPy", b"\x93NUMPY\x01\x00" + bytes(200), "unsupported"),
    ("PNG signature alone", PNG[:8], "unreadable"),
    ("PNG header alone", PNG[:33], "unreadable"),
    ("PNG cut in half", PNG[: len(PNG) // 2], "unreadable"),
    ("PNG without its last byte", PNG[:-1], "ok"),
    ("PNG with a flipped bit", PNG[:900] + bytes([PNG[900] ^ 1]) + PNG[901:], "unreadable"),
    ("PNG with JPEG inside", PNG[:8] + JPEG, "unreadable"),
    ("PNG of half the rows, else sound", png(32, 24, 8, 0, bytes(33 * 12)), "ok"),
    ("PNG 0 x 0", png(0, 0, 8, 0, b""), "unreadable"),
    ("PNG 1 x 1", png(1, 1, 8, 0, b"\0\0"), "too_small"),
    ("PNG 1000 x 1", png(1000, 1, 8, 0, bytes(1001)), "too_small"),
    ("PNG bomb", png(50_000, 50_000, 8, 0, bytes(1000)), "too_large"),
    ("PNG bomb of 100 million and one", png(100_000_001, 1, 8, 0, bytes(9)), "too_large"),
    ("PNG of 2^31 - 1", png(2**31 - 1, 2**31 - 1, 1, 0, bytes(9)), "too_large"),
    ("PNG thin and long", png(2_500_000, 8, 8, 0, bytes(1000)), "too_large"),
    ("PNG of impossible depth", png(32, 24, 7, 0, bytes(33 * 24)), "unreadable"),
    (
        "PNG with a text bomb",
        png(
            32,
            24,
            8,
            0,
            bytes(33 * 24),
            [chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000)))],
        ),
        "unreadable",
    ),
    ("PNG animated", pages("PNG"), "unsupported"),
    ("PNG palette", saved(RGB, "PNG", "P"), "ok"),
    ("PNG palette with alpha", saved(GREY, "PNG", "P", transparency=bytes(range(256))), "ok"),
    ("PNG 1 bit", saved(GREY, "PNG", "1"), "ok"),
    ("PNG grey with alpha", saved(GREY, "PNG", "LA"), "ok"),
    ("PNG RGBA", saved(RGBA, "PNG"), "ok"),
    ("PNG 16-bit grey", png16(GREY16, 0), "ok"),
    ("PNG 16-bit grey with alpha", png16(RGBA16[..., :2], 4), "ok"),
    ("PNG 16-bit RGB", png16(RGB16, 2), "ok"),
    ("PNG 16-bit RGBA", png16(RGBA16, 6), "ok"),
    ("PNG turned", turned(RGB, "PNG"), "ok"),
    ("PNG with bytes after its end", PNG + b"trailing", "ok"),
    ("JPEG signature alone", JPEG[:3], "unreadable"),
    ("JPEG cut in half", JPEG[: len(JPEG) // 2], "unreadable"),
    ("JPEG end alone", b"\xff\xd8\xff\xd9", "unreadable"),
    ("JPEG of several pictures", pages("MPO"), "unsupported"),
    ("JPEG turned", turned(RGB, "JPEG"), "ok"),
    ("JPEG CMYK", saved(RGB, "JPEG", "CMYK"), "ok"),
    ("JPEG progressive", saved(RGB, "JPEG", progressive=True), "ok"),
    ("JPEG grey", saved(GREY, "JPEG"), "ok"),
    ("TIFF signature alone", TIFF[:4], "unreadable"),
    ("TIFF without its directory", TIFF[:8], "unreadable"),
    ("TIFF cut in half", PACKED_TIFF[: len(PACKED_TIFF) // 2], "unreadable"),
    ("TIFF of two pages", pages("TIFF"), "unsupported"),
    ("TIFF float", tiff(GREY.astype(np.float32), 1, kind=3), "unsupported"),
    ("TIFF float RGB", tiff(RGB.astype(np.float32), 2, kind=3), "unreadable"),
    ("TIFF 32 bits", tiff(GREY.astype(np.uint32), 1), "unsupported"),
    ("TIFF signed", tiff(GREY.astype(np.int16), 1, kind=2), "unsupported"),
    ("TIFF white is zero, 16 bits", tiff(GREY16, 0), "unsupported"),
    ("TIFF white is zero, 8 bits", tiff(GREY, 0), "ok"),
    ("TIFF L*a*b*", tiff(RGB, 8), "ok"),
    ("TIFF CMYK", tiff(RGBA, 5), "ok"),
    ("TIFF 16-bit CMYK", tiff(RGBA16, 5), "unsupported"),
    ("TIFF 16-bit grey, big-endian", tiff(GREY16, 1, ">"), "ok"),
    ("TIFF 16-bit RGB, big-endian", tiff(RGB16, 2, ">"), "ok"),
    ("TIFF 16-bit RGB in planes", tiff(RGB16, 2, planes=True), "unsupported"),
    ("TIFF 16-bit RGBA", tiff(RGBA16, 2, extra={338: [2]}), "ok"),
    ("TIFF turned", tiff(RGB, 2, extra={274: [6]}), "ok"),
    ("BMP signature alone", b"BM", "unreadable"),
    ("BMP cut in half", BMP[: len(BMP) // 2], "unreadable"),
    ("BMP of negative width", BMP[:18] + struct.pack("<i", -32) + BMP[22:], "too_large"),
    ("BMP bomb", BMP[:18] + struct.pack("<ii", 40_000, 40_000) + BMP[26:], "too_large"),
    ("BMP grey", saved(GREY, "BMP"), "ok"),
]
