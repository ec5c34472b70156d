"""The small data set that the tests of comparisons share."""

import pytest
from default_params import default_params

from dbp_mae.comparison.subject import Subject
from dbp_mae.data.ingest import ingest
from dbp_mae.data.manifest import write_manifest
from dbp_mae.data.wirebond import render_dataset
from dbp_mae.params import Params
from dbp_mae.pretraining.images import PretrainingImages


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def subject(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("data")
    frame = ingest(params.data.source, params.data, folder / "masks")
    write_manifest(frame, folder / "validated.parquet")
    return Subject(folder / "validated.parquet", frame, folder)


@pytest.fixture(scope="session")
def images(subject: Subject, params: Params) -> PretrainingImages:
    return PretrainingImages.of(subject.frame, params.data)
