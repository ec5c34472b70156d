"""What a model file says of itself: all that inspection needs, and what an auditor asks."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from dbp_mae.errors import UserError
from dbp_mae.inspection.drift import REFERENCE_RANKS, STATISTICS

METADATA_KEY = "dbp_mae"
"""Key of the ONNX file's metadata_props that holds the card as JSON."""

Share = Annotated[float, Field(ge=0, le=1)]


class ClassInfo(BaseModel):
    """A class of objects; the background is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    color: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]
    defect: bool
    """Whether an object of this class makes the part a reject."""


class ModelCard(BaseModel):
    """The facts that travel inside segmenter.onnx."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    classes: Annotated[list[ClassInfo], Field(min_length=1, max_length=254)]
    """Class i of a mask (counted from 1) is the i-th; 0 is background."""
    channels: Literal[1, 3]
    white_level: Annotated[int, Field(ge=256, le=65535)]
    """The value of white in images of 16 bits."""
    tile: Annotated[int, Field(ge=8)]
    """Side in pixels of the square tiles that the graph takes."""
    overlap: Annotated[int, Field(ge=0)]
    min_score: Share
    min_area: Annotated[int, Field(ge=1)]
    mean: list[FiniteFloat]
    """Of each channel on a scale of 0 to 1; the graph normalises with it."""
    std: list[Annotated[FiniteFloat, Field(gt=0)]]
    git_revision: str
    data_sha256: str
    """Of data/validated.parquet."""
    params_sha256: str
    """Of the values that made the model: data, pretrain, finetune, export and evaluate.match_iou."""
    encoder_sha256: str | None
    """None where the encoder was not pre-trained."""
    validation: dict[str, FiniteFloat]
    """Metrics on the validation split."""
    energy_kwh: Annotated[FiniteFloat, Field(ge=0)]
    co2_kg: Annotated[FiniteFloat, Field(ge=0)]
    training_images: Annotated[int, Field(ge=1)]
    """How many images `reference` was measured on."""
    reference: dict[str, list[FiniteFloat]]
    """The 21 quantiles (0, 5, ... 100 %) of each image statistic over the training images."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({item.name for item in self.classes}) < len(self.classes):
            raise ValueError("classes names one class twice")
        if 2 * self.overlap > self.tile:
            raise ValueError(f"overlap ({self.overlap}) must be at most half of tile ({self.tile})")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std must have {self.channels} values each")
        if set(self.reference) != set(STATISTICS):
            raise ValueError(f"reference must have exactly the keys {', '.join(STATISTICS)}")
        for name, quantiles in self.reference.items():
            if len(quantiles) != len(REFERENCE_RANKS) or quantiles != sorted(quantiles):
                raise ValueError(
                    f"reference.{name} must have {len(REFERENCE_RANKS)} ascending quantiles"
                )
        return self

    def to_metadata(self) -> dict[str, str]:
        """Return the card as ONNX metadata_props."""
        return {METADATA_KEY: self.model_dump_json()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read the card from an ONNX file's metadata_props.

        Raises:
            UserError: the card is missing, damaged or of another version; what is wrong with it.
        """
        if METADATA_KEY not in metadata:
            raise UserError(
                f"it has no model card (metadata key {METADATA_KEY!r}): "
                "use a file made by the export stage"
            )
        try:
            return cls.model_validate_json(metadata[METADATA_KEY])
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'the card'}: {item['msg']}"
                for item in error.errors()
            )
            raise UserError(
                f"its model card does not fit ({problems}): export the model again"
            ) from None
