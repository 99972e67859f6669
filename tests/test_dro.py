"""Group DRO against hand-worked values, autograd, finite differences, and the definition of the inner maximum."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdrt_lite import dro

F64 = torch.float64
HAND = torch.tensor([0.5, 1.2, 2.0], dtype=F64)
loss_lists = st.lists(st.floats(0, 20), min_size=1, max_size=7)
taus = st.floats(0.05, 50)


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_the_worked_example():
    weights = dro.group_weights(HAND, tau=0.5)
    assert [round(w, 3) for w in weights.tolist()] == [0.040, 0.161, 0.799]


def test_reversed_weights_by_hand():
    raw = [math.exp(-x / 0.5) for x in HAND.tolist()]
    expected = column([x / sum(raw) for x in raw])
    torch.testing.assert_close(dro.reversed_group_weights(HAND, tau=0.5), expected)


def test_prior_multiplies_and_need_not_be_normalised():
    raw = [p * math.exp(x / 2.0) for p, x in zip([1, 3, 4], HAND.tolist())]
    expected = column([x / sum(raw) for x in raw])
    torch.testing.assert_close(dro.group_weights(HAND, 2.0, prior=torch.tensor([1, 3, 4])), expected)


def test_limits_of_tau():
    prior = column([0.2, 0.5, 0.3])
    torch.testing.assert_close(dro.group_weights(HAND, 1e-6, prior), column([0, 0, 1]))
    torch.testing.assert_close(dro.group_weights(HAND, 1e6, prior), prior, atol=1e-5, rtol=0)
    torch.testing.assert_close(dro.reversed_group_weights(HAND, 1e-6, prior), column([1, 0, 0]))
    torch.testing.assert_close(dro.dro_objective(HAND, 1e-6, prior), HAND[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(dro.dro_objective(HAND, 1e6, prior), (prior * HAND).sum(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_dtype_survives_a_tiny_tau(dtype):
    losses = HAND.to(dtype)
    weights = dro.group_weights(losses, 1e-6)
    assert weights.dtype == dtype and weights.tolist() == [0, 0, 1]
    assert dro.dro_objective(losses, 1e-6).item() == pytest.approx(2.0, abs=1e-2)


def test_a_shift_that_would_overflow_exp_changes_nothing():
    torch.testing.assert_close(dro.group_weights(HAND + 1e5, 0.5), dro.group_weights(HAND, 0.5), atol=1e-6, rtol=0)


@given(loss_lists, taus, st.randoms())
def test_permuting_groups_permutes_weights(values, tau, random):
    order = list(range(len(values)))
    random.shuffle(order)
    weights = dro.group_weights(column(values), tau)
    torch.testing.assert_close(dro.group_weights(column(values)[order], tau), weights[order])


@given(loss_lists, taus, st.floats(-30, 30))
def test_a_constant_added_to_all_losses_cancels(values, tau, shift):
    shifted = dro.group_weights(column(values) + shift, tau)
    torch.testing.assert_close(shifted, dro.group_weights(column(values), tau), atol=1e-9, rtol=1e-6)


@given(loss_lists, taus)
def test_weights_are_a_distribution_that_rises_with_the_loss(values, tau):
    losses = column(values)
    weights = dro.group_weights(losses, tau)
    assert weights.sum().item() == pytest.approx(1) and (weights >= 0).all()
    assert (weights[losses.argsort()].diff() >= -1e-12).all()
    assert (dro.reversed_group_weights(losses, tau)[losses.argsort()].diff() <= 1e-12).all()


@given(loss_lists, taus)
def test_objective_lies_between_the_mean_and_the_worst_group(values, tau):
    losses = column(values)
    value = dro.dro_objective(losses, tau)
    assert losses.mean() - 1e-9 <= value <= losses.max() + 1e-9


@given(loss_lists, taus, st.integers(0, 2**31))
def test_closed_form_attains_the_maximum_that_no_other_q_beats(values, tau, seed):
    losses = column(values)
    generator = torch.Generator().manual_seed(seed)
    prior = torch.rand(len(losses), generator=generator, dtype=F64) + 0.05
    prior = prior / prior.sum()

    def inner(q):  # sum_g Q L - tau KL(Q || P)
        return (q * losses).sum() - tau * torch.special.xlogy(q, q / prior).sum()

    best = inner(dro.group_weights(losses, tau, prior))
    torch.testing.assert_close(best, dro.dro_objective(losses, tau, prior))
    for _ in range(20):
        other = torch.rand(len(losses), generator=generator, dtype=F64) + 1e-6
        assert inner(other / other.sum()) <= best + 1e-9


def batch(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Token losses that depend on parameters in earnest, and their groups; group 2 of 4 is absent."""
    features = torch.linspace(-1, 2, 24, dtype=F64).reshape(8, 3)
    return torch.nn.functional.softplus(features @ theta), torch.tensor([0, 1, 1, 3, 0, 3, 3, 1])


def test_weighted_gradient_is_the_gradient_of_the_objective():
    """The envelope theorem, through an absent group and a prior."""
    prior, tau = column([1, 2, 5, 3]), 0.3
    theta = column([0.3, -0.7, 1.1]).requires_grad_()
    losses, counts = dro.group_losses(*batch(theta), 4)
    weights = dro.group_weights(losses, tau, prior, counts > 0)
    assert not weights.requires_grad
    (ours,) = torch.autograd.grad((weights * losses).sum(), theta, retain_graph=True)
    (exact,) = torch.autograd.grad(dro.dro_objective(losses, tau, prior, counts > 0), theta)
    torch.testing.assert_close(ours, exact)

    def value(point):
        losses, counts = dro.group_losses(*batch(point), 4)
        return dro.dro_objective(losses, tau, prior, counts > 0)

    step = 1e-6
    for i, move in enumerate(torch.eye(3, dtype=F64) * step):
        difference = (value(theta.detach() + move) - value(theta.detach() - move)) / (2 * step)
        assert ours[i].item() == pytest.approx(difference.item(), rel=1e-6)


