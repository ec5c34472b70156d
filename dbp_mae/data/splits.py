"""Dividing parts between training, validation and test: no part is ever on two sides."""

import numpy as np
import pandas as pd

from dbp_mae.data.manifest import SPLITS
from dbp_mae.errors import UserError


def assign_splits(frame: pd.DataFrame, val_share: float, test_share: float, seed: int) -> pd.Series:
    """Give each image its split; all images of a group get the same one.

    The labelled groups are spread so that each split comes close to its share of the labelled
    images and of the images that show each class; what few groups show goes first to splits that
    lack it. Groups without labels train. Unlabelled images change nothing for the others.

    Args:
        frame: a manifest's columns group, label_state and pixels.
        val_share: share of the labelled images to validate on, like `test_share`.
        seed: orders groups of like size.

    Raises:
        UserError: fewer than three groups are labelled.
    """
    content = _content(frame[frame["label_state"] == "labelled"])
    if len(content) < len(SPLITS):
        raise UserError(
            f"The labelled images come from {len(content)} parts (groups), but at least "
            f"{len(SPLITS)} are needed, one each for training, validation and test: label images "
            "of more parts, or check the groups (parts.csv or data.group_pattern)."
        )
    target = np.array([1 - val_share - test_share, val_share, test_share])
    chosen = _spread(content.to_numpy(dtype=float), target, np.random.default_rng(seed))
    split_of = pd.Series([SPLITS[split] for split in chosen], index=content.index)
    return frame["group"].map(split_of).fillna(SPLITS[0])


def _content(labelled: pd.DataFrame) -> pd.DataFrame:
    """Count for each group its labelled images, those with any class, and those with each class."""
    classes = max((len(pixels) for pixels in labelled["pixels"].dropna()), default=1)
    counts = [np.zeros(classes) if p is None else np.asarray(p) for p in labelled["pixels"]]
    shown = np.array(counts).reshape(-1, classes)[:, 1:] > 0
    images = np.ones((len(shown), 1), dtype=bool)
    quantities = np.hstack([images, shown.any(axis=1, keepdims=True), shown])
    content = pd.DataFrame(quantities, index=labelled.index).groupby(labelled["group"]).sum()
    return content.loc[:, content.sum() > 0]


def _spread(content: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose a split for each group (content: G Q; target: S), the largest groups first.

    Each group goes where the squared distance of all quantities from their targets falls most.
    """
    content = content / content.sum(axis=0)
    size = np.floor(np.log2(content.sum(axis=1)))  # like sizes are one rank, shuffled by the seed
    shuffled = rng.permutation(len(content))
    order = shuffled[np.argsort(-size[shuffled], kind="stable")]
    filled = np.zeros((len(target), content.shape[1]))
    chosen = np.zeros(len(content), dtype=int)
    for position, group in enumerate(order):
        gain = (target[:, None] - filled) @ content[group]
        gain[~_eligible(filled, content[order[position:]])] = -np.inf
        chosen[group] = gain.argmax()
        filled[chosen[group]] += content[group]
    return chosen


def _eligible(filled: np.ndarray, remaining: np.ndarray) -> np.ndarray:
    """Return the splits (S) that may take the first of the remaining groups (R Q).

    All of them, until a quantity is left in no more groups than splits lack it; rare ones go first.
    """
    eligible = np.ones(len(filled), dtype=bool)
    groups_left = (remaining > 0).sum(axis=0)
    for quantity in np.argsort(groups_left, kind="stable"):
        lacking = filled[:, quantity] == 0
        scarce = remaining[0, quantity] > 0 and groups_left[quantity] <= lacking.sum()
        if scarce and (eligible & lacking).any():
            eligible &= lacking
    return eligible
