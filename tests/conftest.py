"""A small real model file under the contract, for every test that inspects images."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dbp_mae.inspection.model_card import ClassInfo, ModelCard

TILE = 64
# The logits are lines over the brightness v: background 0, wire 40 v - 14, epoxy 100 v - 56. So a
# pixel is background below 0.35, wire below 0.7 and epoxy (the defect) above.
SLOPES = np.array([0, 40, 100], np.float32)
INTERCEPTS = np.array([0, -14, -56], np.float32)


@pytest.fixture(scope="session")
def tiny_card() -> ModelCard:
    """The card of `tiny_model`."""
    ranks = np.linspace(0, 1, 21)
    return ModelCard(
        classes=[
            ClassInfo(name="wire", color="#2f7ed8", defect=False),
            ClassInfo(name="epoxy", color="#d8572f", defect=True),
        ],
        channels=1,
        white_level=65535,
        tile=TILE,
        overlap=16,
        min_score=0.5,
        min_area=4,
        mean=[0.5],
        std=[0.25],
        git_revision="0123abc",
        data_sha256="d" * 64,
        params_sha256="e" * 64,
        encoder_sha256="f" * 64,
        validation={"miou": 0.75},
        energy_kwh=0.001,
        co2_kg=0.0004,
        training_images=100,
        reference={
            "mean": ranks.tolist(),
            "std": (ranks / 2).tolist(),
            "sharpness": (ranks * 1000).tolist(),
            "saturated": ranks.tolist(),
        },
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter that judges each pixel by its brightness: background, wire or epoxy."""
    classes = len(SLOPES)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["tiles"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["values", "white"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "slopes", "intercepts"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", TILE, TILE, 1])],
        [
            helper.make_tensor_value_info(
                "probabilities", TensorProto.FLOAT, ["batch", classes, TILE, TILE]
            )
        ],
        [
            numpy_helper.from_array(np.array(255, np.float32), "white"),
            numpy_helper.from_array(SLOPES.reshape(classes, 1, 1, 1), "slopes"),
            numpy_helper.from_array(INTERCEPTS, "intercepts"),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    helper.set_model_props(model, tiny_card.to_metadata())
    path = tmp_path_factory.mktemp("models") / "segmenter.onnx"
    onnx.save(model, path)
    return path
