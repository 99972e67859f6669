"""Group DRO, the heart of the method, as pure functions on tensors. Start reading the package here.

Training tokens fall into groups g. L(g) is the mean cross-entropy of group g, P a prior over groups. An adversary picks the
weights Q that hurt most, and pays for straying from P:

    max_Q  sum_g Q(g) L(g) - tau * KL(Q || P)                                   (arXiv 2510.10978, Eq. 4)

Its solution is known in closed form, and so are its value and (envelope theorem) its gradient in the model's parameters:

    Q*(g) = P(g) exp(L(g) / tau) / Z                                             (Eq. 5)
    value = tau * log sum_g P(g) exp(L(g) / tau),     gradient = sum_g Q*(g) grad L(g),  with Q* held fixed

So training needs three steps a batch: losses per group, weights, weighted sum. tau -> infinity gives back P; tau -> 0 looks
at the worst group only. Derived in notebook 05.
"""

from __future__ import annotations

import math

import torch


def group_losses(
    token_losses: torch.Tensor, group_ids: torch.Tensor, n_groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss L(g) and number of tokens of each group; differentiable in the token losses.

    Args:
        token_losses: cross-entropy of each target token, shape (N,), nats.
        group_ids: group of each token, shape (N,), integers in 0..n_groups-1.
        n_groups: K.

    Returns:
        (losses, counts), both of shape (K,) in the dtype of `token_losses`. An absent group has loss 0 and count 0.

    Raises:
        ValueError: shapes differ, ids are not integers, or an id is out of range.
    """
    if token_losses.ndim != 1 or token_losses.shape != group_ids.shape:
        raise ValueError(
            f"token_losses {tuple(token_losses.shape)} and group_ids {tuple(group_ids.shape)} must be one-dimensional "
            "and of equal length."
        )
    if group_ids.dtype.is_floating_point or group_ids.dtype == torch.bool:
        raise ValueError(f"group_ids must be integers, not {group_ids.dtype}.")
    if len(group_ids) and not 0 <= int(group_ids.min()) <= int(group_ids.max()) < n_groups:
        raise ValueError(f"group_ids must lie between 0 and n_groups-1={n_groups - 1}.")
    index = group_ids.long()
    zeros = token_losses.new_zeros(n_groups)
    sums = zeros.index_add(0, index, token_losses)
    counts = zeros.index_add(0, index, torch.ones_like(token_losses))
    return sums / counts.clamp(min=1), counts


def group_weights(
    losses: torch.Tensor, tau: float, prior: torch.Tensor | None = None, present: torch.Tensor | None = None
) -> torch.Tensor:
    """The adversary's weights Q*(g), proportional to P(g) exp(L(g) / tau) (Eq. 5).

    Args:
        losses: L(g), shape (K,), nats.
        tau: temperature in nats, positive and finite: how much KL divergence from the prior costs.
        prior: P(g), shape (K,), non-negative; normalised here. None is uniform.
        present: which groups the batch holds, shape (K,), bool. An absent group gets weight exactly 0. None: all.

    Returns:
        Weights of shape (K,), summing to 1, detached from the graph: the envelope theorem wants them held fixed.

    Raises:
        ValueError: tau is not positive and finite, a loss is NaN, the prior is no distribution, or no group is present.
    """
    return _tilted(losses, +1.0, tau, prior, present)


def reversed_group_weights(
    losses: torch.Tensor, tau: float, prior: torch.Tensor | None = None, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Weights proportional to P(g) exp(-L(g) / tau): the easy groups rule. The seed's noise-amplification control.

    Arguments, result and errors are those of `group_weights`. Used in notebook 07, section 1.
    """
    return _tilted(losses, -1.0, tau, prior, present)


def dro_objective(
    losses: torch.Tensor, tau: float, prior: torch.Tensor | None = None, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Value of the inner maximum, tau * log sum_g P(g) exp(L(g) / tau) (Eq. 4), over the present groups.

    Its gradient by autograd is `group_weights`: the test of the envelope theorem. Arguments and errors as there.
    """
    log_prior = _log_prior(losses, tau, prior, present)
    return tau * torch.logsumexp(losses / tau + log_prior, dim=0)


def ema_update(
    previous: torch.Tensor, losses: torch.Tensor, present: torch.Tensor, decay: float
) -> torch.Tensor:
    """Running mean of L(g) over batches: decay * previous + (1 - decay) * losses, where the group is present.

    Args:
        previous: shape (K,); NaN where a group was never seen, which then takes the batch's value.
        losses: L(g) of the batch, shape (K,).
        present: which groups the batch holds, shape (K,), bool; the others keep their previous value.
        decay: between 0 and 1.
    """
    mixed = decay * previous + (1 - decay) * losses
    return torch.where(present, torch.where(previous.isnan(), losses, mixed), previous)


def _tilted(
    losses: torch.Tensor, sign: float, tau: float, prior: torch.Tensor | None, present: torch.Tensor | None
) -> torch.Tensor:
    losses = losses.detach()
    return torch.softmax(sign * losses / tau + _log_prior(losses, tau, prior, present), dim=0)


def _log_prior(
    losses: torch.Tensor, tau: float, prior: torch.Tensor | None, present: torch.Tensor | None
) -> torch.Tensor:
    """log P(g), renormalised over the present groups, -inf for the others; every argument is checked here."""
    if not (math.isfinite(tau) and tau > 0):
        raise ValueError(f"tau={tau} must be a positive, finite number of nats, for example 1.0.")
    if losses.ndim != 1 or not len(losses):
        raise ValueError(f"losses must have shape (K,) with K >= 1, not {tuple(losses.shape)}.")
    if losses.isnan().any():
        raise ValueError("a group loss is NaN; mark groups without tokens as absent (present=False) instead.")
    if prior is None:
        prior = torch.ones_like(losses)
    prior = prior.to(losses)
    if prior.shape != losses.shape or (prior < 0).any() or not torch.isfinite(prior).all():
        raise ValueError(f"prior must hold {len(losses)} finite, non-negative numbers, one a group.")
    if present is not None:
        prior = prior * present.to(prior)
    if prior.sum() <= 0:
        raise ValueError("no group is left: none is present with a positive prior.")
    return (prior / prior.sum()).log()
