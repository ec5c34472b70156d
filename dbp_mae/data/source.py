"""What a source folder holds: images, labels and parts that fit together, or a sentence why not."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dbp_mae.data.names import composed, more
from dbp_mae.data.parts import State, find_parts
from dbp_mae.errors import UserError
from dbp_mae.params import DataParams

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
LABEL_FOLDERS = ("masks", "labels", "annotations")


@dataclass(frozen=True)
class Sample:
    """An image file and what the source says about it."""

    image: Path
    """Relative to the source's folder of images."""
    label: Path | None
    """Relative to the source."""
    group: str
    state: State | None
    """None where parts.csv leaves it to the label file."""
    split: str | None
    """None where the source leaves it to the shares."""


def find_samples(source: Path, params: DataParams) -> list[Sample]:
    """List a source folder's images in the order of their names, or data.share of them.

    Raises:
        UserError: there is no image, two files contend for one name, a label file or a row of
            parts.csv has no image, a folder of labels is named nearly right, parts.csv or
            data.group_pattern does not name a part, a folder of data.splits holds no image, or a folder
            is a link.
    """
    folder = source / params.images
    images = _find_images(source, folder, LABEL_FOLDERS if folder == source else ())
    labels = _find_labels(source, set(images)) if params.classes else {}
    if params.classes:
        _refuse_misnamed(source)
    names = [image.as_posix() for image in images.values()]
    parts = find_parts(source, params.group_pattern, names)
    splits = _splits_by_folder(folder, params.splits, names)
    samples = [
        Sample(image, labels.get(stem), parts[name].group, parts[name].state, splits.get(name))
        for (stem, image), name in zip(images.items(), names, strict=True)
    ]
    return _draw(samples, params.share, params.seed)


def _find_images(source: Path, folder: Path, left_out: Container[str]) -> dict[str, Path]:
    """Return the images by name without suffix, relative to `folder`, but for its folders `left_out`."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is missing: data.source must be a folder with a folder {folder.name}/ in it "
            "(data.images gives that another name)."
        )
    images: list[Path] = []
    others: list[Path] = []
    for file in _files_in(source, folder):
        if file.parts[0] in left_out:
            continue
        (images if file.suffix.lower() in IMAGE_SUFFIXES else others).append(file)
    if not images:
        raise UserError(f"{folder} holds no image: PNG, JPEG, TIFF and BMP files are read.")
    if others:
        total = len(images) + len(others)
        print(f"{folder}: {len(others)} of {total} files are no images, such as {others[0]}.")
    return _by_stem(folder, images)


def _find_labels(source: Path, stems: set[str]) -> dict[str, Path]:
    """Return the label files by name without suffix, relative to the source."""
    labels: dict[str, Path] = {}
    for name in LABEL_FOLDERS:
        found = _by_stem(source / name, _files_in(source, source / name))
        if orphans := [stem for stem in found if stem not in stems]:
            raise UserError(
                f"{source / name / found[orphans[0]]} labels no image{more(orphans)}: add "
                f"{orphans[0]}.* to the images or delete it."
            )
        for stem, file in found.items():
            if stem in labels:
                raise UserError(
                    f"{source / name / file} and {source / labels[stem]} label one image: keep one."
                )
            labels[stem] = name / file
    return labels


def _refuse_misnamed(source: Path) -> None:
    """Refuse a folder of labels whose name is nearly right, for its labels would be passed over."""
    nearly = {name.removesuffix("s") for name in LABEL_FOLDERS}
    for folder in sorted(source.iterdir()):
        likely = folder.name.lower().removesuffix("s") in nearly and folder.is_dir()
        if likely and folder.name not in LABEL_FOLDERS:
            raise UserError(
                f"{folder} is not read, for labels are read from {', '.join(LABEL_FOLDERS)}: rename the "
                "folder, or keep it elsewhere."
            )


def _files_in(source: Path, folder: Path) -> Iterator[Path]:
    """Yield the files in a folder of a source and below, relative to it, sorted, without hidden ones.

    Raises:
        UserError: the folder, or one below, is a link: DVC does not version what it points to.
    """
    for path in (folder, *sorted(folder.rglob("*"))):
        file = path.relative_to(folder)
        if any(part.startswith(".") for part in file.parts):
            continue
        if path.is_symlink() and path.is_dir() and path != source:
            raise UserError(
                f"{path} is a link to a folder, whose files DVC would not version: put the folder "
                "itself there."
            )
        if file.parts and not path.is_dir():  # a broken link is a file that cannot be opened
            yield file


def _stem(file: Path) -> str:
    """Return a path without its suffix, whichever way a system composes the letters of its name."""
    return composed(file.with_suffix("").as_posix())


def _by_stem(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for file in files:
        stem = _stem(file)
        if stem in by_stem:
            raise UserError(
                f"{folder / by_stem[stem]} and {folder / file} have one name but for their endings "
                "or how their letters are composed: rename or delete one."
            )
        by_stem[stem] = file
    return by_stem


def _splits_by_folder(
    folder: Path, splits: Mapping[Literal["val", "test"], Path], names: list[str]
) -> dict[str, str]:
    """Return the split of each image that lies in a folder of data.splits."""
    found: dict[str, str] = {}
    for split, below in splits.items():
        prefix = composed(f"{below.as_posix()}/")
        inside = {name: split for name in names if composed(name).startswith(prefix)}
        if not inside:
            raise UserError(
                f"{folder / below} holds no image, but data.splits calls it the split {split}: "
                "correct its name."
            )
        found |= inside
    return found


def _draw(samples: list[Sample], share: float, seed: int) -> list[Sample]:
    """Return a share of the samples in their order; those of a given split stay all."""
    drawn = np.array([sample.split is not None for sample in samples])
    others = np.flatnonzero(~drawn)
    count = max(1, round(share * len(others)))
    drawn[np.random.default_rng(seed).permutation(others)[:count]] = True
    return [sample for sample, chosen in zip(samples, drawn, strict=True) if chosen]
