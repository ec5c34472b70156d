"""The recipes of the paper's scale, small, on folders of the data sets' own layouts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_folders import SYNSETS, TRAINING, VALIDATION, write_ade20k, write_imagenet

from benchmarks.paper_scale import GIB, Cost, expect
from dbp_mae.data.images import read_mask
from dbp_mae.data.ingest import ingest
from dbp_mae.data.labels import IGNORED
from dbp_mae.data.manifest import read_manifest
from dbp_mae.encoder import load_encoder
from dbp_mae.errors import UserError
from dbp_mae.params import Params, load_params
from pipelines.compose import compose
from pipelines.stages import evaluate, export, finetune, pretrain, report, scratch, validate
from pipelines.stages import ingest as ingest_stage

CONF = Path(__file__).parents[2] / "conf"
SMALL = [
    "pretrain.model=nano",
    "pretrain.crop=32",
    "pretrain.decoder_dim=32",
    "pretrain.decoder_depth=1",
    "pretrain.steps=3",
    "pretrain.warmup_steps=1",
    "pretrain.batch=8",
    "pretrain.workers=0",
    "finetune.tile=64",
    "finetune.decoder_width=8",
    "finetune.steps=3",
    "finetune.warmup_steps=1",
    "finetune.batch=2",
    "finetune.workers=0",
    "export.overlap=16",
]


def params_of(recipe: str, folder: Path, *overrides: str) -> Params:
    """Return a recipe's parameters, small."""
    output = folder / "params.yaml"
    compose(output, [f"recipe={recipe}", *SMALL, *overrides], CONF)
    return load_params(output)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ImageNet's recipe ran up to pretrain, its result kept, and then ADE20K's."""
    folder = tmp_path_factory.mktemp("workspace")
    write_imagenet(folder / "data/raw/imagenet")
    write_ade20k(folder / "data/raw/ADEChallengeData2016", classes=150)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = params_of("imagenet", folder)
        for stage in (ingest_stage, validate, pretrain):
            stage.main(params)
        shutil.copy("data/validated.parquet", "imagenet.parquet")
        shutil.move("models/pretrain", "models/imagenet")
        params = params_of("ade20k", folder, "data.val_share=0.3")
        for stage in (ingest_stage, validate, pretrain, finetune, scratch, export, evaluate):
            stage.main(params)
        report.main(params)
    return folder


def test_folders_of_classes_are_images_without_labels(workspace: Path) -> None:
    frame = read_manifest(workspace / "imagenet.parquet")
    assert len(frame) == len(SYNSETS) * TRAINING + VALIDATION + 3
    assert set(frame["label_state"]) == {"unlabelled"}
    assert frame["split"].to_list() == [path.split("/")[0] for path in frame["path"]]
    odd = frame.set_index(frame["path"].str.rpartition("/")[2]).loc[["grey.JPEG", "cmyk.JPEG"]]
    assert odd["channels"].to_list() == [1, 3]
    assert odd["channel_mean"].map(len).to_list() == [3, 3]


def test_encoder_of_one_run_is_fine_tuned_in_the_other(workspace: Path) -> None:
    models = workspace / "models"
    for name in pretrain.FILES:
        taken, given = models / "pretrain" / name, models / "imagenet" / name
        assert taken.read_bytes() == given.read_bytes()
    _, spec = load_encoder(models / "pretrain/encoder.safetensors")
    imagenet = read_manifest(workspace / "imagenet.parquet")
    assert (spec.image_size, spec.patch) == (32, 16)
    assert json.loads((models / "pretrain/summary.json").read_text())["images"] == int(
        (imagenet["split"] == "train").sum()
    )


def test_folders_of_the_source_are_its_splits(workspace: Path) -> None:
    frame = read_manifest(workspace / "data/validated.parquet")
    official = frame["path"].str.startswith("images/validation/")
    assert (frame["split"] == "test").to_list() == official.to_list()
    assert set(frame.loc[~official, "split"]) == {"train", "val"}


def test_zero_is_ignored_and_every_class_counted(workspace: Path) -> None:
    frame = read_manifest(workspace / "data/validated.parquet")
    row = frame.iloc[0]
    mask = read_mask(workspace / "data" / row["mask_path"])
    assert set(np.unique(mask)) == {*range(1, 151), IGNORED}
    assert row["pixels"][0] == 0
    assert row["ignored_pixels"] == (mask == IGNORED).sum() > 0


def test_report_of_150_classes_stays_readable(workspace: Path) -> None:
    page = (workspace / "reports/index.html").read_text()
    classes = pd.read_csv(workspace / "reports/evaluation/classes.csv")
    assert classes["color"].nunique() == 150
    assert "Segments 150 classes" in page
    chart = page[page.index("<svg") : page.index("</svg>")]
    assert sum(f">{name}</text>" in chart for name in classes["class"]) <= 20
    metrics = json.loads((workspace / "reports/metrics.json").read_text())
    assert metrics["miou"] is not None
    card = (workspace / "reports/model_card.md").read_text()
    assert len(card.splitlines()) < 100


@pytest.mark.parametrize("recipe", ["imagenet10", "ade20k10"])
def test_share_is_drawn_by_the_seed_from_the_images_to_divide(recipe: str, tmp_path: Path) -> None:
    def drawn(*overrides: str) -> set[str]:
        params = params_of(recipe, tmp_path, f"data.source={source}", *overrides)
        return set(ingest(source, params.data, tmp_path / "masks")["path"])

    write = write_imagenet if recipe == "imagenet10" else write_ade20k
    source = write(tmp_path / "source", *[150] * (recipe == "ade20k10"))
    everything, half = drawn("data.share=1.0"), drawn("data.share=0.5")
    held_out = {path for path in everything if "val/" in path or "validation/" in path}
    assert len(half) == round((len(everything) - VALIDATION) / 2) + VALIDATION
    assert held_out <= half < everything
    assert drawn("data.share=0.5") == half
    assert drawn("data.share=0.5", "data.seed=1") != half


def test_encoder_of_another_size_is_refused(workspace: Path, tmp_path: Path) -> None:
    given = workspace / "models/imagenet"
    params = params_of("ade20k", tmp_path, "pretrain.model=tiny", f"pretrain.source={given}")
    with pytest.raises(UserError, match=r"\('nano', 16, 3\), but params.yaml has \('tiny', 16, 3"):
        pretrain.main(params)
    params = params_of("ade20k", tmp_path, f"pretrain.source={tmp_path}")
    with pytest.raises(UserError, match=r"lacks encoder.safetensors, .*copy of models/pretrain"):
        pretrain.main(params)


def test_expectation_is_arithmetic() -> None:
    cost = Cost(images_per_second=100, fixed_bytes=2 * GIB, bytes_per_image=GIB / 64, watts=500)
    whole = expect(cost, reads_per_second=30, steps=3600, batch=1000, memory=10 * GIB)
    assert (whole.hours, whole.kwh) == pytest.approx((10, 5))
    assert whole.gib == pytest.approx(2 + 1000 / 64)
    assert (whole.parts, whole.loaders) == (2, 4)
    larger = expect(cost, reads_per_second=100, steps=3600, batch=1000, memory=80 * GIB)
    assert (larger.hours, larger.parts, larger.loaders) == (whole.hours, 1, 1)


@pytest.mark.parametrize(
    ("recipe", "images", "epochs"),
    [("imagenet", 1_281_167, 800), ("imagenet10", 128_117, 800)],
)
def test_steps_are_the_epochs_that_the_recipe_says(
    recipe: str, images: int, epochs: int, tmp_path: Path
) -> None:
    compose(tmp_path / "params.yaml", [f"recipe={recipe}"], CONF)
    params = load_params(tmp_path / "params.yaml").pretrain
    assert params.steps == round(epochs * images / params.batch)
    assert params.warmup_steps == round(40 * images / params.batch)
    assert params.learning_rate == pytest.approx(1.5e-4 * params.batch / 256)


def test_classes_of_ade20k_are_150(tmp_path: Path) -> None:
    classes = params_of("ade20k", tmp_path).data.classes
    assert len(set(classes)) == 150
    assert (classes[0], classes[130], classes[149]) == ("wall", "screen", "flag")
