"""A trained recommender without a language model: matrix factorisation by gradient descent."""

from collections.abc import Mapping, Sequence

import torch

from gdrt_lite.baselines import Ranked
from gdrt_lite.data import Splits
from gdrt_lite.study.methods import YARDSTICKS, Method

Histories = Sequence[Sequence[str]]


def factorise(
    splits: Splits, histories: Histories, k: int, exclude: bool, seed: int, own: Mapping[str, float]
) -> list[Ranked]:
    """Score a title by the product of its vector with the mean vector of the history; cross-entropy over the catalogue."""
    torch.manual_seed(seed)
    number = {title: i for i, title in enumerate(splits.catalogue)}
    vectors = torch.nn.EmbeddingBag(len(number), int(own["width"]), mode="mean")
    output = torch.nn.Linear(int(own["width"]), len(number))
    optimiser = torch.optim.Adam([*vectors.parameters(), *output.parameters()], lr=0.01)
    known = [torch.tensor([number[title] for title in e.history]) for e in splits.train]
    targets = torch.tensor([number[e.target] for e in splits.train])
    ends = torch.tensor([0, *(len(row) for row in known)]).cumsum(0)[:-1]
    for _ in range(int(own["steps"])):
        loss = torch.nn.functional.cross_entropy(output(vectors(torch.cat(known), ends)), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    lists = []
    for history in histories:
        scores = output(vectors(torch.tensor([[number[title] for title in history]])))[0].detach()
        if exclude:
            scores[[number[title] for title in history]] = -torch.inf
        lists.append([(splits.catalogue[i], float(scores[i])) for i in scores.topk(k).indices.tolist()])
    return lists


YARDSTICKS["factors"] = Method(
    "matrix factorisation", seeded=True, parameters={"width": 16, "steps": 30}, recommend=factorise
)
