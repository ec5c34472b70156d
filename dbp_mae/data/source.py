"""What a source folder holds: images, labels and parts that fit together, or a sentence why not."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args
from unicodedata import normalize

import numpy as np
import pandas as pd

from dbp_mae.errors import UserError, one_line
from dbp_mae.params import DataParams

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
LABEL_FOLDERS = ("masks", "labels", "annotations")

State = Literal["labelled", "clean", "unlabelled", "excluded"]


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
            parts.csv has no image, a folder of labels is named nearly right, parts.csv lacks
            columns or values, data.group_pattern is no regular expression or does not name the part
            of a file, a folder of data.splits holds no image, or a folder is a link.
    """
    folder = source / params.images
    images = _find_images(source, folder, LABEL_FOLDERS if folder == source else ())
    labels = _find_labels(source, set(images)) if params.classes else {}
    if params.classes:
        _refuse_misnamed(source)
    names = [image.as_posix() for image in images.values()]
    parts = _read_parts(source / "parts.csv", names)
    unnamed = [name for name in names if name not in parts]
    if unnamed and params.group_pattern is None:
        print(
            f"{source}: no part is named for {len(unnamed)} of {len(names)} images, such as "
            f"{unnamed[0]}, so views of one part may fall into two splits, which flatters the "
            "held-out figures; name them in parts.csv or data.group_pattern."
        )
    groups = _groups_by_pattern(params.group_pattern, unnamed)
    splits = _splits_by_folder(folder, params.splits, names)
    samples = [
        Sample(
            image=image,
            label=labels.get(stem),
            group=parts[name].group if name in parts else groups[name],
            state=parts[name].state if name in parts else None,
            split=splits.get(name),
        )
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
                f"{source / name / found[orphans[0]]} labels no image{_more(orphans)}: add "
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
    return normalize("NFC", file.with_suffix("").as_posix())


def _by_stem(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for file in files:
        stem = _stem(file)
        if stem in by_stem:
            raise UserError(
                f"{folder / by_stem[stem]} and {folder / file} differ in their ending only: "
                "rename or delete one."
            )
        by_stem[stem] = file
    return by_stem


@dataclass(frozen=True)
class _Part:
    group: str
    state: State | None


def _read_parts(path: Path, images: list[str]) -> dict[str, _Part]:
    """Read parts.csv, where there is one: group and state by image, named as in `images`."""
    if not path.exists():
        return {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(
            f"{path} is not a comma-separated UTF-8 table ({one_line(error)}): save it as CSV UTF-8."
        ) from None
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(
            f"{path}: its rows have more fields than its first line, {','.join(table.columns)}, has names: "
            "remove the commas at their ends, or name the columns."
        )
    table.columns = table.columns.str.strip().str.lower()
    if twice := list(table.columns[table.columns.duplicated()]):
        raise UserError(f"{path} has two columns '{twice[0]}': keep one.")
    if missing := {"image", "group"} - set(table.columns):
        raise UserError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {' and '.join(sorted(missing))}: "
            f"it has {', '.join(table.columns)} (separate columns by commas)."
        )
    written = {normalize("NFC", image): image for image in images}
    names = table["image"].str.strip().str.replace("\\", "/").str.normalize("NFC")
    names = names.map(lambda name: written.get(name, name))
    if unknown := sorted(set(names) - set(images)):
        raise UserError(
            f"{path} names the image '{unknown[0]}', which is not among the "
            f"images{_more(unknown)}: give its path below their folder, or delete its row."
        )
    if twice := sorted(set(names[names.duplicated()])):
        raise UserError(f"{path} names the image '{twice[0]}' twice{_more(twice)}: keep one row.")
    groups = table["group"].str.strip()
    states = table["state"].str.strip() if "state" in table else [""] * len(table)
    return {
        name: _part(path, name, group, state)
        for name, group, state in zip(names, groups, states, strict=True)
    }


def _part(path: Path, name: str, group: str, state: str) -> _Part:
    if not group:
        raise UserError(f"{path} gives no group for '{name}': name the part it shows.")
    for known in get_args(State):
        if state == known:
            return _Part(group, known)
    if state:
        raise UserError(
            f"{path} gives '{name}' the state '{state}': "
            f"use one of {', '.join(get_args(State))}, or leave it empty."
        )
    return _Part(group, None)


def _groups_by_pattern(pattern: str | None, names: list[str]) -> dict[str, str]:
    """Return the part that the pattern finds in each file name; without a pattern, the path itself."""
    if pattern is None:
        return {name: name for name in names}
    try:
        expression = re.compile(normalize("NFC", pattern))
    except re.error as error:
        raise UserError(
            f"data.group_pattern '{pattern}' is not a regular expression ({error})."
        ) from None
    if not expression.groups:
        raise UserError(
            f"data.group_pattern '{pattern}' has no group in parentheses to name the part."
        )
    files = {name: normalize("NFC", PurePosixPath(name).name) for name in names}
    matches = {name: expression.search(file) for name, file in files.items()}
    groups = {name: match[1] for name, match in matches.items() if match and match[1]}
    if unmatched := [name for name in names if name not in groups]:
        raise UserError(
            f"data.group_pattern '{pattern}' finds no part in "
            f"'{files[unmatched[0]]}'{_more(unmatched)}: correct the pattern, which sees file names without "
            "their folders, or name the part in parts.csv."
        )
    return groups


def _more(found: list[str]) -> str:
    """Tell how many names have what a sentence says of the first of them."""
    others = len(found) - 1
    return f" ({others} more likewise)" if others else ""


def _splits_by_folder(
    folder: Path, splits: Mapping[Literal["val", "test"], Path], names: list[str]
) -> dict[str, str]:
    """Return the split of each image that lies in a folder of data.splits."""
    found: dict[str, str] = {}
    for split, below in splits.items():
        prefix = normalize("NFC", f"{below.as_posix()}/")
        inside = {name: split for name in names if normalize("NFC", name).startswith(prefix)}
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
