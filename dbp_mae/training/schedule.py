"""The learning-rate schedule of both trainings."""

import math


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Return the factor on the learning rate at `step`: linear warm-up to 1, then a half cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))
