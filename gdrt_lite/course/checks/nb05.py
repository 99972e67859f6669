"""Checks of notebook 05."""

from __future__ import annotations

import torch
from torch import Tensor

from gdrt_lite import dro
from gdrt_lite.course.checks import Exercise, Mistake

THREE = torch.tensor([0.5, 1.2, 2.0])
UNIFORM = torch.full((3,), 1 / 3)
SKEWED = torch.tensor([0.7, 0.2, 0.1])


# --- 05.2: the closed form ---
def _tilted(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return dro.group_weights(losses, tau, prior)


def _naive(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    raw = prior * torch.exp(losses / tau)
    return raw / raw.sum()


def _tau_multiplied(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return torch.softmax(losses * tau + prior.log(), dim=0)


def _no_prior(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return torch.softmax(losses / tau, dim=0)


def _reversed(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return torch.softmax(-losses / tau + prior.log(), dim=0)


def _not_normalised(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return prior * torch.exp(losses / tau)


def _prior_not_logged(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return torch.softmax(losses / tau + prior, dim=0)


# --- 05.3: the value ---
def _value(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return tau * torch.logsumexp(losses / tau + prior.log(), dim=0)


def _value_without_kl(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return (_tilted(losses, tau, prior) * losses).sum()


# --- 05.4: one token ---
def _token_weights(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    losses, counts = dro.group_losses(token_losses, group_ids, n_groups)
    return (dro.group_weights(losses, tau, present=counts > 0) / counts.clamp(min=1))[group_ids]


def _not_divided(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    losses, counts = dro.group_losses(token_losses, group_ids, n_groups)
    return dro.group_weights(losses, tau, present=counts > 0)[group_ids]


def _absent_heard(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    losses, counts = dro.group_losses(token_losses, group_ids, n_groups)
    return (dro.group_weights(losses, tau) / counts.clamp(min=1))[group_ids]


def _tokens_softmaxed(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    return torch.softmax(token_losses / tau, dim=0)


def _renormalised(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    full = _not_divided(token_losses, group_ids, n_groups, tau)
    return full / full.sum()


def _batch_mean(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    return _not_divided(token_losses, group_ids, n_groups, tau) / len(token_losses)


def _times_loss(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    return _token_weights(token_losses, group_ids, n_groups, tau) * token_losses


# --- 05.5: exponentiated gradient ---
def _eg(weights: Tensor, losses: Tensor, rate: float) -> Tensor:
    return torch.softmax(weights.log() + rate * losses, dim=0)


EXERCISES = [
    Exercise(
        "05.1",
        "Weights with a pencil",
        reference=[0.040, 0.161, 0.799],
        mistakes=[
            Mistake("tau multiplies the losses here; the closed form divides by it.", [0.224, 0.318, 0.474]),
            Mistake("that is the softmax of the bare losses: divide them by tau first.", [0.133, 0.268, 0.598]),
            Mistake("these are the exponentials; divide each by their total.", [2.718, 11.023, 54.598]),
            Mistake("these are shares of L/tau: take the exponential before the shares.", [0.135, 0.324, 0.541]),
            Mistake("these are per cent: write shares, which sum to one.", [4.0, 16.1, 79.9]),
            Mistake(
                "right numbers, wrong order: the weights stand in the order of the losses, and the highest "
                "loss gets the most.",
                [0.799, 0.161, 0.040],
            ),
        ],
        tolerance=0.02,
        after="The worst group has four fifths of the say, and the best is not silent.",
    ),
    Exercise(
        "05.2",
        "The closed form, with a prior",
        reference=_tilted,
        cases=[
            (THREE, 0.5, UNIFORM),
            (THREE, 2.0, SKEWED),
            (torch.tensor([1.0, 0.2]), 0.7, torch.tensor([0.9, 0.1])),
            (torch.tensor([3.0, 2.9, 0.1]), 0.01, SKEWED),
        ],
        mistakes=[
            Mistake(
                "exp overflows for a small tau, and inf / inf is NaN. Subtract the largest L/tau first, or "
                "let torch.softmax do it: P(g) goes inside as log P(g).",
                _naive,
            ),
            Mistake("tau multiplies the losses here; the closed form divides by it.", _tau_multiplied),
            Mistake("the prior is not used: each exponential is multiplied by P(g).", _no_prior),
            Mistake("the sign is flipped: the group with the lowest loss speaks loudest.", _reversed),
            Mistake("the weights do not sum to one: divide by their total.", _not_normalised),
            Mistake("inside the softmax the prior must stand as log P(g).", _prior_not_logged),
            Mistake(
                "you multiply by the prior after the softmax has divided by its total, so the weights no longer "
                "sum to one. The prior belongs under the total too.",
                lambda losses, tau, prior: prior * torch.softmax(losses / tau, dim=0),
            ),
            Mistake(
                "the prior multiplies the exponential, not the exponent: inside, it is added as log P(g).",
                lambda losses, tau, prior: torch.softmax(losses / tau * prior, dim=0),
            ),
            Mistake(
                "tau divides the losses only; here it divides log P(g) as well.",
                lambda losses, tau, prior: torch.softmax((losses + prior.log()) / tau, dim=0),
            ),
        ],
        after="The last case has tau = 0.01, where a plain exp would have overflowed.",
    ),
    Exercise(
        "05.3",
        "The value of the game",
        reference=_value,
        cases=[
            (THREE, 0.5, UNIFORM),
            (THREE, 2.0, SKEWED),
            (torch.tensor([1.5, 1.5]), 0.3, torch.tensor([0.2, 0.8])),
        ],
        mistakes=[
            Mistake("that is the loss part alone; the adversary also pays tau times KL.", _value_without_kl),
            Mistake(
                "the tau in front is missing: the value is measured in nats of loss.",
                lambda losses, tau, prior: torch.logsumexp(losses / tau + prior.log(), dim=0),
            ),
            Mistake(
                "tau is missing inside the sum: the losses are divided by it before the exponential.",
                lambda losses, tau, prior: tau * torch.logsumexp(losses + prior.log(), dim=0),
            ),
            Mistake(
                "the prior is missing. With a uniform prior you are too high by tau * log K.",
                lambda losses, tau, prior: tau * torch.logsumexp(losses / tau, dim=0),
            ),
            Mistake(
                "that is the worst group's loss, the limit for tau -> 0.",
                lambda losses, tau, prior: losses.max(),
            ),
        ],
        after="When all losses are equal (last case) the value is that loss, whatever tau is.",
    ),
    Exercise(
        "05.4",
        "How loud is one token?",
        reference=_token_weights,
        cases=[
            (torch.tensor([2.0, 1.0, 0.5, 0.7]), torch.tensor([0, 1, 1, 1]), 2, 0.5),
            (torch.tensor([2.0, 1.0, 0.5, 0.7, 0.1]), torch.tensor([0, 1, 2, 2, 0]), 3, 2.0),
            (torch.tensor([1.5, 0.3, 0.3]), torch.tensor([2, 0, 0]), 4, 1.0),
        ],
        mistakes=[
            Mistake(
                "each token has its group's full weight. L(g) is a mean: its weight is shared by n(g) tokens.",
                _not_divided,
            ),
            Mistake(
                "a group without tokens took part of the weight, so the tokens' weights do not sum to one. "
                "Hand `present` over.",
                _absent_heard,
            ),
            Mistake("that weighs token by token; the groups' mean losses must decide.", _tokens_softmaxed),
            Mistake(
                "you divided by the batch's tokens; divide by those of the token's own group.",
                _batch_mean,
            ),
            Mistake(
                "you divided all weights by their total. They sum to one, but a group with many tokens now has "
                "more than its weight. Divide each token's weight by the number of tokens in its own group.",
                _renormalised,
            ),
            Mistake("these are the weighted losses; return what each loss is multiplied by.", _times_loss),
        ],
        after="The weights sum to one: a small group's few tokens are loud, a big group's many are soft.",
    ),
    Exercise(
        "05.5",
        "One step of exponentiated gradient",
        reference=_eg,
        cases=[
            (UNIFORM, THREE, 0.1),
            (SKEWED, THREE, 0.5),
            (torch.tensor([0.25, 0.75]), torch.tensor([3.0, 1.0]), 1.0),
        ],
        mistakes=[
            Mistake(
                "the old weights are forgotten: multiply them, do not replace them.",
                lambda weights, losses, rate: torch.softmax(rate * losses, dim=0),
            ),
            Mistake(
                "inside the softmax the old weights must stand as their logarithm.",
                lambda weights, losses, rate: torch.softmax(weights + rate * losses, dim=0),
            ),
            Mistake(
                "the new weights do not sum to one: divide by their total.",
                lambda weights, losses, rate: weights * torch.exp(rate * losses),
            ),
            Mistake(
                "you multiplied by a softmax. Multiply by exp(rate * loss), then normalise the products.",
                lambda weights, losses, rate: weights * torch.softmax(rate * losses, dim=0),
            ),
            Mistake(
                "that adds; the step multiplies: each weight by exp(rate * loss).",
                lambda weights, losses, rate: (weights + rate * losses) / (weights + rate * losses).sum(),
            ),
            Mistake(
                "rate is a step size, it multiplies the loss (tau is what divides).",
                lambda weights, losses, rate: torch.softmax(weights.log() + losses / rate, dim=0),
            ),
            Mistake(
                "the sign is flipped: a high loss must raise a group's weight.",
                lambda weights, losses, rate: torch.softmax(weights.log() - rate * losses, dim=0),
            ),
        ],
        after="Unlike the closed form, this step remembers every loss that came before.",
    ),
]