def test_objective_passes_gradcheck():
    assert torch.autograd.gradcheck(lambda x: dro.dro_objective(x, 0.7, column([1, 2, 1])), HAND.clone().requires_grad_())


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 4)), max_size=30))
def test_group_losses_agree_with_a_loop(tokens):
    values = column([loss for loss, _ in tokens])
    ids = torch.tensor([g for _, g in tokens], dtype=torch.long)
    losses, counts = dro.group_losses(values, ids, 5)
    for g in range(5):
        own = [loss for loss, group in tokens if group == g]
        assert counts[g] == len(own)
        assert losses[g].item() == pytest.approx(sum(own) / len(own) if own else 0.0)


def test_absent_groups_have_no_weight_and_no_gradient():
    token_losses = column([1.0, 3.0]).requires_grad_()
    losses, counts = dro.group_losses(token_losses, torch.tensor([2, 2]), 4)
    assert losses.tolist() == [0, 0, 2, 0] and counts.tolist() == [0, 0, 2, 0]
    losses.sum().backward()
    assert token_losses.grad.tolist() == [0.5, 0.5]
    assert dro.group_weights(losses.detach(), 1.0, present=counts > 0).tolist() == [0, 0, 1, 0]


def test_absent_group_is_as_good_as_not_there_even_when_its_loss_is_nan_or_huge():
    present = torch.tensor([True, False, True])
    expected = dro.group_weights(HAND[present], 0.5, prior=column([1, 3]))
    for junk in (math.nan, math.inf, 1e30, -1e30):
        losses = column([0.5, junk, 2.0])
        for tau in (0.5, 1e-6):
            weights = dro.group_weights(losses, tau, column([1, 9, 3]), present)
            assert weights[1] == 0 and weights.sum().item() == pytest.approx(1)
        torch.testing.assert_close(dro.group_weights(losses, 0.5, column([1, 9, 3]), present)[present], expected)
        grad_of = losses.clone().requires_grad_()
        dro.dro_objective(grad_of, 0.5, column([1, 9, 3]), present).backward()
        torch.testing.assert_close(grad_of.grad[present], expected)
        assert grad_of.grad[1] == 0


def test_an_absent_group_does_not_set_the_scale_of_the_others():
    losses, present = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float16), torch.tensor([True, False, True])
    assert dro.reversed_group_weights(losses, 1e-6, present=present).tolist() == [1, 0, 0]


def test_half_precision_counts_and_sums_stay_exact():
    ids = torch.zeros(70_000, dtype=torch.int32)
    for dtype in (torch.float16, torch.bfloat16):
        losses, counts = dro.group_losses(torch.full((70_000,), 2.0, dtype=dtype), ids, 1)
        assert losses.dtype == dtype and losses.item() == 2.0 and counts.item() == 70_000


def test_ema_by_hand():
    previous = torch.tensor([1.0, math.nan, 3.0, math.nan])
    present = torch.tensor([True, True, False, False])
    updated = dro.ema_update(previous, torch.tensor([2.0, 5.0, 0.0, 0.0]), present, decay=0.9)
    torch.testing.assert_close(updated, torch.tensor([1.1, 5.0, 3.0, math.nan]), equal_nan=True)


@pytest.mark.parametrize("tau", [0, -1.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("function", [dro.group_weights, dro.reversed_group_weights, dro.dro_objective])
def test_bad_tau_is_named(function, tau):
    with pytest.raises(ValueError, match="tau="):
        function(HAND, tau)


@pytest.mark.parametrize(
    ("losses", "options", "words"),
    [
        (column([0.5, math.nan, 2.0]), {}, "NaN"),
        (HAND, {"prior": column([1, 1])}, "prior must hold 3"),
        (HAND, {"prior": column([1, -1, 1])}, "non-negative"),
        (HAND, {"prior": column([1, math.nan, 1])}, "finite"),
        (HAND, {"prior": column([0, 0, 0])}, "no group"),
        (HAND, {"present": torch.zeros(3, dtype=torch.bool)}, "no group"),
        (HAND, {"present": torch.tensor([True, False])}, "present must hold 3"),
        (HAND, {"prior": column([1, 0, 0]), "present": torch.tensor([False, True, True])}, "no group"),
        (HAND[None], {}, "shape"),
        (HAND[:0], {}, "shape"),
    ],
)
def test_bad_input_is_refused(losses, options, words):
    with pytest.raises(ValueError, match=words):
        dro.group_weights(losses, 1.0, **options)


@pytest.mark.parametrize(
    ("losses", "ids", "words"),
    [
        (torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.long), "one-dimensional"),
        (torch.ones(2), torch.zeros(3, dtype=torch.long), "equal length"),
        (torch.ones(2), torch.zeros(2), "integers"),
        (torch.ones(2), torch.tensor([0, 3]), "between 0 and n_groups-1=2"),
        (torch.ones(2), torch.tensor([-1, 0]), "between 0 and n_groups-1=2"),
    ],
)
def test_group_losses_refuse_bad_input(losses, ids, words):
    with pytest.raises(ValueError, match=words):
        dro.group_losses(losses, ids, 3)


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan])
def test_bad_decay_is_named(decay):
    with pytest.raises(ValueError, match="decay="):
        dro.ema_update(HAND, HAND, torch.ones(3, dtype=torch.bool), decay)
