"""Splits: a part never straddles, every split gets its share, and nothing depends on the order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbp_mae.data.manifest import SPLITS
from dbp_mae.data.splits import assign_splits, hold_out
from dbp_mae.errors import UserError

CLASSES = 2
SHARES = {"val_share": 0.15, "test_share": 0.25}

# An image: its group, and whether it shows each class; None where it is unlabelled.
images = st.tuples(st.integers(0, 9), st.none() | st.tuples(*[st.booleans()] * CLASSES))


def frame_of(rows: list[tuple[int, tuple[bool, ...] | None]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "group": [f"part {group}" for group, _ in rows],
            "label_state": ["unlabelled" if s is None else "labelled" for _, s in rows],
            "pixels": [None if s is None else [900, *(50 * x for x in s)] for _, s in rows],
            "split": None,
        }
    )


def labelled_groups(frame: pd.DataFrame) -> set[str]:
    return set(frame.loc[frame["label_state"] == "labelled", "group"])


@given(st.lists(images, min_size=3, max_size=60), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_properties(rows: list, seed: int) -> None:
    frame = frame_of(rows)
    if len(labelled_groups(frame)) < 3:
        with pytest.raises(UserError, match=r"at least 3 are needed") as caught:
            assign_splits(frame, **SHARES, seed=seed)
        assert ("into masks/" in str(caught.value)) == (not labelled_groups(frame))
        return
    splits = assign_splits(frame, **SHARES, seed=seed)

    # No group straddles, unlabelled groups train, and every split gets labelled images.
    assert (splits.groupby(frame["group"]).nunique() == 1).all()
    unlabelled = ~frame["group"].isin(labelled_groups(frame))
    assert (splits[unlabelled] == "train").all()
    assert set(splits[frame["label_state"] == "labelled"]) == set(SPLITS)

    # With three groups that show something, every split shows something.
    shows = frame["pixels"].map(lambda pixels: pixels is not None and sum(pixels[1:]) > 0)
    if frame.loc[shows, "group"].nunique() >= 3:
        assert set(splits[shows]) == set(SPLITS)

    # The order of the rows does not matter, nor do unlabelled images that are added.
    shuffled = frame.sample(frac=1, random_state=0)
    assert assign_splits(shuffled, **SHARES, seed=seed).sort_index().equals(splits)
    more = pd.concat([frame, frame_of([(g, None) for g in range(12)])], ignore_index=True)
    assert assign_splits(more, **SHARES, seed=seed)[: len(frame)].equals(splits)


@pytest.mark.parametrize("seed", range(5))
def test_shares_hold_for_parts_of_unlike_size(seed: int) -> None:
    """A few parts with many images beside many parts with few, as a factory's cameras give."""
    rng = np.random.default_rng(seed)
    sizes = [70] * 12 + [1] * 60
    rows = [
        (group, tuple(rng.random(CLASSES) < (0.4, 0.1)))
        for group, size in enumerate(sizes)
        for _ in range(size)
    ]
    frame = frame_of(rows)
    splits = assign_splits(frame, **SHARES, seed=seed)
    shown = np.stack(frame["pixels"].to_list())[:, 1:] > 0
    quantities = np.column_stack([np.ones(len(frame)), shown])
    for split, share in zip(SPLITS, (0.6, 0.15, 0.25), strict=True):
        found = quantities[splits == split].sum(axis=0) / quantities.sum(axis=0)
        assert found == pytest.approx(np.full(3, share), abs=0.06)


def test_rare_class_reaches_train_first_and_then_test() -> None:
    common = [(group, (True, False)) for group in range(8)]
    once = frame_of([*common, (8, (False, True))])
    assert assign_splits(once, **SHARES, seed=0).iloc[-1] == "train"
    twice = frame_of([*common, (8, (False, True)), (9, (False, True))])
    assert set(assign_splits(twice, **SHARES, seed=0)[-2:]) == {"train", "test"}
    thrice = frame_of([*common, *((group, (False, True)) for group in (8, 9, 10))])
    assert set(assign_splits(thrice, **SHARES, seed=0)[-3:]) == set(SPLITS)


def test_seed_draws_other_parts() -> None:
    frame = frame_of([(group, (True, True)) for group in range(12)])
    drawn = {tuple(assign_splits(frame, **SHARES, seed=seed)) for seed in range(5)}
    assert len(drawn) > 1


def test_excluded_images_do_not_count() -> None:
    frame = frame_of([(group, (True, True)) for group in range(4)])
    frame.loc[0:1, "label_state"] = "excluded"
    with pytest.raises(UserError, match="from 2 parts"):
        assign_splits(frame, **SHARES, seed=0)


def test_labels_that_were_refused_are_spread_like_the_others() -> None:
    """So that the gate, not the split, tells of them."""
    frame = frame_of([(group, (True, True)) for group in range(6)])
    frame["pixels"] = [None] * 6
    assert set(assign_splits(frame, **SHARES, seed=0)) == set(SPLITS)


@pytest.mark.parametrize("given", [{"test"}, {"val"}, {"val", "test"}])
def test_split_that_the_source_holds_out_gets_no_more(given: set[str]) -> None:
    frame = frame_of([(group, (True, True)) for group in range(40)])
    for offset, split in enumerate(sorted(given)):
        frame.loc[frame.index % 10 == offset, "split"] = split
    before = frame["split"]
    splits = assign_splits(frame, **SHARES, seed=0)
    assert splits[before.notna()].equals(before.dropna())
    divided = splits[before.isna()].value_counts(normalize=True)
    shares = {"val": 0.15, "test": 0.25}
    assert set(divided.index) == {"train", *shares} - given
    for split in shares.keys() - given:
        assert divided[split] == pytest.approx(shares[split], abs=0.05)


def test_archive_holds_out_whole_groups() -> None:
    frame = frame_of([(group, None) for group in range(10) for _ in range(7)])
    splits = hold_out(frame, 0.2, seed=0)
    assert (splits.groupby(frame["group"]).nunique() == 1).all()
    assert splits.value_counts().to_dict() == {"train": 56, "val": 14}
    assert hold_out(frame.sample(frac=1, random_state=0), 0.2, seed=0).sort_index().equals(splits)
    assert not hold_out(frame, 0.2, seed=1).equals(splits)
    frame.loc[:6, "split"] = "val"
    assert hold_out(frame, 0.2, seed=0).value_counts().to_dict() == {"train": 63, "val": 7}


@pytest.mark.parametrize("seed", range(5))
def test_archive_validates_on_a_share_of_what_is_left(seed: int) -> None:
    frame = frame_of([(group, None) for group in range(20)])
    frame.loc[:14, "split"] = "test"
    divided = hold_out(frame, 0.2, seed).value_counts().to_dict()
    assert divided == {"test": 15, "train": 4, "val": 1}
