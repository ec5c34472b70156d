"""The search for a variant's learning rate: by factors of two, until the best stands between worse ones."""

import math
from collections.abc import Mapping

FACTOR = 2.0


def next_rate(losses: Mapping[float, float]) -> float | None:
    """Return the learning rate to try next, or None where the best one is bracketed.

    Bracketed means that a smaller and a larger rate both end worse than the best.

    Args:
        losses: by the learning rates tried, of which there is one at least; inf where it diverged.
    """
    best = best_rate(losses)
    if not any(rate < best and _worse(losses, rate, best) for rate in losses):
        return min(losses) / FACTOR
    if not any(rate > best and _worse(losses, rate, best) for rate in losses):
        return max(losses) * FACTOR
    return None


def best_rate(losses: Mapping[float, float]) -> float:
    """Return the learning rate of the least loss; of equals, the smallest."""
    return min(losses, key=lambda rate: (losses[rate], rate))


def _worse(losses: Mapping[float, float], rate: float, best: float) -> bool:
    """Tell whether a rate ends worse than the best one."""
    return losses[rate] > losses[best] or math.isinf(losses[rate])
