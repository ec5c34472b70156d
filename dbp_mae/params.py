"""params.yaml, parsed once into frozen typed models. An unknown key is an error."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from dbp_mae.errors import UserError, one_line
from dbp_mae.pretraining.decoder_heads import HEAD_WIDTH

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["auto", "32-true", "bf16-mixed"]

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy's global generator takes no larger one."""


class Block(BaseModel):
    """A block of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyBlock = TypeVar("AnyBlock", bound=Block)
UNNAMED = "???"
"""How OmegaConf writes a value that conf/ leaves to the recipe."""


class DataParams(Block):
    """What the images are and how they are divided."""

    source: Path
    """Folder with images and labels, and perhaps parts.csv."""
    images: Path
    """Folder of the images below the source; `.` is the source itself."""
    classes: Annotated[list[str], Field(max_length=254)]
    """Class i of a mask (counted from 1) is the i-th name; 0 is background, 255 ignored.

    Without classes no label is read: an archive to pre-train on."""
    ignore_zero: bool
    """0 in a label file is not background, but ignored."""
    defects: list[str]
    """The classes whose presence makes a part a reject; the others are structure."""
    channels: Literal[1, 3]
    white_level: Annotated[int, Field(ge=256, le=65535)]
    """The value of white in images of more than 8 bits (4095 for a 12-bit camera)."""
    upright: bool
    """Whether up is up in all images: then training mirrors them left and right alone."""
    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the images that is used, drawn at random; the folders of `splits` stay whole."""
    splits: dict[Literal["val", "test"], Path]
    """Folder, below that of the images, of a split that the source itself holds out."""
    group_pattern: str | None
    """Regular expression on the file name; its first group names the part. parts.csv goes before it."""
    val_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the labelled images to validate on; whole groups only, so it is met nearly."""
    test_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the labelled images held out for the final figures, likewise."""
    seed: Seed

    @model_validator(mode="after")
    def _check(self) -> Self:
        if unknown := sorted(set(self.defects) - set(self.classes)):
            raise ValueError(f"defects names {unknown}, which are not among classes {self.classes}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes {self.classes} names one class twice")
        if bad := [name for name in self.classes if not name.strip() or set(name) & set("|\r\n")]:
            raise ValueError(
                f"classes has the name {bad[0]!r}: give each a name without | and line breaks"
            )
        if len(self.splits) == 2:
            val, test = self.splits["val"], self.splits["test"]
            if val.is_relative_to(test) or test.is_relative_to(val):
                raise ValueError(
                    f"splits: '{val}' (val) and '{test}' (test) overlap; name two folders"
                )
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                "val_share + test_share must leave something to train on (sum below 1)"
            )
        return self


class RenderParams(Block):
    """The embedded default data: rendered wire-bonded devices."""

    devices: Count
    views: Count
    """Images of one device, each with its own light, focus and pose."""
    labelled_share: Share
    """Share of the devices whose images get masks."""
    size: Annotated[int, Field(ge=96)]
    """Side of an image in pixels."""
    seed: Seed


class ValidateParams(Block):
    """The gate on the manifest."""

    tolerated_share: Share
    """Share of the images that may be quarantined before the pipeline stops."""


class DecorrelationParams(Block):
    """Decorrelation of the encoder's layer inputs (arXiv 2510.14657)."""

    update: Literal["none", "paper", "function-preserving"]
    eps: Positive | None
    """Length of a step of the decorrelating matrix R at the full learning rate; None: from `total_eps`."""
    total_eps: Positive | None
    """Length of all its steps together, at most: R goes as far in a long training. None: `eps` says."""
    kappa: Share
    """0 only decorrelates, 1 only normalises the variances."""
    sample: Annotated[float, Field(gt=0, le=1)]
    """Share of the token vectors that each update sees."""
    every: Count
    """Steps between two updates of R."""
    block: Count | None
    """Widest block of R; wider layers get a block-diagonal R. None: the encoder's width."""
    layers: Annotated[
        list[Literal["patch_embed", "qkv", "proj", "fc1", "fc2"]], Field(min_length=1)
    ]
    """Linear layers of the blocks; and the patch embedding, whose R is found once and stays as it is,
    whatever the keys above say of its steps."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        # Near G = I a step multiplies R's distance from its aim by 1 - 2 eps (1 - kappa), or by
        # 1 - 2 eps kappa on the diagonal.
        largest = 1 / max(self.kappa, 1 - self.kappa)
        if (self.eps is None) == (self.total_eps is None):
            raise ValueError("give either eps or total_eps, and null for the other")
        if self.eps is not None and self.eps >= largest:
            raise ValueError(
                f"eps ({self.eps}) must be below {largest:.2g} with kappa {self.kappa}, "
                "or R does not settle"
            )
        return self

    @property
    def whitens_patches(self) -> bool:
        """Whether the patch embedding's inputs are decorrelated."""
        return self.update != "none" and "patch_embed" in self.layers

    @property
    def block_layers(self) -> list[str]:
        """The names of the blocks' decorrelated layers."""
        return [name for name in self.layers if name != "patch_embed"]


