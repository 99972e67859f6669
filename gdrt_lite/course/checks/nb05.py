"""Checks of notebook 05."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from gdrt_lite import dro
from gdrt_lite.course.checks import Exercise, Mistake

THREE = torch.tensor([0.5, 1.2, 2.0])
UNIFORM = torch.full((3,), 1 / 3)
SKEWED = torch.tensor([0.7, 0.2, 0.1])


# --- 05.1: with a pencil ---
def _two_digits(weights: Iterable[float]) -> np.ndarray:
    """Rounded, so that an answer of two digits is read like one of three."""
    return np.round([float(weight) for weight in weights], 2)


# --- 05.3: the closed form ---
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


# --- 05.2: the derivation ---
def _steps(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Step 4, the slope of J at q (K,); step 7, the price lambda; step 8, the weights (K,)."""
    slope = losses - tau * ((q / prior).log() + 1)
    price = tau * (torch.logsumexp(losses / tau + prior.log(), 0) - 1)
    return slope, price, prior * torch.exp((losses - price) / tau - 1)


def _without_the_one(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    slope, price, weights = _steps(losses, tau, prior, q)
    return slope + tau, price + tau, weights


def _price_without_the_one(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    slope, price, weights = _steps(losses, tau, prior, q)
    return slope, price + tau, weights


def _price_in_logarithms(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    slope, price, weights = _steps(losses, tau, prior, q)
    return slope, price / tau, weights


def _not_yet_scaled(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return *_steps(losses, tau, prior, q)[:2], prior * torch.exp(losses / tau)


def _no_kl(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return losses, *_steps(losses, tau, prior, q)[1:]


def _slope_from_prior_to_q(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return losses - tau * ((prior / q).log() + 1), *_steps(losses, tau, prior, q)[1:]


def _slope_of_lagrangian(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    slope, price, weights = _steps(losses, tau, prior, q)
    return slope - price, price, weights


def _slope_without_prior(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return losses - tau * (q.log() + 1), *_steps(losses, tau, prior, q)[1:]


def _price_negated(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    slope, price, weights = _steps(losses, tau, prior, q)
    return slope, -price, weights


def _shifted_not_normalised(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return prior * torch.exp((losses - losses.max()) / tau)


# --- 05.5: a world ---
def _verdict(gap: tuple[float, float, float]) -> str:
    """What the interval (estimate, low, high) of GDRT minus balanced says, worst group's accuracy."""
    _, low, high = gap
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


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


EXERCISES = [
    Exercise(
        "05.1",
        "Weights with a pencil",
        reference=[0.040, 0.161, 0.799],
        view=_two_digits,
        mistakes=[
            Mistake("tau multiplies the losses here; the closed form divides by it.", [0.224, 0.318, 0.474]),
            Mistake("that is the softmax of the bare losses: divide them by tau first.", [0.133, 0.268, 0.598]),
            Mistake("these are L/tau: the exponentials and their shares are missing.", [1.0, 2.4, 4.0]),
            Mistake("these are powers of 10: the exponential has the base e.", [0.001, 0.024, 0.975]),
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
        "Steps 4 to 8",
        reference=_steps,
        cases=[(THREE, 0.5, UNIFORM, UNIFORM), (THREE, 2.0, SKEWED, UNIFORM), (THREE, 0.7, SKEWED, SKEWED.flip(0))],
        mistakes=[
            Mistake(
                "the slope lacks the +1 of the product rule (step 4), and so does the price: d/dq of q log q is log q + 1.",
                _without_the_one,
            ),
            Mistake(
                "the slope is right; the price is not. Solve exp(1 + lambda/tau) = Z for lambda, and keep the 1.",
                _price_without_the_one,
            ),
            Mistake(
                "the price is measured in nats of loss: lambda = tau (log Z - 1), and the tau in front is missing.",
                _price_in_logarithms,
            ),
            Mistake("the weights do not sum to one: step 7 says what scale they need.", _not_yet_scaled),
            Mistake("this is the slope of Lambda. The slope of J is asked for: leave lambda out.", _slope_of_lagrangian),
            Mistake("KL compares Q with the prior: the slope has log(q / P), and the P is missing.", _slope_without_prior),
            Mistake("the price has the wrong sign: at the maximum every slope of J equals lambda.", _price_negated),
            Mistake(
                "the slope is that of the losses alone; moving away from the prior has its price, tau times KL.", _no_kl
            ),
            Mistake("KL(Q || P) has Q above the fraction bar and P below it; yours is upside down.", _slope_from_prior_to_q),
        ],
        after="these are steps 4, 7 and 8. At the weights every slope equals the price, which is step 5.",
    ),
    Exercise(
        "05.3",
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
            Mistake("the sign is flipped: the group with the lowest loss gets the largest weight.", _reversed),
            Mistake("the weights do not sum to one: divide by their total.", _not_normalised),
            Mistake("the weights do not sum to one: divide by their total.", _shifted_not_normalised),
            Mistake("these are logarithms of weights: take the exponential.", lambda *given: _tilted(*given).log()),
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
        "05.4",
        "How much does one token weigh?",
        reference=_token_weights,
        cases=[
            (torch.tensor([2.0, 1.0, 0.5, 0.7]), torch.tensor([0, 1, 1, 1]), 2, 0.5),
            (torch.tensor([2.0, 1.0, 0.5, 0.7, 0.1]), torch.tensor([0, 1, 2, 2, 0]), 3, 2.0),
            (torch.tensor([1.5, 0.3, 0.3]), torch.tensor([2, 0, 0]), 4, 1.0),
        ],
        mistakes=[
            Mistake(
                "each token has its group's full weight. L(g) is a mean: its weight is shared by n(g) tokens.", _not_divided
            ),
            Mistake(
                "a group without tokens took part of the weight, so the tokens' weights do not sum to one. "
                "Pass present=counts > 0 to dro.group_weights.",
                _absent_heard,
            ),
            Mistake("that weighs token by token; the groups' mean losses must decide.", _tokens_softmaxed),
            Mistake("you divided by the batch's tokens; divide by those of the token's own group.", _batch_mean),
            Mistake(
                "you divided all weights by their total. They sum to one, but a group with many tokens now has "
                "more than its weight. Divide each token's weight by the number of tokens in its own group.",
                _renormalised,
            ),
            Mistake("these are the weighted losses; return what each loss is multiplied by.", _times_loss),
        ],
        after="The weights sum to one, and a token of a small group weighs more than one of a large group.",
    ),
    Exercise(
        "05.5",
        "A world in which GDRT beats balancing",
        reference=(0.2, 0.1, 0.3),
        view=_verdict,
        mistakes=[
            Mistake(
                "the interval includes zero: your world does not tell the two rules apart. A group marked 0 stays near one "
                "half under every rule and hides the others: leave it out. Else let the shortcut win the vote that "
                "balanced weights give to each group.",
                (0.01, -0.02, 0.04),
            ),
            Mistake(
                "GDRT is worse in your world. Is the group that it listens to so small that its few examples are learned by "
                "heart? Give it twenty examples or more.",
                (-0.1, -0.2, -0.05),
            ),
        ],
        after="balancing depends on how the groups are cut, and DRO depends on it less.",
    ),
]
