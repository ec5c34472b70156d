import pickle
from pathlib import Path

import numpy as np
import pytest
from hostile_images import (
    BMP,
    GREY,
    GREY16,
    HOSTILE,
    JPEG,
    PACKED_TIFF,
    PNG,
    RGB,
    RGB16,
    RGBA16,
    TIFF,
    chunk,
    png16,
    saved,
    tiff,
    turned,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dbp_mae.inspection.images import (
    ImageError,
    convert_samples,
    decode_image,
    decode_samples,
    encode_png,
    read_image,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")

TURN = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")


def decoded(data: bytes, channels: int) -> np.ndarray | None:
    """Return the image, or None if it is refused as it should be."""
    try:
        return decode_image(data, channels, max_pixels=1_000_000)
    except ImageError:
        return None


@pytest.mark.parametrize(
    ("data", "reason"), [pytest.param(d, o, id=n) for n, d, o in HOSTILE if o != "ok"]
)
def test_what_is_no_fit_image_is_refused_with_one_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data, 3)
    assert caught.value.reason == reason
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data", [pytest.param(d, id=n) for n, d, o in HOSTILE if o == "ok"])
def test_rare_but_sound_images_have_one_form(data: bytes, channels: int) -> None:
    image = decode_image(data, channels)
    assert image.dtype == np.uint8
    assert image.shape in [(24, 32, channels), (32, 24, channels)]


@pytest.mark.parametrize("data", [PNG, JPEG, TIFF, PACKED_TIFF, BMP, png16(RGB16, 2)])
def test_a_file_cut_anywhere_is_refused_or_loses_nothing(data: bytes) -> None:
    whole = decode_image(data, 3)
    for end in range(0, len(data), 23):
        image = decoded(data[:end], 3)
        assert image is None or np.array_equal(image, whole)


@given(
    st.sampled_from([PNG, JPEG, TIFF, PACKED_TIFF, BMP, png16(RGB16, 2)]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_never_raise_anything_else(
    data: bytes, damage: list[tuple[int, int]]
) -> None:
    damaged = bytearray(data)
    for position, value in damage:
        damaged[position % len(data)] = value
    image = decoded(bytes(damaged), 1)
    assert image is None or image.shape[2] == 1


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("array", [GREY, RGB])
def test_eight_bits_are_read_exactly(file_format: str, array: np.ndarray) -> None:
    assert np.array_equal(decode_samples(saved(array, file_format)).squeeze(), array)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png16(GREY16, 0), GREY16[..., None]),
        (png16(RGB16, 2), RGB16),
        (png16(RGBA16, 6), RGBA16[..., :3]),
        (png16(RGB16, 2, [TURN]), np.rot90(RGB16, -1)),
        (tiff(GREY16, 1, "<"), GREY16[..., None]),
        (tiff(GREY16, 1, ">"), GREY16[..., None]),
        (tiff(RGB16, 2, "<"), RGB16),
        (tiff(RGB16, 2, ">"), RGB16),
        (tiff(RGBA16, 2, extra={338: [2]}), RGBA16[..., :3]),
        (tiff(RGB16, 2, extra={274: [6]}), np.rot90(RGB16, -1)),
        (tiff(GREY16, 1, extra={274: [6]}), np.rot90(GREY16, -1)[..., None]),
    ],
)
def test_sixteen_bits_are_read_exactly(data: bytes, expected: np.ndarray) -> None:
    samples = decode_samples(data)
    assert samples.dtype == np.uint16
    assert np.array_equal(samples, expected)


@given(st.integers(256, 65535))
def test_sixteen_bits_are_scaled_by_the_white_level(white_level: int) -> None:
    scaled = decode_image(png16(GREY16, 0), 1, white_level)[..., 0].astype(float)
    exact = np.minimum(GREY16.astype(float) * 255 / white_level, 255)
    assert np.abs(scaled - exact).max() <= 0.5
    assert convert_samples(np.full((1, 1, 1), white_level, np.uint16), 1, white_level) == 255


def test_grey_and_colour_convert_into_each_other() -> None:
    colour = decode_image(saved(GREY, "PNG"), 3)
    assert np.array_equal(colour, np.repeat(GREY[..., None], 3, axis=2))
    assert np.array_equal(convert_samples(colour, 1, 65535)[..., 0], GREY)
    luminance = RGB @ [0.299, 0.587, 0.114]
    assert np.abs(decode_image(PNG, 1)[..., 0] - luminance).max() <= 1


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_the_orientation_of_the_exif_data_is_applied(file_format: str) -> None:
    assert np.array_equal(decode_image(turned(RGB, file_format), 3), np.rot90(RGB, -1))


def test_the_pixel_limit_is_inclusive() -> None:
    assert decode_image(PNG, 3, max_pixels=24 * 32).shape == (24, 32, 3)
    with pytest.raises(ImageError, match="32 x 24 pixels; at most 767 in all are accepted: cut it"):
        decode_image(PNG, 3, max_pixels=24 * 32 - 1)


def test_the_longest_image_can_be_encoded_and_a_longer_one_is_refused() -> None:
    longest = np.zeros((8, 65_535), np.uint8)
    assert np.array_equal(decode_samples(encode_png(longest))[..., 0], longest)
    longer = saved(np.zeros((65_536, 8), np.uint8), "PNG")
    with pytest.raises(ImageError, match="8 x 65536 pixels; at most 65535 a side"):
        decode_samples(longer)


def test_errors_of_a_file_name_it(tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(PNG[:100])
    for name in ("part.png", "missing.png"):
        with pytest.raises(ImageError, match=name) as caught:
            read_image(tmp_path / name, 1, 65535)
        assert caught.value.reason == "unreadable"
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.reason) == (str(caught.value), "unreadable")


@pytest.mark.parametrize("array", [GREY, GREY[..., None], RGB])
def test_encoding_and_decoding_gives_the_same(array: np.ndarray) -> None:
    assert np.array_equal(decode_samples(encode_png(array)).squeeze(), array.squeeze())
