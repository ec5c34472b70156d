import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbp_mae.inspection.drift import STATISTICS, drift, image_statistics, reference_quantiles

Rows = list[dict[str, float]]


def rows(count: int, seed: int, mean_shift: float = 0.0) -> Rows:
    """Draw statistics of images: normal, but for a share of saturated pixels that is mostly 0."""
    random = np.random.default_rng(seed)
    return [
        {
            "mean": random.normal(0.5 + mean_shift, 0.1),
            "std": random.normal(0.2, 0.02),
            "sharpness": random.lognormal(4, 1),
            "saturated": float(random.random() * (random.random() < 0.2)),
        }
        for _ in range(count)
    ]


def drifted(observed: Rows, training: Rows) -> list[str]:
    found = drift(observed, reference_quantiles(training), len(training))
    assert [item.statistic for item in found] == list(STATISTICS)
    return [item.statistic for item in found if item.drifted]


@pytest.mark.parametrize("count", [1, 10, 100, 2000])
@pytest.mark.parametrize("training", [40, 400])
def test_images_like_those_of_training_do_not_drift(count: int, training: int) -> None:
    false_alarms = [drifted(rows(count, seed), rows(training, seed + 1000)) for seed in range(20)]
    assert sum(map(len, false_alarms)) <= 2  # of 80; the threshold is a 99 % quantile or above


def test_a_shift_by_one_standard_deviation_is_flagged_and_nothing_else() -> None:
    assert drifted(rows(300, 1, mean_shift=0.1), rows(300, 0)) == ["mean"]


def test_a_camera_that_suddenly_saturates_is_flagged() -> None:
    training = [{**row, "saturated": 0.0} for row in rows(300, 0)]
    observed = [{**row, "saturated": 0.1} for row in rows(300, 1)]
    assert drifted(observed, training) == ["saturated"]


def test_the_index_grows_with_the_shift() -> None:
    reference = reference_quantiles(rows(500, 0))
    shifts = [0, 0.03, 0.06, 0.12, 0.25]
    indices = [drift(rows(500, 1, shift), reference, 500)[0].psi for shift in shifts]
    assert indices == sorted(indices)
    assert indices[0] < 0.1


@given(st.integers(0, 255), st.sampled_from([1, 3]))
def test_a_plain_image_has_its_value_as_mean_and_no_spread(value: int, channels: int) -> None:
    assert image_statistics(np.full((9, 11, channels), value, np.uint8)) == pytest.approx(
        {
            "mean": value / 255,
            "std": 0,
            "sharpness": 0,
            "saturated": float(value in (0, 255)),
        },
        abs=1e-7,
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_numpy(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50, channels), dtype=np.uint8)
    found = image_statistics(image)
    assert found["mean"] == pytest.approx(image.mean() / 255)
    assert found["std"] == pytest.approx(image.std() / 255)
    assert found["saturated"] == np.isin(image, [0, 255]).mean()


def test_blurring_lowers_the_sharpness() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)
    blurred = (image // 2 + np.roll(image, 1, axis=1) // 2).astype(np.uint8)
    assert image_statistics(blurred)["sharpness"] < image_statistics(image)["sharpness"] / 2