class PretrainParams(Block):
    """Masked-autoencoder pre-training."""

    source: Path
    """data.source to pre-train on its images, or a copy of an earlier run's models/pretrain to take over."""
    model: Literal["nano", "tiny", "small", "base", "large"]
    patch: Count
    crop: Count
    """Side in pixels of the square crops."""
    scale: tuple[Annotated[float, Field(gt=0)], Share] | None
    """Least and largest share of an image's area that a crop shows; None cuts at native scale."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)]
    decoder_dim: Count
    decoder_depth: Count
    optimizer: Literal["adamw", "muon", "soap"]
    learning_rate: Positive
    rest_rate: Positive
    """Factor on the learning rate of what Muon leaves to AdamW: all but the blocks' matrices."""
    weight_decay: Annotated[float, Field(ge=0)]
    steps: Count
    warmup_steps: Annotated[int, Field(ge=0)]
    averaging: Annotated[float, Field(ge=0, lt=0.5)]
    """About the mean age of the weights whose average is validated and kept, as a share of the steps so far.

    0: the last weights alone."""
    batch: Count
    accumulate: Count
    """Micro-batches that a device cuts its share of a batch into, one after the other."""
    devices: Count
    """Devices that share each batch, in a process each."""
    crops_per_image: Count
    """Crops cut from each decoded image of a batch: decoding is the loader's cost."""
    validate_every: Count
    checkpoint_every: Count
    precision: Precision
    compile: bool
    workers: Annotated[int, Field(ge=0)]
    seed: Seed
    decorrelation: DecorrelationParams

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.patch < 4 or self.patch & (self.patch - 1):
            raise ValueError(f"patch ({self.patch}) must be a power of two, 4 at the least")
        if self.crop % self.patch:
            raise ValueError(f"crop ({self.crop}) must be a multiple of patch ({self.patch})")
        if not 1 <= self.visible < self.patches:
            raise ValueError(
                f"mask_ratio ({self.mask_ratio}) of the {self.patches} patches of a crop leaves "
                f"{self.visible} visible: at least one must stay visible and one be masked"
            )
        if self.scale and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale ({list(self.scale)}) must begin with the smaller share")
        if self.decoder_dim % HEAD_WIDTH:
            raise ValueError(f"decoder_dim ({self.decoder_dim}) must be a multiple of {HEAD_WIDTH}")
        _check_warmup(self.warmup_steps, self.steps)
        if self.batch % self.crops_per_image:
            raise ValueError(
                f"batch ({self.batch}) must be a multiple of crops_per_image ({self.crops_per_image})"
            )
        if self.batch % (self.accumulate * self.devices):
            raise ValueError(
                f"batch ({self.batch}) must be a multiple of accumulate ({self.accumulate}) times "
                f"devices ({self.devices})"
            )
        return self

    @property
    def patches(self) -> int:
        """Patches of a crop."""
        return (self.crop // self.patch) ** 2

    @property
    def visible(self) -> int:
        """Patches of a crop that the encoder sees."""
        return round(self.patches * (1 - self.mask_ratio))


class FinetuneParams(Block):
    """Fine-tuning of the segmenter on the labelled images."""

    tile: Annotated[int, Field(ge=32)]
    """Side in pixels of the square tiles the segmenter sees, in training and on the line."""
    decoder_width: Count
    optimizer: Literal["adamw", "muon"]
    learning_rate: Positive
    encoder_rate: Share
    """Factor on the learning rate of the encoder's last block. 0: the encoder stays as it is."""
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    steps: Count
    warmup_steps: Annotated[int, Field(ge=0)]
    batch: Count
    foreground_share: Share
    """Share of the tiles of a batch that are centred near a labelled object."""
    validate_every: Count
    checkpoint_every: Count
    precision: Precision
    workers: Annotated[int, Field(ge=0)]
    seed: Seed

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_warmup(self.warmup_steps, self.steps)
        return self


class ScratchParams(Block):
    """The control: the fine-tuning from random weights. The rest is as in FinetuneParams."""

    encoder_rate: Annotated[float, Field(gt=0, le=1)]
    """Like that of the fine-tuning; what suits random weights need not suit pre-trained ones."""


class ExportParams(Block):
    """What the model file carries for the inspection line."""

    overlap: Annotated[int, Field(ge=0)]
    """Pixels by which neighbouring tiles overlap."""
    min_score: Share | None
    """Mean probability below which an object is not reported. None: chosen on validation images."""
    min_area: Annotated[int, Field(ge=1)]
    """Area in pixels below which an object is not reported."""


class EvaluateParams(Block):
    """How the held-out images are judged."""

    match_iou: Annotated[float, Field(gt=0, lt=1)]
    """Intersection over union from which a reported object counts as the labelled one."""
    overlays: Count
    """How many of the worst images are drawn."""


class EmissionsParams(Block):
    """Where the electricity comes from."""

    country: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    """ISO 3166-1 alpha-3 code, for the grid's carbon intensity."""
    sample_seconds: Positive


class Params(Block):
    """All of params.yaml."""

    data: DataParams
    render: RenderParams
    validation: Annotated[ValidateParams, Field(alias="validate")]
    pretrain: PretrainParams
    finetune: FinetuneParams
    scratch: ScratchParams
    export: ExportParams
    evaluate: EvaluateParams
    emissions: EmissionsParams

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.finetune.tile % self.pretrain.patch:
            raise ValueError(
                f"finetune.tile ({self.finetune.tile}) must be a multiple of "
                f"pretrain.patch ({self.pretrain.patch})"
            )
        if 2 * self.export.overlap > self.finetune.tile:
            raise ValueError(
                f"export.overlap ({self.export.overlap}) must be at most half of "
                f"finetune.tile ({self.finetune.tile})"
            )
        return self

    @property
    def trains_encoder(self) -> bool:
        """Whether the encoder is trained here, and not taken over from `pretrain.source`."""
        return self.pretrain.source == self.data.source


def _check_warmup(warmup_steps: int, steps: int) -> None:
    if warmup_steps >= steps:
        raise ValueError(f"warmup_steps ({warmup_steps}) must be fewer than steps ({steps})")


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a parameter file.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown, missing or out of range.
    """
    return load_block(path, Params)


def load_block(path: Path, block: type[AnyBlock]) -> AnyBlock:
    """Read and check a YAML file that holds a block.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown, missing or out of range.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: run the command from the project's folder, with a file that is there."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML ({one_line(error)}): correct it.") from None
    return check_block(raw, block, str(path))


def check_block(raw: Any, block: type[AnyBlock], name: str) -> AnyBlock:
    """Return raw values as a block; `name` says in the error where they come from.

    Raises:
        UserError: a key is unknown, missing or out of range.
    """
    try:
        return block.model_validate(raw)
    except ValidationError as error:
        if block is Params and any(item["loc"] == ("recipe",) for item in error.errors()):
            raise UserError(
                f"{name} has the recipe's keys below `recipe`, not in their places: begin the recipe's file "
                "with the line `# @package _global_`."
            ) from None
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the file'}: {_said(item)}"
            for item in error.errors()
        )
        raise UserError(f"{name} does not fit: {problems}. Correct these keys.") from None


def _said(problem: ErrorDetails) -> str:
    """Return what is wrong with a key, in our words where pydantic's say it worse."""
    if problem["input"] == UNNAMED:
        return "is missing: name it in the recipe"
    words = {"extra_forbidden": "there is no such key", "missing": "is missing"}
    return words.get(problem["type"], problem["msg"].removeprefix("Value error, "))
