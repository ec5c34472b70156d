"""Several compiled models in one process."""

import torch

RECOMPILATIONS = 8
"""Allowed to each model that takes turns with others: PyTorch's own limit for one."""


def make_room_for_compiled(models: int) -> None:
    """Forget the code compiled for earlier models; never let one silently go on uncompiled."""
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = RECOMPILATIONS * models
    torch._dynamo.config.fail_on_recompile_limit_hit = True
