"""Break the method on purpose: each sabotage must be caught by a property that holds for the real one."""

from __future__ import annotations

import pytest
import torch

from gdrt_lite import dro, groups, objectives

LOSSES, TAU = torch.tensor([0.5, 1.2, 2.0]), 0.5


def gradient_is_that_of_the_objective() -> bool:
    """The envelope theorem: weights equal the gradient of tau * log sum P exp(L / tau)."""
    losses = LOSSES.clone().requires_grad_()
    (TAU * torch.logsumexp(losses / TAU, 0)).backward()
    return torch.allclose(losses.grad, dro.group_weights(LOSSES, TAU), atol=1e-6)


def worst_group_is_heard_most() -> bool:
    _, log = objectives.Objective("gdrt", 2, TAU)(torch.tensor([2.0, 0.1]), torch.tensor([0, 1]))
    return log["weight_g0"] > log["weight_g1"]


def group_zero_is_the_least_relevant() -> bool:
    scores = {title: torch.tensor([-5.0 - place / 10, -0.1 - place / 100]) for place, title in enumerate("abcdefgh")}
    fitted = groups.fit(scores, scores, n_groups=2)
    return all(fitted.of(title).tolist() == [0, 1] for title in scores)


PROPERTIES = (gradient_is_that_of_the_objective, worst_group_is_heard_most, group_zero_is_the_least_relevant)


def test_the_real_method_has_every_property():
    assert all(holds() for holds in PROPERTIES)


def flip_the_sign(monkeypatch):
    monkeypatch.setattr(dro, "group_weights", dro.reversed_group_weights)


def multiply_by_tau(monkeypatch):
    whole = dro.group_weights
    monkeypatch.setattr(dro, "group_weights", lambda losses, tau, *rest: whole(losses, 1 / tau, *rest))


def shuffle_the_groups(monkeypatch):
    whole = groups.fit
    monkeypatch.setattr(groups, "fit", lambda *args, **kwargs: whole(*args, **kwargs).shuffled(1))


@pytest.mark.parametrize("sabotage", [flip_the_sign, multiply_by_tau, shuffle_the_groups])
def test_each_sabotage_is_caught(sabotage, monkeypatch):
    sabotage(monkeypatch)
    assert not all(holds() for holds in PROPERTIES)
