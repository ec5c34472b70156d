"""The manifest: one row an image. Validation, training and evaluation read this table alone."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dbp_mae.errors import UserError, one_line
from dbp_mae.files import atomic_path

SPLITS = ("train", "val", "test")
LABEL_STATES = ("labelled", "unlabelled", "excluded")
CHUNK = 10_000
"""Rows that are Python objects at a time: a million of them would take several GB."""

SCHEMA = pa.schema(
    {
        "path": pa.string(),  # relative to the source folder
        "sha256": pa.string(),
        "phash": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "channels": pa.int64(),  # in the file
        "bit_depth": pa.int64(),
        "mean": pa.float64(),  # this and the next three: inspection.drift.image_statistics
        "std": pa.float64(),
        "sharpness": pa.float64(),
        "saturated": pa.float64(),
        "channel_mean": pa.list_(pa.float64()),  # as trained, on a scale of 0 to 1
        "channel_std": pa.list_(pa.float64()),
        "label_state": pa.string(),
        "mask_path": pa.string(),  # relative to the data folder; null where nothing is labelled
        "mask_sha256": pa.string(),
        "pixels": pa.list_(pa.int64()),  # of background and of each class
        "ignored_pixels": pa.int64(),
        "group": pa.string(),
        "split": pa.string(),
        "image_error": pa.string(),  # one sentence, like label_error
        "label_error": pa.string(),
        "label_error_kind": pa.string(),
    }
)


def manifest_from_rows(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a table with the manifest's columns and types; absent values become null."""
    rest = iter(rows)
    chunks = iter(lambda: list(islice(rest, CHUNK)), [])
    tables = [pa.Table.from_pylist(chunk, schema=SCHEMA) for chunk in chunks]
    return pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pandas()


def labelled_in(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split whose images are labelled."""
    return frame[(frame["split"] == split) & (frame["label_state"] == "labelled")]


def write_manifest(frame: pd.DataFrame, path: Path) -> None:
    """Write a manifest as Parquet; the file is whole or not there."""
    table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest, or the part of one that passed validation.

    Raises:
        UserError: the file is missing, or is not a manifest.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it (dvc repro).") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a manifest ({one_line(error)}): run `dvc repro ingest`."
        ) from None
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise UserError(
            f"{path} is not a manifest: it lacks the columns {', '.join(missing)}. "
            "Run `dvc repro ingest`."
        )
    return table.to_pandas()


def count_splits(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Count parts and images by split, for a table of the data."""
    rows = []
    for split in SPLITS:
        part = frame[frame["split"] == split]
        labelled = part["label_state"] == "labelled"
        rows.append(
            {
                "split": split,
                "parts": part["group"].nunique(),
                "images": len(part),
                "labelled": int(labelled.sum()),
                "unlabelled": int((~labelled).sum()),
            }
        )
    return rows
