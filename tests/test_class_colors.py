"""Colours of classes."""

from dbp_mae.class_colors import class_color


def test_no_two_classes_have_one_colour() -> None:
    assert len({class_color(index) for index in range(254)}) == 254
