"""The evaluation of a real, tiny model file on scenes whose outcome is known by hand."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from default_params import default_params
from onnx import helper
from pandas.testing import assert_frame_equal

from dbp_mae.data.labels import IGNORED
from dbp_mae.data.manifest import manifest_from_rows, write_manifest
from dbp_mae.errors import UserError
from dbp_mae.evaluation.evaluate import Evaluation, _pixel_metrics, evaluate
from dbp_mae.evaluation.judging import Judged
from dbp_mae.evaluation.overlays import FALSE, GAP, MISSED, RIGHT, UNJUDGED, draw_overlay
from dbp_mae.inspection.images import encode_png, read_image
from dbp_mae.inspection.model_card import ModelCard
from dbp_mae.inspection.segmenter import Segmenter
from dbp_mae.inspection.verdict import verdict
from dbp_mae.params import Params
from pipelines.stages import evaluate as stage

# What the tiny model calls a pixel depends on its brightness alone, see conftest.py.
DARK, WIRE, WEAK_EPOXY, EPOXY = 20, 128, 185, 240
HEIGHT, WIDTH = 80, 100
TOP, BOTTOM = np.s_[8:20, 10:90], np.s_[50:62, 30:44]


@dataclass(frozen=True)
class Scene:
    """What an image shows, and what its mask says."""

    group: str
    shows: list[tuple[tuple[slice, slice], int]]
    labelled: list[tuple[tuple[slice, slice], int]]

    def image(self) -> np.ndarray:
        return self._paint(self.shows, DARK)

    def mask(self) -> np.ndarray:
        return self._paint(self.labelled, 0)

    @staticmethod
    def _paint(areas: list[tuple[tuple[slice, slice], int]], ground: int) -> np.ndarray:
        canvas = np.full((HEIGHT, WIDTH), ground, dtype=np.uint8)
        for area, value in areas:
            canvas[area] = value
        return canvas


SCENES = {
    "found": Scene("A", [(TOP, WIRE), (BOTTOM, EPOXY)], [(TOP, 1), (BOTTOM, 2)]),
    "missed": Scene("A", [(TOP, WIRE)], [(TOP, 1), (BOTTOM, 2)]),
    "false": Scene("B", [(TOP, WIRE), (BOTTOM, EPOXY)], [(TOP, 1)]),
    "clean": Scene("B", [], []),
    "weak": Scene("C", [(BOTTOM, WEAK_EPOXY)], [(BOTTOM, 2)]),
    "ignored": Scene("C", [(TOP, WIRE), (BOTTOM, EPOXY)], [(TOP, 1), (BOTTOM, IGNORED)]),
}


@dataclass(frozen=True)
class Data:
    """A validated data set on disk."""

    source: Path
    folder: Path
    frame: pd.DataFrame


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("data")
    source, folder = root / "source", root / "data"
    (source / "images").mkdir(parents=True)
    (folder / "masks").mkdir(parents=True)
    rows = [
        {"path": "images/gone.png", "label_state": "unlabelled", "group": "D", "split": "test"},
        {"path": "images/gone2.png", "label_state": "labelled", "group": "E", "split": "train"},
    ]
    for name, scene in SCENES.items():
        (source / f"images/{name}.png").write_bytes(encode_png(scene.image()))
        (folder / f"masks/{name}.png").write_bytes(encode_png(scene.mask()))
        paths = {"path": f"images/{name}.png", "mask_path": f"masks/{name}.png"}
        rows.append({**paths, "label_state": "labelled", "group": scene.group, "split": "test"})
    return Data(source, folder, manifest_from_rows(rows))


@pytest.fixture(scope="module")
def params() -> Params:
    return with_classes(default_params(), ["wire", "epoxy"])


def with_classes(params: Params, classes: list[str]) -> Params:
    update = {"classes": classes, "defects": classes[-1:]}
    return params.model_copy(update={"data": params.data.model_copy(update=update)})


@pytest.fixture(scope="module")
def result(data: Data, params: Params, tiny_model: Path) -> Evaluation:
    return evaluate(tiny_model, tiny_model, data.frame, data.source, data.folder, params)


def test_defects_and_verdicts_by_hand(result: Evaluation) -> None:
    assert result.metrics["defects"] == {
        "labelled": 3,
        "found_share": 0.6667,
        "false_per_image": 0.1667,
    }
    images = result.metrics["images"]
    assert (images["test"], images["groups"]) == (6, 3)
    assert (images["defective"], images["good"]) == (3, 2)  # the one of "ignored" is unknown
    assert images["escape_share"] == 0.3333
    assert images["overkill_share"] == 0.5
    assert images["escape_low"] < images["escape_share"] < images["escape_high"]


def test_pixel_metrics_are_those_of_the_served_masks(
    result: Evaluation, data: Data, tiny_model: Path
) -> None:
    segmenter = Segmenter.load(tiny_model)
    held_out = [read_image(data.source / f"images/{name}.png", 1) for name in SCENES]
    served = np.stack([segmenter.segment(image).mask for image in held_out])
    labelled = np.stack([scene.mask() for scene in SCENES.values()])
    judged = labelled != IGNORED
    expected = {}
    for index, name in enumerate(["wire", "epoxy"], start=1):
        a, b = (served == index) & judged, (labelled == index) & judged
        expected[name] = (a & b).sum() / (a | b).sum()
    assert result.metrics["iou"] == pytest.approx(expected, abs=1e-4)
    assert result.metrics["miou"] == pytest.approx(sum(expected.values()) / 2, abs=1e-4)
    pixels = [(labelled == 1).sum(), (labelled == 2).sum()]
    assert result.classes["pixels"].tolist() == pixels


def test_verdicts_are_those_of_the_line(result: Evaluation, data: Data, tiny_model: Path) -> None:
    segmenter = Segmenter.load(tiny_model)
    verdicts = result.per_image.set_index("path")["verdict"]
    for name in SCENES:
        image = read_image(data.source / f"images/{name}.png", 1)
        assert verdicts[f"images/{name}.png"] == verdict(segmenter.segment(image).objects)


def test_the_sweep_passes_through_the_shipped_threshold(
    result: Evaluation, tiny_card: ModelCard
) -> None:
    sweep = result.thresholds.set_index("min_score")
    shipped = sweep.loc[tiny_card.min_score].round(4).to_dict()
    assert shipped["found_share"] == result.metrics["defects"]["found_share"]
    assert shipped["false_per_image"] == result.metrics["defects"]["false_per_image"]
    assert shipped["escape_share"] == result.metrics["images"]["escape_share"]
    assert shipped["overkill_share"] == result.metrics["images"]["overkill_share"]


def test_a_higher_threshold_finds_less(result: Evaluation) -> None:
    sweep = result.thresholds
    assert sweep["min_score"].tolist()[:: len(sweep) - 1] == [0.0, 1.0]
    assert sweep["found_share"].is_monotonic_decreasing
    assert sweep["escape_share"].is_monotonic_increasing
    assert sweep["overkill_share"].is_monotonic_decreasing
    # The weak defect scores 0.82: it is found at 0.8 and lost at 0.85.
    by_score = sweep.set_index("min_score")["found_share"]
    assert by_score[0.8] == pytest.approx(2 / 3)
    assert by_score[0.85] == pytest.approx(1 / 3)


def each_a_part(data: Data, params: Params, tiny_model: Path) -> Evaluation:
    """Evaluate with every image a part of its own, enough of them for intervals."""
    frame = data.frame.assign(group=data.frame["path"])
    return evaluate(tiny_model, tiny_model, frame, data.source, data.folder, params)


def test_a_control_that_is_the_model_itself_gains_nothing(
    data: Data, params: Params, tiny_model: Path
) -> None:
    result = each_a_part(data, params, tiny_model)
    metrics = result.metrics
    assert metrics["scratch_miou"] == metrics["miou"]
    assert (metrics["gain"], metrics["gain_low"], metrics["gain_high"]) == (0.0, 0.0, 0.0)
    assert metrics["miou_low"] < metrics["miou"] < metrics["miou_high"]
    assert result.classes["scratch_iou"].tolist() == result.classes["iou"].tolist()


def test_a_second_evaluation_gives_the_same(data: Data, params: Params, tiny_model: Path) -> None:
    result, again = (each_a_part(data, params, tiny_model) for _ in range(2))
    assert result.metrics["miou_low"] is not None
    assert again.metrics == result.metrics
    assert_frame_equal(again.thresholds, result.thresholds)


def test_without_a_control_the_gain_is_unknown(
    data: Data, params: Params, tiny_model: Path
) -> None:
    alone = evaluate(tiny_model, None, data.frame, data.source, data.folder, params)
    assert alone.metrics["scratch_miou"] is None
    assert alone.metrics["gain"] is None
    assert alone.classes["scratch_iou"].isna().all()


def test_a_class_that_a_resample_lacks_does_not_raise_the_interval(
    data: Data, params: Params, tiny_model: Path
) -> None:
    """Wire is right in all parts; epoxy is missed, and labelled in one of them alone."""
    missed, ignored = (
        data.frame[data.frame["path"] == f"images/{name}.png"] for name in ("missed", "ignored")
    )
    parts = pd.concat([missed, *(ignored.assign(group=str(part)) for part in range(4))])
    metrics = evaluate(tiny_model, None, parts, data.source, data.folder, params).metrics
    assert metrics["iou"] == {"wire": 1.0, "epoxy": 0.0}
    assert (metrics["miou_low"], metrics["miou"], metrics["miou_high"]) == (0.5, 0.5, 0.5)


def interval(hits: list[int], labelled: int) -> tuple[float | None, float, float | None]:
    """Return low, mIoU and high over groups that each have so many of the labelled pixels right."""
    judged = [
        Judged(np.array([[0, 0], [labelled - right, right]]), [], [], seconds=0.0) for right in hits
    ]
    metrics = _pixel_metrics(judged, None, pd.Series(range(len(hits))), seed=0)
    return metrics["miou_low"], metrics["miou"], metrics["miou_high"]


def test_the_interval_of_five_groups_is_that_of_their_draws() -> None:
    """One that has all right is drawn never in 33 % of the resamples, four times and more in 0.7 %,
    three times and more in 5.8 %.
    """
    assert interval([0, 0, 0, 0, 10], labelled=10) == (0.0, 0.2, 0.6)


def test_fewer_than_five_groups_have_no_interval() -> None:
    assert interval([0, 0, 0, 10], labelled=10) == (None, 0.25, None)


def test_the_interval_of_many_groups_is_that_of_their_mean() -> None:
    """The mIoU is here the mean of the groups' shares, so by the central limit theorem it is normal.

    A quantile of 2000 draws has a standard error of 0.06 of the mean's: sqrt(0.025 * 0.975 / 2000)
    by the normal density at 1.96, 0.058. Three of them are allowed.
    """
    hits = list(range(100))
    low, miou, high = interval(hits, labelled=99)
    assert low is not None
    assert high is not None
    error = np.std(hits) / 99 / len(hits) ** 0.5
    assert miou == pytest.approx(0.5)
    assert low == pytest.approx(0.5 - 1.96 * error, abs=0.18 * error)
    assert high == pytest.approx(0.5 + 1.96 * error, abs=0.18 * error)


def test_without_a_labelled_class_the_miou_is_unknown(
    data: Data, params: Params, tiny_model: Path
) -> None:
    clean = data.frame[data.frame["path"] == "images/clean.png"]
    parts = pd.concat([clean.assign(group=str(part)) for part in range(5)])
    metrics = evaluate(tiny_model, tiny_model, parts, data.source, data.folder, params).metrics
    for figure in ("miou", "miou_low", "miou_high", "gain", "gain_low", "gain_high"):
        assert metrics[figure] is None


def test_one_group_has_no_interval(data: Data, params: Params, tiny_model: Path) -> None:
    one = data.frame[data.frame["group"] == "A"]
    metrics = evaluate(tiny_model, None, one, data.source, data.folder, params).metrics
    assert metrics["images"]["groups"] == 1
    assert metrics["miou"] is not None
    assert metrics["miou_low"] is None
    assert metrics["miou_high"] is None


def test_without_defect_classes_only_pixels_are_judged(
    data: Data, params: Params, tiny_model: Path, tiny_card: ModelCard, tmp_path: Path
) -> None:
    structure = [item.model_copy(update={"defect": False}) for item in tiny_card.classes]
    file = onnx.load(tiny_model)
    helper.set_model_props(file, tiny_card.model_copy(update={"classes": structure}).to_metadata())
    onnx.save(file, tmp_path / "structure.onnx")
    result = evaluate(
        tmp_path / "structure.onnx", None, data.frame, data.source, data.folder, params
    )
    assert result.metrics["miou"] is not None
    assert result.metrics["defects"]["found_share"] is None
    assert result.metrics["defects"]["false_per_image"] is None
    images = result.metrics["images"]
    assert {images[f"{name}_share"] for name in ("escape", "overkill")} == {None}
    assert images["test"] == 6
    assert result.thresholds.drop(columns="min_score").isna().all(axis=None)


def test_the_worst_images_are_drawn(result: Evaluation, params: Params) -> None:
    worst = result.per_image.iloc[: params.evaluate.overlays]
    assert set(worst["path"].iloc[:2]) == {"images/missed.png", "images/false.png"}
    assert list(result.overlays) == worst["overlay"].tolist()
    for picture in result.overlays.values():
        assert picture.shape == (HEIGHT, 2 * WIDTH + GAP, 3)


def test_overlay_colours() -> None:
    image = np.full((12, 30, 1), 60, dtype=np.uint8)
    prediction, target = np.zeros((2, 12, 30), dtype=np.uint8)
    prediction[2:8, 2:8] = target[2:8, 2:8] = 1
    prediction[2:8, 12:18] = 1
    target[2:8, 22:28] = 1
    picture = draw_overlay(image, prediction, target)
    assert (picture[:, :30] == 60).all()
    judged = picture[:, 30 + GAP :]
    assert tuple(judged[2, 2]) == RIGHT
    assert tuple(judged[2, 12]) == FALSE
    assert tuple(judged[2, 22]) == MISSED
    assert (judged[10] == 60).all()
    assert (
        draw_overlay(np.zeros((3000, 1500, 3), np.uint8), *np.zeros((2, 3000, 1500))).shape[0]
        == 1024
    )


def test_ignored_pixels_are_grey_whatever_is_predicted() -> None:
    image = np.full((12, 30, 1), 60, dtype=np.uint8)
    prediction, target = np.zeros((2, 12, 30), dtype=np.uint8)
    target[2:8, 2:8] = target[2:8, 12:18] = IGNORED
    prediction[2:8, 12:18] = 1
    judged = draw_overlay(image, prediction, target)[:, 30 + GAP :]
    assert tuple(judged[2, 2]) == tuple(judged[2, 12]) == UNJUDGED
    assert len(np.unique(judged[target == IGNORED], axis=0)) == 2  # the rim, and the paler inside


def test_no_held_out_label_is_a_sentence(data: Data, params: Params, tiny_model: Path) -> None:
    unlabelled = data.frame[data.frame["label_state"] == "unlabelled"]
    with pytest.raises(UserError, match=r"test split is labelled.*data\.test_share"):
        evaluate(tiny_model, None, unlabelled, data.source, data.folder, params)


def test_a_file_for_other_classes_is_refused(data: Data, params: Params, tiny_model: Path) -> None:
    other = with_classes(params, ["wire", "glue"])
    with pytest.raises(UserError, match=r"segmenter\.onnx was made for.*epoxy.*glue"):
        evaluate(tiny_model, None, data.frame, data.source, data.folder, other)


def test_the_stage_writes_what_the_report_reads(
    data: Data,
    params: Params,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data.folder)
    (tmp_path / "models").mkdir()
    for name in ("segmenter", "scratch"):
        (tmp_path / f"models/{name}.onnx").write_bytes(tiny_model.read_bytes())
    write_manifest(data.frame, tmp_path / "data/validated.parquet")
    update = {"source": data.source}
    stage.main(params.model_copy(update={"data": params.data.model_copy(update=update)}))

    written = {str(path.relative_to("reports")) for path in Path("reports").rglob("*.*")}
    tables = {f"evaluation/{name}.csv" for name in ("classes", "per_image", "thresholds")}
    assert tables | {"metrics.json", "evaluation/overlays/01.png"} <= written
    metrics = json.loads(Path("reports/metrics.json").read_text())
    assert list(metrics["iou"]) == ["wire", "epoxy"]
