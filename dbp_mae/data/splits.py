"""Dividing parts between training, validation and test: no part is ever on two sides."""

import numpy as np
import pandas as pd

from dbp_mae.errors import UserError


def assign_splits(frame: pd.DataFrame, val_share: float, test_share: float, seed: int) -> pd.Series:
    """Give each image without a split one; all images of a group get the same one.

    The labelled groups are spread so that each split comes close to its share of the labelled
    images and of the images that show each class; what few groups show goes first to splits that
    lack it. Groups without labels train. Unlabelled images change nothing for the others.

    Args:
        frame: a manifest's columns group, label_state, pixels and split (null: to be given).
        val_share: share of the labelled images to validate on, like `test_share`; of no account
            where the source holds out images for that split.
        seed: orders groups of like size.

    Raises:
        UserError: fewer groups are labelled than there are splits to fill.
    """
    given = frame["split"]
    shares = {"val": val_share, "test": test_share}
    shares = {split: share for split, share in shares.items() if split not in set(given)}
    shares = {"train": 1 - sum(shares.values()), **shares}
    content = _content(frame[(frame["label_state"] == "labelled") & given.isna()])
    if len(content) < len(shares):
        advice = "label images of more parts, or check the groups (parts.csv or data.group_pattern)"
        if not (frame["label_state"] == "labelled").any():
            advice = "put masks into masks/ or LabelMe files into labels/, named like their images"
        raise UserError(
            f"The labelled images come from {len(content)} parts (groups), but at least "
            f"{len(shares)} are needed, one each for {', '.join(shares)}: {advice}."
        )
    target = np.array(list(shares.values()))
    chosen = _spread(content.to_numpy(dtype=float), target, np.random.default_rng(seed))
    split_of = pd.Series(np.array(list(shares))[chosen], index=content.index)
    return given.fillna(frame["group"].map(split_of)).fillna("train")


def hold_out(frame: pd.DataFrame, val_share: float, seed: int) -> pd.Series:
    """Give each image of an archive without labels its split: groups drawn at random validate.

    Args:
        frame: a manifest's columns group and split (null: to be given).
        val_share: share of the images without a split to validate on; of no account where the source
            holds some out for that.
        seed: draws the groups.
    """
    given = frame["split"]
    if "val" in set(given):
        return given.fillna("train")
    images = frame.loc[given.isna(), "group"].value_counts().sort_index()
    images = images.sample(frac=1, random_state=seed)
    before = images.cumsum() - images
    validating = images.index[before < val_share * images.sum()]
    split_of = frame["group"].isin(validating).map({True: "val", False: "train"})
    return given.fillna(split_of)


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
    groups_left = (content > 0).sum(axis=0)
    chosen = np.zeros(len(content), dtype=int)
    for group in order:
        gain = (target[:, None] - filled) @ content[group]
        gain[~_eligible(filled, content[group] > 0, groups_left)] = -np.inf
        chosen[group] = gain.argmax()
        filled[chosen[group]] += content[group]
        groups_left -= content[group] > 0
    return chosen


def _eligible(filled: np.ndarray, shown: np.ndarray, groups_left: np.ndarray) -> np.ndarray:
    """Return the splits (S) that may take the next group, which shows some quantities (Q).

    All of them, until a quantity is left in no more groups than splits lack it; rare ones go first.
    """
    eligible = np.ones(len(filled), dtype=bool)
    lacking = filled == 0
    scarce = np.flatnonzero(shown & (groups_left <= lacking.sum(axis=0)))
    for quantity in scarce[np.argsort(groups_left[scarce], kind="stable")]:
        if (eligible & lacking[:, quantity]).any():
            eligible &= lacking[:, quantity]
    return eligible
