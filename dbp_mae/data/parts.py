"""Which part each image shows: by parts.csv, by its name, or a part of its own."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import pandas as pd

from dbp_mae.data.names import composed, more
from dbp_mae.errors import UserError, one_line

State = Literal["labelled", "clean", "unlabelled", "excluded"]


@dataclass(frozen=True)
class Listing:
    """What the source says of an image: the part that it shows, and whether it is labelled."""

    group: str
    state: State | None
    """None where parts.csv leaves it to the label file."""


def find_parts(source: Path, pattern: str | None, images: list[str]) -> dict[str, Listing]:
    """Return the part of each image: as parts.csv says, else as data.group_pattern finds, else the image.

    Args:
        source: folder in which parts.csv may lie.
        pattern: regular expression on the file name; its first group names the part.
        images: paths below the folder of images.

    Raises:
        UserError: a row of parts.csv has no image, parts.csv lacks columns or values, or the pattern is no
            regular expression or does not name the part of a file.
    """
    listed = _read_parts(source / "parts.csv", images)
    unlisted = [name for name in images if name not in listed]
    if pattern is not None:
        groups = _groups_by_pattern(pattern, unlisted)
    else:
        groups = {name: name for name in unlisted}
        if unlisted:
            print(
                f"{source}: no part is named for {len(unlisted)} of {len(images)} images, such as "
                f"{unlisted[0]}, so views of one part may fall into two splits, which flatters the "
                "held-out figures; name them in parts.csv or data.group_pattern."
            )
    return listed | {name: Listing(group, None) for name, group in groups.items()}


def _read_parts(path: Path, images: list[str]) -> dict[str, Listing]:
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
    written = {composed(image): image for image in images}
    names = table["image"].str.strip().str.replace("\\", "/").map(composed)
    names = names.map(lambda name: written.get(name, name))
    if unknown := sorted(set(names) - set(images)):
        raise UserError(
            f"{path} names the image '{unknown[0]}', which is not among the "
            f"images{more(unknown)}: give its path below their folder, or delete its row."
        )
    if twice := sorted(set(names[names.duplicated()])):
        raise UserError(f"{path} names the image '{twice[0]}' twice{more(twice)}: keep one row.")
    groups = table["group"].str.strip()
    states = table["state"].str.strip() if "state" in table else [""] * len(table)
    return {
        name: _listing(path, name, group, state)
        for name, group, state in zip(names, groups, states, strict=True)
    }


def _listing(path: Path, name: str, group: str, state: str) -> Listing:
    if not group:
        raise UserError(f"{path} gives no group for '{name}': name the part it shows.")
    for known in get_args(State):
        if state == known:
            return Listing(group, known)
    if state:
        raise UserError(
            f"{path} gives '{name}' the state '{state}': "
            f"use one of {', '.join(get_args(State))}, or leave it empty."
        )
    return Listing(group, None)


def _groups_by_pattern(pattern: str, names: list[str]) -> dict[str, str]:
    """Return the part that the pattern finds in each file name."""
    try:
        expression = re.compile(composed(pattern))
    except re.error as error:
        raise UserError(
            f"data.group_pattern '{pattern}' is not a regular expression ({error})."
        ) from None
    if not expression.groups:
        raise UserError(
            f"data.group_pattern '{pattern}' has no group in parentheses to name the part."
        )
    files = {name: composed(PurePosixPath(name).name) for name in names}
    matches = {name: expression.search(file) for name, file in files.items()}
    groups = {name: match[1] for name, match in matches.items() if match and match[1]}
    if unmatched := [name for name in names if name not in groups]:
        raise UserError(
            f"data.group_pattern '{pattern}' finds no part in "
            f"'{files[unmatched[0]]}'{more(unmatched)}: correct the pattern, which sees file names without "
            "their folders, or name the part in parts.csv."
        )
    return groups
