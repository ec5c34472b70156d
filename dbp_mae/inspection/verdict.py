"""From objects to the answer the line acts on."""

from collections.abc import Iterable
from typing import Literal

from dbp_mae.inspection.objects import InspectionObject

Verdict = Literal["accept", "reject"]


def verdict(objects: Iterable[InspectionObject]) -> Verdict:
    """Reject a part with any object of a defect class."""
    return "reject" if any(item.defect for item in objects) else "accept"
