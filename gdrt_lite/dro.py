"""Group DRO, the heart of the method, as pure functions on tensors. Start reading the package here.

Training tokens fall into groups g. L(g) is the mean cross-entropy of group g, P a prior over groups. An adversary picks the
weights Q that hurt most, and pays for straying from P:

    max_Q  sum_g Q(g) L(g) - tau * KL(Q || P)                                   (arXiv 2510.10978, Eq. 4)

Its solution is known in closed form, and so are its value and (envelope theorem) its gradient in the model's parameters:

    Q*(g) = P(g) exp(L(g) / tau) / Z                                             (Eq. 5)
    value = tau * log sum_g P(g) exp(L(g) / tau),     gradient = sum_g Q*(g) grad L(g),  with Q* held fixed

So training needs three steps per batch: losses per group, weights, weighted sum. As tau -> infinity the weights return to P;
as tau -> 0 only the worst group counts. Derived in notebook 05.
"""

from __future__ import annotations

import math

import torch


def group_losses(token_losses: torch.Tensor, group_ids: torch.Tensor, n_groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss L(g) and number of tokens of each group; differentiable in the token losses.

    Args:
        token_losses: cross-entropy of each target token, shape (N,), nats.
        group_ids: group of each token, shape (N,), integers in 0..n_groups-1.
        n_groups: K.

    Returns:
        (losses, counts), both of shape (K,): losses in the dtype of `token_losses`, counts in float32 or wider. An absent
        group has loss 0 and count 0, and no gradient.

    Raises:
        ValueError: shapes differ, ids are not integers, or an id is out of range.
    """
    sums, counts = group_sums(token_losses, group_ids, n_groups)
    return (sums / counts.clamp(min=1)).to(token_losses.dtype), counts


def group_sums(token_losses: torch.Tensor, group_ids: torch.Tensor, n_groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss S(g) and number N(g) of the tokens of each group, so that L(g) = S(g) / N(g).

    Sums and counts of parts of a batch add up, means do not: over several processes or micro-batches,
    L(g) = sum_p S_p(g) / sum_p N_p(g). Derived in notebook 08, section 5. Arguments and errors are those of `group_losses`.

    Returns:
        (sums, counts), both of shape (K,), float32 or wider; sums are differentiable in the token losses.
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
    # Half precision cannot count past 256 (bfloat16) or sum past 65504 (float16): add up in float32 at least.
    wide = token_losses.to(torch.promote_types(token_losses.dtype, torch.float32))
    sums = wide.new_zeros(n_groups).index_add(0, index, wide)
    counts = wide.new_zeros(n_groups).index_add(0, index, torch.ones_like(wide))
    return sums, counts


def group_weights(
    losses: torch.Tensor, tau: float, prior: torch.Tensor | None = None, present: torch.Tensor | None = None
) -> torch.Tensor:
    """The adversary's weights Q*(g), proportional to P(g) exp(L(g) / tau) (Eq. 5).

    Args:
        losses: L(g), shape (K,), nats; an absent group's value is ignored, NaN included.
        tau: temperature in nats, positive and finite: how much KL divergence from the prior costs.
        prior: P(g), shape (K,), non-negative; normalised here. None is uniform.
        present: which groups the batch holds, shape (K,), bool. An absent group gets weight exactly 0. None: all.

    Returns:
        Weights of shape (K,), summing to 1, detached from the graph: the envelope theorem wants them held fixed.

    Raises:
        ValueError: tau is not positive and finite, a loss is NaN, the prior is no distribution, or no group is present.
    """
    wide, log_prior = _checked(losses, tau, prior, present)
    return torch.softmax(wide.detach() / tau + log_prior, dim=0).to(losses.dtype)


def reversed_group_weights(
    losses: torch.Tensor, tau: float, prior: torch.Tensor | None = None, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Weights proportional to P(g) exp(-L(g) / tau): the easy groups rule. The noise-amplification control.

    Arguments, result and errors are those of `group_weights`. Used in notebook 07, section 3.
    """
    wide, log_prior = _checked(losses, tau, prior, present)
    return torch.softmax(-wide.detach() / tau + log_prior, dim=0).to(losses.dtype)


def dro_objective(
    losses: torch.Tensor, tau: float, prior: torch.Tensor | None = None, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Value of the inner maximum, tau * log sum_g P(g) exp(L(g) / tau) (Eq. 4), over the present groups.

    Its gradient by autograd is `group_weights`: the test of the envelope theorem. Arguments and errors as there.
    """
    wide, log_prior = _checked(losses, tau, prior, present)
    return (tau * torch.logsumexp(wide / tau + log_prior, dim=0)).to(losses.dtype)


def ema_update(previous: torch.Tensor, losses: torch.Tensor, present: torch.Tensor, decay: float) -> torch.Tensor:
    """Running mean of L(g) over batches: decay * previous + (1 - decay) * losses, where the group is present.

    Args:
        previous: shape (K,); NaN where a group was never seen, which then takes the batch's value.
        losses: L(g) of the batch, shape (K,).
        present: which groups the batch holds, shape (K,), bool; the others keep their previous value.
        decay: between 0 (the batch alone) and 1.

    Raises:
        ValueError: decay is out of range.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay={decay} must lie between 0 and 1, for example 0.9.")
    mixed = decay * previous + (1 - decay) * losses
    return torch.where(present, torch.where(previous.isnan(), losses, mixed), previous)


def _checked(
    losses: torch.Tensor, tau: float, prior: torch.Tensor | None, present: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The arguments of a formula, once they are found sound.

    Returns:
        losses, shape (K,), in float32 or wider, 0 where a group does not take part; log P(g), shape (K,), renormalised over
        the groups that take part, -inf for the others. A group takes part when it is present and its prior is positive.
    """
    if not (math.isfinite(tau) and tau > 0):
        raise ValueError(f"tau={tau} must be a positive, finite number of nats, for example 1.0.")
    if losses.ndim != 1 or not len(losses):
        raise ValueError(f"losses must have shape (K,) with K >= 1, not {tuple(losses.shape)}.")
    # Half precision overflows where a loss is divided by a small tau.
    losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
    prior = torch.ones_like(losses) if prior is None else torch.as_tensor(prior).to(losses)
    if prior.shape != losses.shape or (prior < 0).any() or not torch.isfinite(prior).all():
        raise ValueError(f"prior must hold {len(losses)} finite, non-negative numbers, one per group.")
    present = torch.ones_like(losses, dtype=torch.bool) if present is None else present.to(losses.device, torch.bool)
    if present.shape != losses.shape:
        raise ValueError(f"present must hold {len(losses)} booleans, one per group, not shape {tuple(present.shape)}.")
    takes_part = present & (prior > 0)
    if not takes_part.any():
        raise ValueError("no group is left: none is present with a positive prior.")
    if losses[present].isnan().any():
        raise ValueError("a group loss is NaN; mark groups without tokens as absent (present=False) instead.")
    prior = prior * takes_part
    return losses.masked_fill(~takes_part, 0.0), (prior / prior.sum()).log()
