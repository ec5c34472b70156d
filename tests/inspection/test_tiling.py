import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dbp_mae.inspection.tiling import blend_tiles, blending_window, cut_tiles, tile_origins

Sizes = tuple[int, int, int, int]


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    """Draw height, width, tile and overlap."""
    tile = draw(st.integers(2, 24))
    return (
        draw(st.integers(1, 70)),
        draw(st.integers(1, 70)),
        tile,
        draw(st.integers(0, tile - 1)),
    )


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(sizes())
def test_tiles_cover_every_pixel_and_none_beyond(case: Sizes) -> None:
    length, _, tile, overlap = case
    origins = tile_origins(length, tile, overlap)
    covered = np.zeros(max(length, tile), bool)
    for origin in origins:
        covered[origin : origin + tile] = True
    assert covered.all()
    assert origins[0] == 0
    assert origins[-1] == max(0, length - tile)
    steps = np.diff(origins)
    assert (steps > 0).all()
    assert (steps <= tile - overlap).all()


@given(sizes())
@settings(deadline=None)
def test_blending_a_function_of_pixels_gives_it_on_the_whole_image(case: Sizes) -> None:
    height, width, tile, overlap = case
    image = random_image(height, width)
    tiles, origins = cut_tiles(image, tile, overlap)
    assert np.shape(tiles) == (len(origins), tile, tile, 3)

    def per_pixel(pixels: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.sqrt(pixels.astype(np.float32)), -1, -3)

    blended = blend_tiles(per_pixel(np.stack(tiles)), origins, height, width, overlap)
    assert blended.dtype == np.float32
    np.testing.assert_allclose(blended, per_pixel(image), rtol=1e-5, atol=1e-5)


@given(sizes(), st.integers(0, 1000))
@settings(deadline=None)
def test_blended_probabilities_sum_to_one(case: Sizes, seed: int) -> None:
    height, width, tile, overlap = case
    tiles, origins = cut_tiles(random_image(height, width), tile, overlap)
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(4), size=(len(tiles), tile, tile))
    stream = (item.astype(np.float32) for item in np.moveaxis(probabilities, -1, 1))
    blended = blend_tiles(stream, origins, height, width, overlap)
    np.testing.assert_allclose(blended.sum(axis=0), 1, rtol=1e-5)
    assert blended.min() >= 0


@given(sizes())
def test_weights_are_positive_symmetric_and_highest_in_the_middle(case: Sizes) -> None:
    _, _, tile, overlap = case
    window = blending_window(tile, overlap)
    assert window.min() > 0
    assert window.max() == window[tile // 2, tile // 2]
    assert np.array_equal(window, window[::-1, ::-1])
    assert np.array_equal(window, window.T)


def test_tiles_are_no_copies_of_the_image() -> None:
    image = random_image(50, 70)
    tiles, _ = cut_tiles(image, tile=16, overlap=12)
    assert all(np.may_share_memory(tile, image) for tile in tiles)


@given(sizes())
def test_weights_rise_linearly_over_the_overlap(case: Sizes) -> None:
    _, _, tile, overlap = case
    window = blending_window(2 * tile, overlap)  # an overlap of half a tile or less reaches 1
    expected = np.arange(1, overlap + 2) / (overlap + 1)
    np.testing.assert_allclose(window[tile, : overlap + 1], expected, rtol=1e-6)
    assert window.max() == 1


def test_two_tiles_fade_into_each_other_over_their_overlap() -> None:
    tile, overlap = 16, 5
    planes = [np.full((1, tile, tile), value, np.float32) for value in (0, 1)]
    blended = blend_tiles(planes, [(0, 0), (0, tile - overlap)], tile, 2 * tile - overlap, overlap)
    row = [*[0] * 11, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, *[1] * 11]
    np.testing.assert_allclose(blended[0], np.tile(row, (tile, 1)), rtol=1e-6)


def test_a_small_image_is_mirrored_to_the_size_of_a_tile() -> None:
    image = random_image(9, 20)
    tiles, origins = cut_tiles(image, 16, 4)
    assert origins == [(0, 0), (0, 4)]
    assert np.array_equal(tiles[0][:9], image[:, :16])
    assert np.array_equal(tiles[0][9:], image[1:8, :16][::-1])
