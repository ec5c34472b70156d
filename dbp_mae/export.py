"""The segmenter as one ONNX file under the model contract, checked against the network."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import torch
from torch import Tensor, nn

from dbp_mae.class_colors import class_color
from dbp_mae.emissions import Emissions
from dbp_mae.errors import UserError
from dbp_mae.evaluation.judging import best_min_score, judge
from dbp_mae.files import atomic_path, sha256_of
from dbp_mae.inspection.drift import STATISTICS, reference_quantiles
from dbp_mae.inspection.model_card import ClassInfo, ModelCard
from dbp_mae.inspection.segmenter import Segmenter
from dbp_mae.params import DataParams, Params
from dbp_mae.revision import git_revision
from dbp_mae.segmentation.network import SegmentationNetwork

OPSET = 20
MAKING: dict[str, Any] = {
    **dict.fromkeys(("data", "pretrain", "finetune", "export"), True),
    "evaluate": {"match_iou": True},
}
"""The values that make a model; a change of any of them has it exported anew."""
CHECKED_BATCHES = (1, 2, 5)
MAX_DIFFERENCE = 1e-4
MIN_SAME_ARGMAX = 0.999
UNCHOSEN_MIN_SCORE = 0.5
"""Ships where the threshold is to be chosen and no labelled defect of a validation image is found."""


class TileClassifier(nn.Module):
    """What the file computes: raw tiles, uint8, B T T C, to class probabilities, B K+1 T T."""

    def __init__(self, segmenter: SegmentationNetwork) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the probabilities."""
        return torch.softmax(self.segmenter(tiles.permute(0, 3, 1, 2)).float(), dim=1)


@dataclass(frozen=True)
class Parity:
    """How far the file is from the network, on real tiles."""

    tiles: int
    """How many different ones."""
    max_difference: float
    """Largest difference of a probability."""
    same_argmax_share: float
    """Share of the pixels that get the same class."""
    bytes: int
    opset: int


def export(
    segmenter: SegmentationNetwork, card: ModelCard, tiles: np.ndarray, path: Path
) -> Parity:
    """Write the file at `path`, if it agrees with the network on real tiles (uint8, N T T C).

    Raises:
        UserError: it does not; nothing is written.
    """
    classifier = TileClassifier(segmenter).eval()
    with atomic_path(path) as temporary:
        _write_onnx(classifier, tiles, card, temporary)
        parity = check_parity(classifier, tiles, temporary)
        if parity.max_difference > MAX_DIFFERENCE or parity.same_argmax_share < MIN_SAME_ARGMAX:
            raise UserError(
                f"{path} was not written: on {parity.tiles} real tiles its probabilities differ from "
                f"the network's by up to {parity.max_difference:.1e} (at most {MAX_DIFFERENCE:.0e} is "
                f"allowed) and {parity.same_argmax_share:.2%} of the pixels get the same class (at "
                f"least {MIN_SAME_ARGMAX:.1%}). Report this with params.yaml."
            )
    return parity


def _write_onnx(classifier: TileClassifier, tiles: np.ndarray, card: ModelCard, path: Path) -> None:
    example = torch.from_numpy(tiles[:2])  # a batch of one would be fixed in the graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            classifier,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["tiles"],
            output_names=["probabilities"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _save(program.model_proto, card, path)


def _save(model: onnx.ModelProto, card: ModelCard, path: Path) -> None:
    onnx.helper.set_model_props(model, card.to_metadata())
    onnx.save(model, path)


def choose_min_score(path: Path, files: list[tuple[Path, Path]], match_iou: float) -> float | None:
    """Give the file at `path` the score threshold that is best on images with their masks.

    Returns:
        The threshold; None where no labelled defect is found, and the file stays as it is.
    """
    segmenter = Segmenter.load(path)
    chosen = best_min_score(judge(segmenter, files), match_iou)
    if chosen is None:
        return None
    with atomic_path(path) as temporary:
        card = segmenter.card.model_copy(update={"min_score": chosen})
        _save(onnx.load(path), card, temporary)
    return chosen


@torch.no_grad()
def check_parity(classifier: TileClassifier, tiles: np.ndarray, path: Path) -> Parity:
    """Compare the file with the network, on `tiles` in batches of 1, 2 and 5."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences, same = [], []
    for batch in CHECKED_BATCHES:
        for start in range(0, len(tiles) - batch + 1, batch):
            part = tiles[start : start + batch]
            expected = classifier(torch.from_numpy(part)).numpy()
            (found,) = session.run(["probabilities"], {"tiles": part})
            differences.append(np.abs(found - expected).max())
            same.append((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return Parity(
        tiles=len({tile.tobytes() for tile in tiles}),
        max_difference=float(max(differences)),
        same_argmax_share=float(np.mean(same)),
        bytes=path.stat().st_size,
        opset=OPSET,
    )


def make_card(
    params: Params,
    frame: pd.DataFrame,
    manifest: Path,
    segmenter: SegmentationNetwork,
    encoder: Path | None,
    validation_miou: float | None,
    emissions: Sequence[Emissions],
) -> ModelCard:
    """Gather what the model file says of itself.

    Args:
        frame: the validated manifest, read from `manifest`.
        encoder: the pre-trained encoder's file, or None where there was none.
        validation_miou: on the validation split; None where no class is labelled there.
        emissions: of every stage that went into the model.
    """
    training = frame[frame["split"] == "train"]
    return ModelCard(
        classes=class_infos(params.data),
        channels=params.data.channels,
        white_level=params.data.white_level,
        tile=params.finetune.tile,
        overlap=params.export.overlap,
        min_score=UNCHOSEN_MIN_SCORE
        if params.export.min_score is None
        else params.export.min_score,
        min_area=params.export.min_area,
        mean=segmenter.normalize.mean.flatten().tolist(),
        std=segmenter.normalize.std.flatten().tolist(),
        git_revision=git_revision(),
        data_sha256=sha256_of(manifest),
        params_sha256=making_sha256(params),
        encoder_sha256=sha256_of(encoder) if encoder else None,
        validation={} if validation_miou is None else {"miou": validation_miou},
        energy_kwh=sum(stage.kwh for stage in emissions),
        co2_kg=sum(stage.co2_kg for stage in emissions),
        training_images=len(training),
        reference=reference_quantiles(
            [
                dict(zip(STATISTICS, row, strict=True))
                for row in training[list(STATISTICS)].to_numpy()
            ]
        ),
    )


def making_sha256(params: Params) -> str:
    """Return the SHA-256 of the values that make a model, as JSON."""
    return hashlib.sha256(params.model_dump_json(include=MAKING).encode()).hexdigest()


def class_infos(data: DataParams) -> list[ClassInfo]:
    """Return name, colour and kind of each class."""
    return [
        ClassInfo(name=name, color=class_color(index), defect=name in data.defects)
        for index, name in enumerate(data.classes)
    ]
