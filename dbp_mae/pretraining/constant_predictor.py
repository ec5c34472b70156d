"""The predictor that every pre-training has to beat: each patch's own mean."""

HARDLY = 0.98


def hardly_beaten(loss: float, constant_loss: float) -> bool:
    """Tell whether a validation loss is above 98 % of the constant predictor's."""
    return loss > HARDLY * constant_loss
