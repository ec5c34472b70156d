"""The comparison itself, on real images: fair, resumable, and with an untouched baseline."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from default_params import default_params
from torch.nn.utils import parametrize

from dbp_mae.comparison import contender as contender_module
from dbp_mae.comparison.compare import compare
from dbp_mae.comparison.contender import Contender, warm_up
from dbp_mae.comparison.plan import Plan, load_plan
from dbp_mae.comparison.results import Results
from dbp_mae.comparison.subject import Subject
from dbp_mae.data.crops import Batch
from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import write_manifest
from dbp_mae.data.wirebond import render_dataset
from dbp_mae.energy import EnergyMeter
from dbp_mae.errors import UserError
from dbp_mae.params import Params, PretrainParams
from dbp_mae.pretraining.masked_autoencoder import MaskedAutoencoder
from dbp_mae.pretraining.train import Pretraining, PretrainingImages, create_run
from pipelines import compare as command

PLAIN = {"optimizer": "adamw", "decorrelation": {"update": "none"}}
PRESERVING = {"optimizer": "muon", "decorrelation": {"update": "function-preserving"}}
WILD = {"update": "paper", "eps": 1.9, "every": 1}
QUIET = EnergyMeter([])


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    source = tmp_path_factory.mktemp("parts") / "wirebond"
    params = default_params()
    render = {"devices": 6, "views": 2, "labelled_share": 0.9, "size": 96}
    render_dataset(source, params.render.model_copy(update=render))
    data = params.data.model_copy(update={"source": source})
    small = {"steps": 6, "warmup_steps": 1, "batch": 8, "crop": 32, "validate_every": 2,
             "checkpoint_every": 2, "learning_rate": 0.001}  # fmt: skip
    tuned = {"steps": 2, "warmup_steps": 1, "batch": 2, "tile": 32, "validate_every": 2}
    return params.model_copy(
        update={
            "data": data,
            "pretrain": params.pretrain.model_copy(update=small),
            "finetune": params.finetune.model_copy(update=tuned),
            "export": params.export.model_copy(update={"overlap": 8}),
        }
    )


@pytest.fixture(scope="module")
def subject(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("data")
    frame = ingest(params.data.source, params.data, folder / "masks")
    write_manifest(frame, folder / "validated.parquet")
    return Subject(folder / "validated.parquet", frame, folder)


@pytest.fixture(scope="module")
def images(subject: Subject, params: Params) -> PretrainingImages:
    return PretrainingImages.of(subject.frame, params.data)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the comparison's lock out of the repository."""
    monkeypatch.chdir(tmp_path)


def plan(**changes: Any) -> Plan:
    content = {
        "baseline": "plain",
        "variants": {
            "plain": {"learning_rates": [0.001], "pretrain": PLAIN},
            "twin": {"learning_rates": [0.001], "pretrain": PLAIN},
            "preserving": {"learning_rates": [0.001], "pretrain": PRESERVING},
        },
        "tuning": {"seed": 0, "extensions": 0},
        "seeds": [1],
    }
    return Plan.model_validate(content | changes)


def finished(steps: Iterator[Results]) -> Results:
    *_, last = steps
    return last


def losses(results: Results) -> dict[tuple[str, int], list[float]]:
    return {
        (run.variant, run.seed): [row.val_loss for row in run.rows] for run in results.measurements
    }


