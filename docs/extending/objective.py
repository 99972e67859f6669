"""An objective with a parameter of its own: CVaR, the mean over the worst share alpha of the groups."""

import torch

from gdrt_lite.objectives import GROUPING, OBJECTIVES, BatchGroups, ObjectiveSpec


def cvar(batch: BatchGroups) -> torch.Tensor:
    """Equal weights on the groups with the largest losses, a share `alpha` of those present; Q, shape (K,)."""
    worst = max(1, round(batch.parameters["alpha"] * int(batch.present.sum())))
    losses = batch.losses.masked_fill(~batch.present, -torch.inf)
    chosen = torch.zeros_like(losses).scatter(0, losses.topk(worst).indices, 1.0)
    return chosen / chosen.sum()


OBJECTIVES["cvar"] = ObjectiveSpec("equal weights on the worst groups", cvar, uses=GROUPING, parameters={"alpha": 0.4})
