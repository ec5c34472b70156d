import json
from typing import Any

import pytest

from dbp_mae.errors import UserError
from dbp_mae.inspection.model_card import METADATA_KEY, ModelCard


def test_a_card_survives_its_metadata(tiny_card: ModelCard) -> None:
    assert ModelCard.from_metadata(tiny_card.to_metadata()) == tiny_card


def test_a_file_without_a_card_is_refused() -> None:
    with pytest.raises(UserError, match="no model card"):
        ModelCard.from_metadata({"author": "someone else"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", 2),
        ("classes", []),
        ("classes", [{"name": "wire", "color": "red", "defect": False}]),
        ("classes", [{"name": "wire", "color": "#2f7ed8", "defect": False}] * 2),
        ("channels", 4),
        ("white_level", 0),
        ("overlap", 33),
        ("min_score", 1.5),
        ("mean", [0.5, 0.5]),
        ("std", [0.0]),
        ("energy_kwh", None),
        ("validation", {"miou": "NaN"}),
        ("reference", {"mean": [0.0] * 21}),
        ("reference", {name: [0.0] * 20 for name in ("mean", "std", "sharpness", "saturated")}),
        ("unknown", 1),
    ],
)
def test_a_wrong_card_is_refused_by_the_key(tiny_card: ModelCard, key: str, value: Any) -> None:
    content = json.loads(tiny_card.to_metadata()[METADATA_KEY])
    with pytest.raises(UserError, match=key):
        ModelCard.from_metadata({METADATA_KEY: json.dumps({**content, key: value})})


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_card_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="model card does not fit"):
        ModelCard.from_metadata({METADATA_KEY: text})
