"""The gate, through the real ingest: each kind of bad file is named, and good data pass."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import source_folder as folder
from default_params import default_params
from hostile_images import png, saved

from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import SPLITS, read_manifest
from dbp_mae.data.rules import LABEL_RULES
from dbp_mae.data.validation import Validation, validate
from dbp_mae.data.validation_page import render_page
from dbp_mae.errors import UserError
from pipelines.stages import ingest as ingest_stage
from pipelines.stages import validate as validate_stage


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder.write_source(tmp_path / "source")


@pytest.fixture(scope="module")
def good_manifest(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return manifest_of(folder.write_source(tmp_path_factory.mktemp("good") / "source"))


@pytest.fixture
def manifest(good_manifest: pd.DataFrame) -> pd.DataFrame:
    return good_manifest.copy()


def manifest_of(source: Path) -> pd.DataFrame:
    return ingest(source, folder.data_params(source), source.parent / "data/masks")


def judge(manifest: pd.DataFrame, tolerated_share: float = 0.0) -> Validation:
    return validate(manifest, folder.CLASSES, tolerated_share)


def failures(validation: Validation, severity: str) -> dict[str, dict[str, str]]:
    """Return the sentences by path of each failed rule of a severity."""
    return {
        outcome.rule.title: outcome.failures
        for outcome in validation.outcomes
        if not outcome.passed and outcome.rule.severity == severity
    }


def test_good_data_pass(manifest: pd.DataFrame) -> None:
    validation = judge(manifest)
    assert validation.gate_open
    assert validation.quarantine.empty
    pd.testing.assert_frame_equal(validation.validated, manifest)
    assert not failures(validation, "critical")
    assert not failures(validation, "warning")


PIXELS = folder.HEIGHT, folder.WIDTH
BINARY = np.where(folder.index_mask() == 2, 255, 0)
SCRATCH = folder.WIRE | {"label": "scratch"}
STRIP = folder.WIRE | {"shape_type": "linestrip"}


def labelme(*shapes: dict[str, Any], **changes: Any) -> bytes:
    size = {"imageWidth": folder.WIDTH, "imageHeight": folder.HEIGHT}
    return json.dumps({"shapes": shapes} | size | changes).encode()


def index_png(mask: np.ndarray) -> bytes:
    return saved(mask.astype(np.uint8), "PNG")


# What is wrong: the image's file, the label's name and file, the rule it breaks, words of the reason.
SOUND = saved(folder.photograph(99), "PNG")
READ, BLANK, RULES = "Image can be read", "Image is not blank", LABEL_RULES
BAD_IMAGES: list[tuple[str, bytes, str, str]] = [
    ("empty", b"", READ, "0 bytes"),
    ("text", b"<html>404</html>", READ, "not an image"),
    ("cut off", SOUND[:-90], READ, "cannot be read"),
    ("bomb", png(50_000, 50_000, 8, 0, b""), READ, "50000 x 50000 pixels"),
    ("too small", index_png(np.eye(4)), READ, "4 x 4"),
    ("black", index_png(np.zeros(PIXELS)), BLANK, "is blank"),
    ("of one colour", index_png(np.full((*PIXELS, 3), (9, 99, 200))), BLANK, "is blank"),
]
BAD_LABELS: list[tuple[str, str, bytes, str, str]] = [
    ("0 and 255", "png", index_png(BINARY), RULES["binary_mask"], "(1 is 'wire')"),
    ("value 7", "png", index_png(np.full(PIXELS, 7)), RULES["unknown_class"], "value 7"),
    ("in colour", "png", saved(folder.index_mask(), "PNG", "RGB"), RULES["unsupported"], "RGB"),
    ("turned", "png", index_png(np.ones(PIXELS[::-1])), RULES["wrong_size"], "32 x 48"),
    ("cut off", "png", index_png(np.ones(PIXELS))[:-20], RULES["unreadable"], "damaged"),
    ("empty", "png", b"", RULES["unsupported"], "not a PNG"),
    ("JPEG", "jpg", saved(folder.index_mask(), "JPEG"), RULES["unsupported"], "not a PNG"),
    ("YOLO", "txt", b"0 0.5 0.5 0.1 0.1", RULES["unsupported"], "not a PNG"),
    ("scratch", "json", labelme(SCRATCH), RULES["unknown_class"], "'scratch'"),
    ("line", "json", labelme(STRIP), RULES["unsupported"], "'linestrip'"),
    ("large", "json", labelme(imageWidth=640), RULES["wrong_size"], "640 x 32"),
    ("COCO", "json", b'{"annotations": []}', RULES["unreadable"], "shapes"),
]
BAD_STATES: list[tuple[str, bytes | None, str]] = [
    ("clean", labelme(folder.WIRE), "parts.csv says that the image is clean"),
    ("labelled", None, "is labelled, but it has no label file"),
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Validation:
    """A sound folder to which every kind of bad file was added, ingested and judged."""
    source = folder.write_source(tmp_path_factory.mktemp("hostile") / "source")
    (source / "labels").mkdir()
    for name, data, _, _ in BAD_IMAGES:
        (source / f"images/p7_{name}.png").write_bytes(data)
    for index, (name, ending, data, _, _) in enumerate(BAD_LABELS):
        kind = "labels" if ending in ("json", "txt") else "masks"
        folder.write_png(source / f"images/p8_{name}.png", folder.photograph(100 + index))
        (source / f"{kind}/p8_{name}.{ending}").write_bytes(data)
    for index, (state, data, _) in enumerate(BAD_STATES):
        folder.write_png(source / f"images/p9_{state}.png", folder.photograph(200 + index))
        if data:
            (source / f"labels/p9_{state}.json").write_bytes(data)
    rows = [{"image": f"p9_{s}.png", "group": "p9", "state": s} for s, _, _ in BAD_STATES]
    folder.write_parts(source, rows)
    return judge(manifest_of(source))


HOSTILE = [
    *((f"p7_{name}", rule, words) for name, _, rule, words in BAD_IMAGES),
    *((f"p8_{name}", rule, words) for name, _, _, rule, words in BAD_LABELS),
    *((f"p9_{state}", RULES["contradiction"], words) for state, _, words in BAD_STATES),
]


@pytest.mark.parametrize(("name", "rule", "words"), HOSTILE, ids=[name for name, _, _ in HOSTILE])
def test_bad_file_is_quarantined_with_its_reason(
    hostile: Validation, name: str, rule: str, words: str
) -> None:
    found = hostile.quarantine.set_index("path").loc[[f"images/{name}.png"]]
    assert found["rule"].to_list() == [rule]
    assert words in found["reason"].item()


def test_bad_files_take_no_good_one_with_them(
    hostile: Validation, good_manifest: pd.DataFrame
) -> None:
    assert len(hostile.quarantine) == len(HOSTILE)
    assert list(hostile.validated["path"]) == list(good_manifest["path"])
    assert not hostile.gate_open
    assert judge(hostile.manifest, tolerated_share=0.7).gate_open


def test_every_kind_of_label_error_was_met(hostile: Validation) -> None:
    assert set(hostile.manifest["label_error_kind"].dropna()) == set(LABEL_RULES)


def copy(frame: pd.DataFrame, source: Path, same_split: bool) -> tuple[str, str]:
    """Replace an image by a copy of another one, in the same split or not; return both paths."""
    first = frame.iloc[0]
    others = frame[(frame["group"] != first["group"])]
    other = others[(others["split"] == first["split"]) == same_split].iloc[0]
    shutil.copy(source / first["path"], source / other["path"])
    return first["path"], other["path"]


def test_copy_in_another_split_names_both(source: Path) -> None:
    paths = copy(manifest_of(source), source, same_split=False)
    validation = judge(manifest_of(source))
    found = failures(validation, "critical")["No copy in another split"]
    assert paths[1] in found[paths[0]]
    assert paths[0] in found[paths[1]]
    assert not validation.gate_open
    assert not failures(validation, "warning")


def test_copy_in_the_same_split_warns_of_the_second(source: Path) -> None:
    first, second = copy(manifest_of(source), source, same_split=True)
    validation = judge(manifest_of(source))
    assert failures(validation, "warning") == {
        "No copy in its own split": {second: f"It is the same file as {first}."}
    }
    assert validation.gate_open


def test_look_alike_in_another_split_warns(source: Path) -> None:
    """The same photograph, a little brighter: other bytes, the same perceptual hash."""
    frame = manifest_of(source)
    other = frame[frame["split"] != frame["split"].iloc[0]]["path"].iloc[0]
    folder.write_png(source / other, folder.photograph(0) + 3)
    validation = judge(manifest_of(source))
    found = failures(validation, "warning")["No look-alike in another split"]
    assert set(found) == {"images/p0_f0.png", other}
    assert validation.gate_open


@pytest.mark.parametrize(
    ("picture", "rule", "words"),
    [
        (np.where(folder.photograph(0) > 120, 255, 0), "Exposure keeps detail", "100%"),
        (np.tile(np.linspace(20, 230, folder.WIDTH), (32, 1)), "Sharpness is usual", "outside"),
    ],
)
def test_odd_pictures_warn(source: Path, picture: np.ndarray, rule: str, words: str) -> None:
    folder.write_png(source / "images/p0_f0.png", picture.astype(np.uint8))
    validation = judge(manifest_of(source))
    assert words in failures(validation, "warning")[rule]["images/p0_f0.png"]
    assert validation.gate_open


@pytest.mark.parametrize(("white_level", "warns"), [(65535, True), (4095, False)])
def test_a_12_bit_camera_needs_its_white_level(source: Path, white_level: int, warns: bool) -> None:
    for part in range(folder.PARTS):
        for frame in range(folder.FRAMES):
            picture = folder.photograph(folder.FRAMES * part + frame).astype(np.uint16) * 16
            folder.write_png(source / f"images/p{part}_f{frame}.png", picture)
    params = folder.data_params(source, white_level=white_level)
    validation = judge(ingest(source, params, source.parent / "data/masks"))
    rule = "16-bit values reach towards white"
    assert (rule in failures(validation, "warning")) == warns
    assert validation.gate_open
    assert (f"{rule} (not so: 12)" in validation.warnings) == warns


def test_part_in_two_splits_is_quarantined(manifest: pd.DataFrame) -> None:
    manifest.loc[0, "split"] = SPLITS[(SPLITS.index(manifest.loc[0, "split"]) + 1) % 3]
    found = failures(judge(manifest), "critical")["Part is in one split"]
    assert set(found) == {"images/p0_f0.png", "images/p0_f1.png"}


def test_unknown_label_state_is_quarantined(manifest: pd.DataFrame) -> None:
    manifest.loc[0, "label_state"] = "perhaps"
    assert failures(judge(manifest), "critical") == {
        "Label state is known": {"images/p0_f0.png": "The label state 'perhaps' is unknown."}
    }


@pytest.mark.parametrize("split", SPLITS)
def test_split_that_quarantine_emptied_closes_the_gate(manifest: pd.DataFrame, split: str) -> None:
    manifest.loc[manifest["split"] == split, "image_error"] = "Broken."
    validation = judge(manifest, tolerated_share=1.0)
    assert not validation.gate_open
    assert f"No labelled image is left in {split}" in validation.complaint


@pytest.mark.parametrize("split", SPLITS)
def test_class_must_be_trained_and_should_be_tested(manifest: pd.DataFrame, split: str) -> None:
    without = manifest["pixels"].map(lambda pixels: [*pixels[:2], 0])
    manifest["pixels"] = manifest["pixels"].where(manifest["split"] != split, without)
    validation = judge(manifest)
    severity = "critical" if split == "train" else "warning"
    sentence = f"No image left in {split} shows 'ball': label it in more parts."
    assert failures(validation, severity) == {f"Every class in {split}": {"ball": sentence}}
    assert validation.gate_open == (split != "train")
    assert (sentence in validation.complaint) == (split == "train")


@pytest.mark.parametrize("split", ["val", "test"])
def test_split_without_foreground_closes_the_gate(manifest: pd.DataFrame, split: str) -> None:
    empty = manifest["pixels"].map(lambda pixels: [pixels[0], 0, 0])
    manifest["pixels"] = manifest["pixels"].where(manifest["split"] != split, empty)
    validation = judge(manifest)
    assert failures(validation, "critical") == {f"Some class in {split}": {}}
    assert not validation.gate_open
    assert f"change data.seed or data.{split}_share" in validation.complaint


def test_excluded_images_are_not_judged(manifest: pd.DataFrame) -> None:
    manifest.loc[0, ["label_state", "image_error"]] = ["excluded", "Broken."]
    validation = judge(manifest)
    assert validation.gate_open
    assert list(validation.validated["path"]) == list(manifest["path"][1:])
    assert validation.judged == len(manifest) - 1


@pytest.mark.parametrize(("bad", "is_open"), [(3, True), (4, False)])
def test_tolerated_share_is_the_last_that_passes(
    manifest: pd.DataFrame, bad: int, is_open: bool
) -> None:
    train = manifest.index[manifest["split"] == "train"]
    manifest.loc[train[:bad], "image_error"] = "Broken."
    assert judge(manifest, tolerated_share=0.25).gate_open == is_open


def test_complaint_names_ten_files_and_counts_the_rest(manifest: pd.DataFrame) -> None:
    manifest["image_error"] = "Broken."
    complaint = judge(manifest).complaint
    assert complaint.count(": Broken.") == 10
    assert complaint.endswith("and 2 more.")


@pytest.mark.parametrize("bad", [0, 3, 12])
def test_page_opens_offline_and_names_each_file(manifest: pd.DataFrame, bad: int) -> None:
    manifest.loc[manifest.index < bad, "image_error"] = "Broken <b>& bad</b>."
    page = render_page(judge(manifest), folder.CLASSES)
    assert ("The gate is open" in page) == (bad == 0)
    assert page.count("Broken &lt;b&gt;&amp; bad&lt;/b&gt;.") == bad
    assert "_container" not in page, "the histograms name the splits"
    assert not re.search(r"@import|url\((?!#)|src=|href=\"(?!#)|<b>", page)


@pytest.mark.parametrize("is_good", [True, False])
def test_behind_a_closed_gate_are_no_validated_images(
    source: Path, monkeypatch: pytest.MonkeyPatch, is_good: bool
) -> None:
    params = default_params().model_copy(update={"data": folder.data_params(source)})
    if not is_good:
        folder.write_png(source / "masks/p0_f0.png", BINARY)
    monkeypatch.chdir(source.parent)
    ingest_stage.main(params)
    shutil.copy("data/manifest.parquet", "data/validated.parquet")  # of an earlier run
    if is_good:
        validate_stage.main(params)
    else:
        with pytest.raises(UserError, match=r"p0_f0.png: masks/p0_f0.png holds no value but 0 and"):
            validate_stage.main(params)
    quarantine = pd.read_csv("data/quarantine.csv")
    assert list(quarantine) == ["path", "rule", "reason"]
    assert len(quarantine) == 1 - is_good
    validated = Path("data/validated.parquet")
    assert validated.exists() == is_good
    assert not is_good or len(read_manifest(validated)) == 12
    verdict = "open" if is_good else "closed"
    assert f"The gate is {verdict}" in Path("reports/validation.html").read_text(encoding="utf-8")
