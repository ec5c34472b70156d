"""A plan of two plain variants and a decorrelated one."""

from typing import Any

from dbp_mae.comparison.plan import Plan
from dbp_mae.params import Params, PretrainParams

PLAIN = {"optimizer": "adamw", "decorrelation": {"update": "none"}}
PRESERVING = {"optimizer": "muon", "decorrelation": {"update": "function-preserving"}}


def plan(**changes: Any) -> Plan:
    content = {
        "baseline": "plain",
        "variants": {
            "plain": {"learning_rates": [0.001], "pretrain": PLAIN},
            "twin": {"learning_rates": [0.001], "pretrain": PLAIN},
            "preserving": {"learning_rates": [0.001], "pretrain": PRESERVING},
        },
        "tuning": {"seeds": [0], "extensions": 0},
        "seeds": [1],
    }
    return Plan.model_validate(content | changes)


def settings(params: Params, variant: str) -> PretrainParams:
    return plan().settings(params.pretrain)[variant]