@pytest.fixture(scope="module")
def whole(params: Params, subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        return finished(compare(plan(), params, subject, print))


def settings(params: Params, variant: str) -> PretrainParams:
    return plan().settings(params.pretrain)[variant]


@pytest.mark.parametrize(("steps", "warmup"), [({}, 20), ({"steps": 10}, 4)])
def test_a_variants_warm_up_is_a_share_of_its_own_steps(
    steps: dict[str, int], warmup: int, params: Params
) -> None:
    common = params.pretrain.model_copy(update={"steps": 50, "warmup_steps": 7})
    other = {"learning_rates": [0.001], "pretrain": PLAIN}
    own = {"learning_rates": [0.001], "warmup": 0.4, "pretrain": {**PLAIN, **steps}}
    found = plan(variants={"plain": other, "slow": own}).settings(common)
    assert {name: each.warmup_steps for name, each in found.items()} == {"plain": 7, "slow": warmup}


def test_equal_settings_give_equal_losses(whole: Results) -> None:
    found = losses(whole)
    assert found["plain", 1] == found["twin", 1]
    assert found["plain", 1] != found["preserving", 1]
    assert [row.step for row in whole.measurements[0].rows] == [2, 4, 6]


def test_all_variants_see_the_same_batches_and_begin_alike(
    params: Params, images: PretrainingImages
) -> None:
    plain, preserving = (settings(params, name) for name in ("plain", "preserving"))
    for step in range(3):
        for one, other in zip(
            images.batches(plain)[step], images.batches(preserving)[step], strict=True
        ):
            assert torch.equal(one, other)
    runs = (create_run(images, variant) for variant in (plain, preserving))
    with torch.no_grad():
        first, second = (run.validate()["val_loss"] for run in runs)
    assert first == pytest.approx(second, rel=1e-5)


def test_the_baseline_is_untouched(
    params: Params, images: PretrainingImages, tmp_path: Path
) -> None:
    training = Contender(
        "plain", images, settings(params, "plain"), tmp_path, QUIET
    ).training  # fmt: skip
    untouched = MaskedAutoencoder(training.spec, training.params)
    assert list(training.plain_model.state_dict()) == list(untouched.state_dict())
    for module in training.plain_model.modules():
        assert not parametrize.is_parametrized(module)
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
        assert not module._backward_hooks
    decorrelated = create_run(images, settings(params, "preserving")).plain_model
    assert any(parametrize.is_parametrized(module) for module in decorrelated.modules())


@pytest.mark.parametrize("variant", ["plain", "preserving"])
def test_the_warm_up_leaves_no_trace(
    variant: str, params: Params, images: PretrainingImages
) -> None:
    chosen = settings(params, variant)
    cold, warm = (create_run(images, chosen) for _ in range(2))
    state = torch.random.get_rng_state()
    warm_up(warm, images.batches(chosen))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (warm.step, warm.seconds, warm.waited, warm.rows) == (0, 0.0, 0.0, [])
    for training in (cold, warm):
        training.advance(training.loader(images.batches(chosen)), 4)
        training.log()
    assert cold.rows[0]["val_loss"] == warm.rows[0]["val_loss"]
    assert cold.rows[0]["train_loss"] == warm.rows[0]["train_loss"]
    for name, weight in cold.plain_model.state_dict().items():
        assert torch.equal(weight, warm.plain_model.state_dict()[name]), name


def test_every_contender_is_warmed_up(
    params: Params, images: PretrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(contender_module, "warm_up", lambda training, _: seen.append(training))
    made = Contender("plain", images, settings(params, "plain"), tmp_path, QUIET)
    assert seen == [made.training]


class Killed(Exception):
    """Stands for the power cut."""


@pytest.mark.parametrize("lines", [2, 11])
def test_a_killed_comparison_goes_on_and_yields_the_same_losses(
    lines: int,
    whole: Results,
    params: Params,
    subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []

    def kill(line: str) -> None:
        said.append(line)
        if len(said) == lines:
            raise Killed

    with pytest.raises(Killed):
        finished(compare(plan(), params, subject, kill))
    resumed: list[str] = []
    results = finished(compare(plan(), params, subject, resumed.append))
    assert losses(results) == losses(whole)
    assert results.tuning == whole.tuning
    assert 15 <= lines + len(resumed) <= 16  # 9 slices for 2 x 3 runs, those of equal runs once
    again: list[str] = []
    assert losses(finished(compare(plan(), params, subject, again.append))) == losses(whole)
    assert again == []


@pytest.mark.parametrize(
    "wild",
    [
        {"learning_rates": [1e30], "pretrain": PLAIN},
        {"learning_rates": [0.001], "pretrain": {"decorrelation": WILD}},
    ],
)
def test_a_variant_that_diverges_does_not_stop_the_others(
    wild: dict[str, Any],
    params: Params,
    subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = {"learning_rates": [0.001], "pretrain": PLAIN}
    variants = {"plain": plain, "wild": wild}
    results = finished(compare(plan(variants=variants), params, subject, print))
    assert results.tuning["wild"].trials[0].loss is None
    assert not results.tuning["wild"].bracketed
    assert [run.diverged for run in results.measurements] == [False, True]
    assert len(results.measurements[0].rows) == 3


def test_energy_is_of_the_training_alone(
    params: Params, images: PretrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneWatt:
        """A counter of a machine that draws one watt: its joules are seconds."""

        part = "cpu"

        def __init__(self) -> None:
            self.last = time.perf_counter()

        def since_last(self) -> float:
            last, self.last = self.last, time.perf_counter()
            return self.last - last

    validating = []
    validate = Pretraining.validate

    def watched(training: Pretraining) -> dict[str, float]:
        start = time.perf_counter()
        columns = validate(training)
        validating.append(time.perf_counter() - start)
        return columns

    monkeypatch.setattr(Pretraining, "validate", watched)
    made = Contender("plain", images, settings(params, "plain"), tmp_path, EnergyMeter([OneWatt()]))
    validating.clear()
    start = time.perf_counter()
    while not made.finished:
        made.take_slice()
    elapsed = time.perf_counter() - start
    assert made.joules is not None
    assert made.training.seconds <= made.joules <= elapsed - sum(validating)
    assert len(validating) == 3


def test_waiting_for_batches_adds_up_over_the_rows(
    params: Params, images: PretrainingImages, tmp_path: Path
) -> None:
    made = Contender("plain", images, settings(params, "plain"), tmp_path, QUIET)
    batches, loading = made.loader, []

    def timed() -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            batch = next(batches)
            loading.append(time.perf_counter() - start)
            yield batch

    made.loader = timed()
    while not made.finished:
        made.take_slice()
    last = made.rows[-1]
    assert len(made.rows) > 1
    assert sum(loading) <= last.waited <= last.seconds


def test_the_encoders_are_judged_on_held_out_images(
    params: Params, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variants = {
        name: {"learning_rates": [0.001], "pretrain": changes}
        for name, changes in (("plain", PLAIN), ("preserving", PRESERVING))
    }
    tuned = plan(variants=variants, finetune={"seeds": [5]})
    results = finished(compare(tuned, params, subject, print))
    assert [(item.variant, item.finetune_seed) for item in results.finetuned] == [
        ("plain", 5),
        ("preserving", 5),
    ]
    assert all(0 <= (item.miou or 0) <= 1 for item in results.finetuned)
    again: list[str] = []
    assert finished(compare(tuned, params, subject, again.append)).finetuned == results.finetuned


@pytest.fixture
def workspace(
    params: Params, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project's folder with the data ingested."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(subject.folder)
    text = yaml.safe_dump(json.loads(params.model_dump_json(by_alias=True)))
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def write_plan(folder: Path, **changes: Any) -> Path:
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(plan().model_dump() | changes))
    return path


def test_the_command_writes_page_and_figures(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(write_plan(workspace))
    lines = capsys.readouterr().out.splitlines()
    assert sum("measure" in line and "left" in line for line in lines) == 9
    figures = json.loads((workspace / "reports/comparison/comparison.json").read_text())
    assert figures["environment"]["torch"] == torch.__version__.partition("+")[0]
    assert figures["headline"]["sentences"][0] in lines
    html = (workspace / "reports/comparison/index.html").read_text()
    for name in plan().variants:
        assert name in html


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baselin": "plain"}, "baselin: there is no such key"),
        ({"baseline": "nobody"}, "'nobody', which is not among variants"),
        ({"seeds": [0, 1]}, "measure with other seeds"),
        ({"seeds": []}, "seeds"),
        ({"pretrain": {"learning_rate": 1.0}}, "set by the comparison"),
        ({"pretrain": {"step": 5}}, "step: there is no such key"),
        ({"finetune": {"seeds": [0], "finetune": {"tile": 33}}}, "multiple of pretrain.patch"),
        ({"baseline": "preserving"}, "baseline 'preserving' is decorrelated"),
        ({"variants": {"plain": {"learning_rates": [0.1], "pretrain": {"crop": 32}},
                       "b": {"learning_rates": [0.1]}}}, "pretrain.crop is none of"),
        ({"variants": {"plain": {"learning_rates": [0.1], "pretrain": {"optimizer": "sgd"}},
                       "b": {"learning_rates": [0.1]}}}, "variant 'plain'"),
        ({"variants": {"plain": {"learning_rates": [0.1], "warmup": 0.4,
                                 "pretrain": {"warmup_steps": 2}},
                       "b": {"learning_rates": [0.1]}}}, "both given"),
        ({"variants": {"plain": {"learning_rates": [0.1], "warmup": 0.4,
                                 "pretrain": {"steps": "1e3"}},
                       "b": {"learning_rates": [0.1]}}}, "variant 'plain'"),
    ],
)  # fmt: skip
def test_a_bad_file_gives_one_sentence(changes: dict[str, Any], said: str, workspace: Path) -> None:
    with pytest.raises(UserError) as caught:
        command.main(write_plan(workspace, **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_files_of_the_repository_fit() -> None:
    folder = Path(__file__).parents[2] / "conf/comparison"
    for file in folder.glob("*.yaml"):
        made = load_plan(file)
        common = made.common(default_params())
        assert made.settings(common.pretrain).keys() == made.variants.keys()
    assert {file.stem for file in folder.glob("*.yaml")} == {"default", "quick"}


@pytest.mark.usefixtures("own_folder")
def test_no_image_of_a_split_is_one_sentence(params: Params, subject: Subject) -> None:
    frame: pd.DataFrame = subject.frame.assign(split="train")
    with pytest.raises(UserError, match="No image is in the split val"):
        finished(compare(plan(), params, Subject(subject.manifest, frame, subject.folder), print))


@pytest.mark.usefixtures("own_folder")
def test_what_cannot_be_fine_tuned_is_refused_before_training(
    params: Params, subject: Subject
) -> None:
    frame: pd.DataFrame = subject.frame.assign(label_state="unlabelled")
    bare, said = Subject(subject.manifest, frame, subject.folder), list[str]()
    with pytest.raises(UserError, match="none is in train, val, test"):
        finished(compare(plan(finetune={"seeds": [0]}), params, bare, said.append))
    assert not said
