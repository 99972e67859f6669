"""A metric: the mean reciprocal rank. Cells that were measured before have it too, since they keep their lists."""

from gdrt_lite.study import report
from gdrt_lite.study.cell import Evaluation


def mrr(cell: Evaluation) -> dict[str, report.Metric]:
    """MRR@10: 1 / (rank + 1) with rank from 0, and 0 where the target is not in the list."""
    ranks = [own.index(target) if target in own else None for own, target in zip(cell.lists, cell.targets, strict=True)]
    return {"MRR@10": report.mean_metric([0.0 if rank is None else 1 / (rank + 1) for rank in ranks], cell.users)}


report.FAMILIES.append(mrr)
