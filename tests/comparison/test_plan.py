"""The comparison's file: what its variants come to, and the files of the repository."""

from pathlib import Path

import pytest
from default_params import default_params
from small_plan import PLAIN, plan

from dbp_mae.comparison.plan import load_plan
from dbp_mae.params import Params


@pytest.mark.parametrize(("steps", "warmup"), [({}, 20), ({"steps": 10}, 4)])
def test_a_variants_warm_up_is_a_share_of_its_own_steps(
    steps: dict[str, int], warmup: int, params: Params
) -> None:
    common = params.pretrain.model_copy(update={"steps": 50, "warmup_steps": 7})
    other = {"learning_rates": [0.001], "pretrain": PLAIN}
    own = {"learning_rates": [0.001], "warmup": 0.4, "pretrain": {**PLAIN, **steps}}
    found = plan(variants={"plain": other, "slow": own}).settings(common)
    assert {name: each.warmup_steps for name, each in found.items()} == {"plain": 7, "slow": warmup}


def test_the_files_of_the_repository_fit() -> None:
    """Their variants move R as they say, whatever the last experiment left in params.yaml."""
    folder = Path(__file__).parents[2] / "conf/comparison"
    for file in folder.glob("*.yaml"):
        made = load_plan(file)
        common = made.common(default_params()).pretrain
        other = {"eps": 0.001, "total_eps": None, "every": 1, "layers": ["qkv"]}
        left = common.model_copy(
            update={"decorrelation": common.decorrelation.model_copy(update=other)}
        )
        settings = made.settings(common)
        assert settings.keys() == made.variants.keys()
        for name, changed in made.settings(left).items():
            if changed.decorrelation.update != "none":
                assert changed == settings[name]
    assert {file.stem for file in folder.glob("*.yaml")} == {"default", "quick"}
