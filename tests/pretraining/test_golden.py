"""The losses of tiny trainings, step by step, as they were when the method was last changed."""

import json

import pytest
from golden_losses import FILE, VARIANTS, losses

# Processors and threads differ by 1e-6; the variants from one another by 5e-4 and more.
TOLERANCE = 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_as_they_were(variant: str) -> None:
    golden = json.loads(FILE.read_text())
    assert losses(variant) == pytest.approx(golden[variant], rel=TOLERANCE)
