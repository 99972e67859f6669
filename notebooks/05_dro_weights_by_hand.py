# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Whom do we listen to?
#
# A recommender that writes titles token by token meets easy tokens (the rest of a word, a year) and hard ones (the beginning of a title, where only the user
# could help). Plain training minimises the *mean* loss, which is called *empirical risk minimisation* or ERM, so the many easy tokens decide what is learned.
# *Distributionally robust optimisation* (DRO) minimises the *worst weighted* loss instead. In **Group DRO** the weights belong to groups of tokens: an adversary
# gives most weight to the group with the highest loss, and so the model listens to that group. This notebook derives the adversary's weights, tests them, and then
# looks for cases in which listening to the worst group is a mistake. (GDRT, *Group-DRO based tuning*, is the paper's name for training a recommender with them.)
#
# After this notebook you can:
#
# - **compute** the weights of Group DRO with a pencil,
# - **derive** them from the inner maximum, and say why each step is allowed,
# - **show** that the gradient is a weighted sum of the groups' gradients,
# - **choose** tau knowing what fails at both ends, and handle groups that a batch does not hold,
# - **tell** when DRO beats plain balancing, when it does not, and when it does harm.
#
# *Prerequisites:* softmax, cross-entropy and partial derivatives. KL divergence is explained in section 2. Notebook 04 says where groups come from, and you do not
# need it here. No language model is used, so everything runs on numbers that you can print.

# %% tags=["setup"] cellView="form" jupyter={"source_hidden": true}
# @title Setup: the clone around this notebook, else the installed package, else pip installs it
import os, subprocess, sys; from importlib import invalidate_caches, metadata
if os.path.exists("../gdrt_lite/__init__.py"): sys.path.insert(0, os.path.abspath(".."))
try: import gdrt_lite.course
except ImportError:  # pip keeps the torch and numpy that are there, so that nothing has to be restarted
    source = os.environ.get("GDRT_LITE_SOURCE") or "git+https://github.com/gdrt-lite/gdrt_lite"
    print(f"Installing {source} takes minutes; GDRT_LITE_SOURCE can name a wheel or a clone.", flush=True)
    kept = {f"{d.name}=={d.version}" for d in metadata.distributions() if d.name in ("torch", "numpy")}
    subprocess.run([sys.executable, "-m", "pip", "install", source, *kept], check=True)
    sys.modules.pop("gdrt_lite", None); invalidate_caches()  # a mere folder of that name may have been found
from gdrt_lite import plots; from gdrt_lite.course import checks
from gdrt_lite.course.notebook import card, pick, say

# %% tags=["card"]
card("05")

# %% tags=["imports"] jupyter={"source_hidden": true}
import ipywidgets as widgets
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from IPython.display import display
from torch import Tensor

from gdrt_lite import dro, metrics
from gdrt_lite.course.notebook import predict, reveal
from gdrt_lite.plots import canvas

# %% [markdown] tags=["definition"]
# ## 1. With a pencil first
#
# Tokens fall into $K$ groups. $L(g)$ is the mean cross-entropy of group $g$, in *nats* (the unit of the natural logarithm). Group DRO
# gives group $g$ the weight
#
# $$Q^*(g) = \frac{P(g)\, e^{L(g)/\tau}}{\sum_h P(h)\, e^{L(h)/\tau}}$$
#
# $P$ is a prior over the groups: the weights that we would give without looking at the losses (uniform, if nothing else is said). $\tau > 0$ is a temperature, in
# nats too. The formula is a softmax of the losses, and section 3 derives why.
#
# Take three groups with losses 0.5, 1.2 and 2.0, and tau = 0.5.

# %%
predict("05.a", "Does the worst group get less than half of the weight, about two thirds, or more?", ...)

# %% [markdown]
# ### Exercise 05.1 · Weights with a pencil
#
# *Difficulty 1/5 · importance 5/5 · 5 minutes*
#
# Use a pencil and a pocket calculator: divide by tau, exponentiate, and divide by the total. Write the three weights to three digits.

# %% tags=["exercise"]
pencil = ...  # a list of three numbers

# %% tags=["check"]
checks.check("05.1", pencil);

# %% [markdown]
# <details><summary>I do not know where to start</summary>
#
# Make a column of $L/\tau$. Dividing by a half is doubling. Then a column of $e^{L/\tau}$.
# </details>
#
# <details><summary>My weights sum to much more than one</summary>
#
# The last column is still missing: each exponential as a share of their sum. The uniform prior cancels.
# </details>
#
# <details><summary>My weights are nearly equal</summary>
#
# Is tau above or below the fraction bar? A small tau must make the weights sharper.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 05.1
pencil = [0.040, 0.161, 0.799]

checks.check("05.1", pencil);

# %% [markdown]
# The same table in code, column by column, must agree with the package's function, and with your pencil but for rounding.

# %% tags=["needed"]
losses = torch.tensor([0.5, 1.2, 2.0])  # L(g), nats
tau = 0.5

# %%
by_hand = pd.DataFrame({"L": losses, "L / tau": losses / tau, "exp(L / tau)": torch.exp(losses / tau)})
by_hand["weight"] = by_hand["exp(L / tau)"] / by_hand["exp(L / tau)"].sum()
by_hand.index.name = "group"

assert torch.allclose(torch.tensor(by_hand["weight"].to_numpy()), dro.group_weights(losses, tau), atol=1e-6)
by_hand.round(3)

# %% jupyter={"source_hidden": true}
weight = dro.group_weights(losses, tau)
say(
    "The worst group has {ratio:.0f} times the weight of the best, although its loss is only {times:.0f} times "
    "as high. Differences of losses count, and not their ratios: each {gap:.2f} nats of extra loss double a group's "
    "weight relative to the others.",
    ratio=(weight[2] / weight[0]).item(),
    times=(losses[2] / losses[0]).item(),
    gap=tau * torch.log(torch.tensor(2.0)).item(),
)

# %% [markdown]
# ## 2. An adversary with a budget
#
# Where does the softmax come from? Imagine an adversary who chooses the weights $Q$ so that our loss becomes as large as possible. Without a limit the adversary puts
# all weight on the worst group. Therefore moving away from the prior $P$ has a cost. The distance is measured by the *KL divergence*, which is zero for $Q = P$ and
# grows as $Q$ departs from it. Each unit of it costs tau.
#
# $$\max_Q \; J(Q), \qquad J(Q) = \sum_g Q(g) L(g) \;-\; \tau\, \mathrm{KL}(Q \,\|\, P), \qquad
# \mathrm{KL}(Q\|P) = \sum_g Q(g) \log\frac{Q(g)}{P(g)}$$
#
# The model is then trained against this adversary (arXiv 2510.10978, Eq. 4). With two groups there is one free number, the weight of the worse group, so $J$ can be
# drawn.

# %%
pair = torch.tensor([0.5, 2.0])
share = torch.linspace(0.0001, 0.9999, 400)  # weight of the worse group
curves = []
for t in (0.2, 1.0, 5.0):
    q = torch.stack([1 - share, share], dim=1)  # (400, 2)
    j = (q * pair).sum(1) - t * (q * (q * 2).log()).sum(1)  # P(g) = 1/2, so Q/P = 2Q
    curves.append(pd.DataFrame({"q": share, "J": j, "tau": f"{t:g}"}))
curves = pd.concat(curves)
tops = {t: dro.group_weights(pair, float(t))[1].item() for t in curves["tau"].unique()}

# %% jupyter={"source_hidden": true}
figure, (ax,) = canvas.axes(
    f"The smaller tau, the further right the top (from {tops['5']:.2f} to {tops['0.2']:.2f})", (6.4, 3.6)
)
sns.lineplot(curves, x="q", y="J", hue="tau", style="tau", palette=canvas.colours(3), ax=ax)
for (t, top), (colour, marker, _) in zip(tops.items(), canvas.cues(3)):
    value = dro.dro_objective(pair, float(t)).item()
    ax.plot(top, value, marker=marker, color=colour, markersize=9, markeredgecolor="black")
ax.set(xlabel="Q, the weight of the worse group", ylabel="J(Q) (nats)", ylim=(-0.5, 2.1))
plots.show(
    figure,
    alt="Three concave curves of J over the worse group's weight; the closed form's marker sits on each top",
)

# %% [markdown]
# The markers are computed by the closed form and not by a search, and each lies on the maximum of its curve. Each curve is strictly concave and has one maximum,
# which is the first step below. (For the smallest tau it lies so far right that the descent is not visible.)

# %% [markdown]
# ## 3. The Lagrangian, step by step
#
# Write $Q_g, P_g, L_g$ for short. We want
#
# $$\max_{Q}\; J(Q) = \sum_g Q_g L_g - \tau \sum_g Q_g \log\frac{Q_g}{P_g}
# \quad\text{subject to}\quad \sum_g Q_g = 1,\;\; Q_g \ge 0 .$$
#
# **Step 1. There is only one maximum.** The first sum is linear in $Q$. The function $q \log q$ is strictly convex, so minus tau times it is strictly concave.
#
# *Why:* a strictly concave function has one stationary point at most, and that point is its maximum. We may stop at the first one that we find.
#
# **Step 2. Forget $Q_g \ge 0$.** The slope of $-\tau\, q\log q$ grows to $+\infty$ as $q \to 0^+$.
#
# *Why:* near zero weight, the first bit of weight for group $g$ raises $J$ at an unbounded rate, while taking it from the others costs a bounded one. So no weight is
# zero at the maximum (as long as $P_g > 0$), and the inequality never binds.
#
# **Step 3. Add a multiplier for the constraint.**
# $\;\Lambda(Q, \lambda) = J(Q) + \lambda\,\bigl(1 - \sum_g Q_g\bigr)$
#
# *Why:* this function $\Lambda$ is called the *Lagrangian*, and $\lambda$ is its multiplier. With it every $Q_g$ may vary freely. $\lambda$ is the price of one unit of weight, and at the right price the adversary spends exactly one unit.
#
# Steps 4 to 8 are yours.

# %% [markdown]
# ### Exercise 05.2 · Steps 4 to 8
#
# *Difficulty 4/5 · importance 5/5 · 25 minutes*
#
# Take a pencil. Differentiate $\Lambda$ with respect to one $Q_g$ (step 4), set the derivative to zero (5), solve for $Q_g$ (6), find
# $\lambda$ from $\sum_g Q_g = 1$ (7), and put it in (8). Then write down three results as code:
#
# - the **slope** $\partial J / \partial Q_g$ at an arbitrary $Q$, without $\lambda$ (step 4),
# - the **price** $\lambda$, with $Z = \sum_h P_h\, e^{L_h/\tau}$ (step 7),
# - the **weights** $Q^*$ (step 8).

# %% tags=["exercise"]
def steps(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(slope at q, shape (K,); price lambda, a scalar; weights Q*, shape (K,)), slope and price in nats."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("05.2", steps);

# %% [markdown]
# <details><summary>My slope is off by tau</summary>
#
# Product rule: $\frac{d}{dq}\, q \log \frac{q}{p} = \log\frac{q}{p} + q\cdot\frac{1}{q}$.
# </details>
#
# <details><summary>I cannot find the price</summary>
#
# Write $Q_g$ as a factor that depends on $g$ times one that does not. The second one is $e^{-(1+\lambda/\tau)}$, and the sum of all $Q_g$
# is one.
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 05.2
def steps(losses: Tensor, tau: float, prior: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(slope at q, shape (K,); price lambda, a scalar; weights Q*, shape (K,)), slope and price in nats."""
    slope = losses - tau * ((q / prior).log() + 1)
    price = tau * (torch.logsumexp(losses / tau + prior.log(), dim=0) - 1)
    return slope, price, prior * torch.exp((losses - price) / tau - 1)


checks.check("05.2", steps, ours=True);

# %% [markdown]
# The numbers must agree with the algebra. Your slope is compared with automatic differentiation at a random $Q$, and at your weights all slopes must equal your
# price.

# %% jupyter={"source_hidden": true}
derived = checks.yours("05.2")
torch.manual_seed(3)
uneven, anywhere = torch.tensor([0.5, 0.3, 0.2]), torch.softmax(torch.randn(3), dim=0).requires_grad_()
slope, price, weight = derived(losses, tau, uneven, anywhere)
(by_autograd,) = torch.autograd.grad((anywhere * losses).sum() - tau * (anywhere * (anywhere / uneven).log()).sum(), anywhere)
assert torch.allclose(slope.detach(), by_autograd), "step 4: the slope of J"
at_the_top = derived(losses, tau, uneven, weight.detach())[0]
assert torch.allclose(at_the_top, price.detach().expand(3), atol=1e-5), "step 5: at the top all slopes are the price"
assert torch.isclose(weight.sum(), torch.tensor(1.0)), "step 7: the weights sum to one"
pd.DataFrame({"slope at a random Q": slope.detach(), "slope at the weights": at_the_top.detach(), "price": price.item()}).round(4)

# %% [markdown]
# Compare your pencil work with ours, step by step.
#
# <details><summary>Steps 4 to 8</summary>
#
# **Step 4. Differentiate for one group.**
# $\;\dfrac{\partial\Lambda}{\partial Q_g} = L_g - \tau\Bigl(\log\dfrac{Q_g}{P_g} + 1\Bigr) - \lambda$
#
# *Why the $+1$:* product rule, $\frac{d}{dq}\, q \log \frac{q}{p} = \log\frac{q}{p} + q\cdot\frac{1}{q}$.
#
# **Step 5. Set it to zero.** $\;L_g - \tau\Bigl(\log\dfrac{Q_g}{P_g} + 1\Bigr) = \lambda$ for every $g$
#
# *Why:* the left side is what one more bit of weight on $g$ would earn. At the maximum it is the same for all groups, since otherwise a shift of weight would raise
# $J$. (Section 4 uses this line again.)
#
# **Step 6. Solve for the weight.**
# $\;\log\dfrac{Q_g}{P_g} = \dfrac{L_g}{\tau} - \Bigl(1 + \dfrac{\lambda}{\tau}\Bigr)$, so
# $\;Q_g = P_g\, e^{L_g/\tau}\cdot e^{-(1 + \lambda/\tau)}$
#
# *Why:* this is algebra. The last factor does not depend on $g$, so it can only scale.
#
# **Step 7. Let the constraint find the scale.**
# $\;1 = \sum_g Q_g \;\;\Rightarrow\;\; e^{1 + \lambda/\tau} = \sum_h P_h\, e^{L_h/\tau} =: Z$
#
# *Why:* there is one unknown left, $\lambda$, and one equation left.
#
# **Step 8. The weights.** $\;Q^*_g = P_g\, e^{L_g/\tau} / Z$
#
# *Why a softmax, then:* the logarithm comes from KL, and its inverse is exp. Another divergence would give another formula.
# </details>
#
# **Step 9. The value.** From step 8, $\log (Q^*_g/P_g) = L_g/\tau - \log Z$. Put it into $J$:
#
# $$J(Q^*) = \sum_g Q^*_g L_g - \tau \sum_g Q^*_g \Bigl(\frac{L_g}{\tau} - \log Z\Bigr) = \tau \log Z
# = \tau \log \sum_g P_g\, e^{L_g/\tau}$$
#
# *Why:* the losses cancel, and the weights sum to one. This *log-sum-exp* is the loss that we minimise.
#
# **Step 10. A proof that needs no calculus.** Put $L_g = \tau \log (Q^*_g / P_g) + \tau\log Z$ into $J$ for
# any $Q$:
#
# $$J(Q) = \tau \sum_g Q_g \log\frac{Q^*_g}{P_g} + \tau\log Z - \tau \sum_g Q_g \log\frac{Q_g}{P_g}
# = \tau \log Z - \tau\,\mathrm{KL}(Q \,\|\, Q^*)$$
#
# *Why:* the two sums are one sum of $\log(Q^*_g/P_g) - \log(Q_g/P_g)$, and the $P_g$ cancel. KL is never negative, and it is zero only for $Q = Q^*$. So no $Q$ has a
# larger $J$ than $Q^*$, those with zero weights included. The identity also says how much the adversary loses by another choice.

# %% [markdown]
# A derivation can contain a slip, so we test it numerically: none of many random $Q$ may reach a larger $J$, and the identity of step 10 must hold for each.

# %% jupyter={"source_hidden": true}
torch.manual_seed(0)
prior = torch.tensor([0.5, 0.3, 0.2])
best, value = dro.group_weights(losses, tau, prior), dro.dro_objective(losses, tau, prior)

rivals = torch.distributions.Dirichlet(torch.ones(3)).sample(
    (10_000,)
)  # (10000, 3), spread over all weightings
kl_to_prior = (rivals * (rivals / prior).log()).sum(1)
kl_to_best = (rivals * (rivals / best).log()).sum(1)
scores = rivals @ losses - tau * kl_to_prior  # J(Q)

assert (scores <= value + 1e-5).all(), "step 8: nothing beats Q*"
assert torch.allclose(scores, value - tau * kl_to_best, atol=1e-5), (
    "step 10: J(Q) = tau log Z - tau KL(Q || Q*)"
)
say(
    "Best of {n:,} random rivals: {rival:.4f} nats. The closed form: **{value:.4f}** nats.",
    n=len(rivals),
    rival=scores.max().item(),
    value=value.item(),
)

# %% [markdown]
# An adversary without a formula can climb $J$ by gradient ascent (on logits, so that the weights stay a distribution). It must end at the same weights.

# %% jupyter={"source_hidden": true}
logits = torch.zeros(3, requires_grad=True)
for _ in range(500):
    q = torch.softmax(logits, dim=0)
    (slope,) = torch.autograd.grad((q * losses).sum() - tau * (q * (q / prior).log()).sum(), logits)
    with torch.no_grad():
        logits += slope
climbed = torch.softmax(logits, dim=0).detach()
assert torch.allclose(climbed, best, atol=1e-3)
pd.DataFrame({"prior": prior, "by climbing": climbed, "closed form": best}).round(4)

# %% [markdown]
# ### Exercise 05.3 · The closed form, with a prior
#
# *Difficulty 2/5 · importance 5/5 · 10 minutes*
#
# Write step 8 so that it is safe for every tau. One case of the check has a very small tau, and `torch.exp(1000.0)` is infinite.


# %% tags=["exercise"]
def weights(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    """Q*(g), shape (K,), for losses (K,) in nats and a prior (K,) that sums to one."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("05.3", weights);

# %% [markdown]
# <details><summary>I get NaN in the last case</summary>
#
# A large number over a large number. Multiplying numerator and denominator by the same constant changes
# nothing: subtract the largest $L/\tau$ before the exponential. `torch.softmax` does that for you.
# </details>
#
# <details><summary>I use softmax, and do not know where the prior goes</summary>
#
# $P e^{x} = e^{x + \log P}$.
# </details>
#
# <details><summary>The weights do not sum to one</summary>
#
# That is step 7: divide by $Z$.
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 05.3
def weights(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    """Q*(g), shape (K,), for losses (K,) in nats and a prior (K,) that sums to one."""
    return torch.softmax(losses / tau + prior.log(), dim=0)


checks.check("05.3", weights);

# %% [markdown]
# ## 4. The gradient is a weighted gradient
#
# The losses depend on the model's parameters $\theta$. We train on the value
# $V(\theta) = \max_Q J(Q, \theta)$. When $\theta$ moves, the losses move, *and* the adversary's weights move.
# So the chain rule gives two terms:
#
# $$\frac{dV}{d\theta} = \sum_g Q^*_g \frac{\partial L_g}{\partial\theta}
# \;+\; \sum_g \frac{\partial J}{\partial Q_g}\frac{dQ^*_g}{d\theta}$$
#
# By step 5, $\partial J/\partial Q_g$ is the same number $\lambda$ for all groups. So the second term is
# $\lambda \sum_g dQ^*_g/d\theta = \lambda \, d\bigl(\sum_g Q^*_g\bigr)/d\theta$, and the sum is always one:
# the term is zero. The adversary's reply has no effect at first order, because the adversary is at a maximum, where the slope along the constraint is zero. This is the
# *envelope theorem*:
#
# $$\frac{dV}{d\theta} = \sum_g Q^*_g\, \frac{\partial L_g}{\partial\theta}$$
#
# Here are three ways to write this loss in PyTorch:
#
# 1. the log-sum-exp, with autograd through everything,
# 2. the weighted sum of losses, with the weights detached,
# 3. the weighted sum of losses, with the weights *not* detached.

# %%
predict("05.b", "Which two of the three ways give the same gradient?", ...)

# %%
torch.manual_seed(1)
design, wanted = torch.randn(3, 8, 2, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)


def three_losses(theta: Tensor) -> Tensor:
    """Mean squared error of a linear model on three groups of eight points, shape (3,)."""
    return ((design @ theta - wanted) ** 2).mean(1)


theta = torch.tensor([0.0, 0.1], dtype=torch.float64, requires_grad=True)
L, sharp = three_losses(theta), 0.1
attached = torch.softmax(L / sharp, dim=0)
ways = {
    "1 log-sum-exp": dro.dro_objective(L, sharp),
    "2 weighted sum, detached": (dro.group_weights(L, sharp) * L).sum(),
    "3 weighted sum, attached": (attached * L).sum(),
}
gradients = {name: torch.autograd.grad(loss, theta, retain_graph=True)[0] for name, loss in ways.items()}

# %% jupyter={"source_hidden": true}
step = 1e-6
shifts = torch.eye(2, dtype=torch.float64) * step
gradients["finite differences of the value"] = torch.stack(
    [
        (dro.dro_objective(three_losses(theta + s), sharp) - dro.dro_objective(three_losses(theta - s), sharp))
        / (2 * step)
        for s in shifts
    ]
).detach()
one, two, three, differences = gradients.values()
assert torch.allclose(one, two) and torch.allclose(one, differences, atol=1e-6)
assert not torch.allclose(two, three, rtol=1e-2), "attached weights give another gradient"
pd.DataFrame(gradients, index=["d/d theta 0", "d/d theta 1"]).T.round(6)

# %% [markdown]
# Three rows agree. So Group DRO is cheap: compute the weights, **detach** them, and take the weighted sum. The loss with attached weights differs, because $Q^*$
# maximises $J$ and not $\sum_g Q_g L_g$, which lacks the KL term. There the second term does not vanish. Differentiating step 8 gives
#
# $$dQ^*_g = \tfrac{1}{\tau}\, Q^*_g \Bigl(dL_g - \sum_h Q^*_h\, dL_h\Bigr)$$
#
# so a group whose loss rises more than the average gains weight. Multiplied by $L_g$ and summed over the groups, this is a covariance:
#
# $$\nabla \sum_g Q^*_g L_g
# = \sum_g Q^*_g \nabla L_g + \tfrac{1}{\tau}\,\mathrm{Cov}_{Q^*}\!\left(L, \nabla L\right)$$

# %% jupyter={"source_hidden": true}
jacobian = torch.autograd.functional.jacobian(three_losses, theta.detach())  # (3, 2)
q, level = attached.detach(), L.detach()
covariance = (q[:, None] * (level - q @ level)[:, None] * jacobian).sum(0)
assert torch.allclose(three, two + covariance / sharp)
off = torch.nn.functional.cosine_similarity(two, three, dim=0).item()
say(
    "The attached gradient is **{times:.1f} times** as long as the right one here (cosine {off:.2f}). "
    "There is no error message, and the value of the loss is that of way 2, but its gradient belongs to another objective.",
    times=(three.norm() / two.norm()).item(),
    off=off,
)

# %% [markdown]
# ### Exercise 05.4 · How much does one token weigh?
#
# *Difficulty 3/5 · importance 5/5 · 10 minutes*
#
# $L(g)$ is a *mean* over the group's tokens. By what does the method multiply a single token's loss? Write it for every token of a batch, with a uniform
# prior. Two functions help. `dro.group_losses(token_losses, group_ids, n_groups)` returns the
# mean loss and the number of tokens of each group, both of shape (K,). `dro.group_weights(losses, tau, present=...)` returns the weights;
# `present` says with True and False which groups the batch holds, since a batch may lack one (section 6 comes back to this).


# %% tags=["exercise"]
def token_weights(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    """What the method multiplies each token's loss by, shape (N,); it sums to one."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("05.4", token_weights);

# %% [markdown]
# <details><summary>My weights sum to more than one</summary>
#
# The group's weight is shared by its tokens: $\partial L(g)/\partial \ell_i = 1/n(g)$. Divide each token's
# weight by the number of tokens in its own group. Do not divide all of them by their total: the sum would be
# right, and the share of each group wrong.
# </details>
#
# <details><summary>My weights sum to less than one in some cases</summary>
#
# One group of that case has no token. `dro.group_weights(..., present=counts > 0)` gives it no weight.
# </details>
#
# <details><summary>How do I get from groups to tokens?</summary>
#
# Index the per-group tensor with `group_ids`.
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 05.4
def token_weights(token_losses: Tensor, group_ids: Tensor, n_groups: int, tau: float) -> Tensor:
    """What the method multiplies each token's loss by, shape (N,); it sums to one."""
    means, counts = dro.group_losses(token_losses, group_ids, n_groups)
    return (dro.group_weights(means, tau, present=counts > 0) / counts.clamp(min=1))[group_ids]


checks.check("05.4", token_weights);

# %% [markdown]
# So the formula has *two* effects. Grouping alone already raises the weight of the few tokens of a small group: with a huge tau each group has the same weight,
# whatever its size. We call this rule `balanced`. The losses then shift weight between the groups, and only this is the DRO. To learn whether DRO helps, compare
# with `balanced` and not only with the plain mean.

# %% [markdown]
# ## 5. What tau does
#
# The two ends of the figure are the two limits: the worst group alone for a tiny tau, and the prior for a huge one.

# %% jupyter={"source_hidden": true}
taus = torch.logspace(-1.5, 1.5, 40).tolist()
low, high = (dro.group_weights(losses, t)[2].item() for t in (taus[0], taus[-1]))
figure = plots.weights_over_tau(
    losses.tolist(), taus, title=f"The worst group's weight falls from {low:.2f} to {high:.2f} as tau grows"
)
plots.show(
    figure,
    alt="Weights of three groups over tau: the worst one alone at the left end, all equal at the right end",
)

# %% [markdown]
# All possible weights of three groups form a triangle, the *simplex*: a corner gives all weight to one group, and the point $P$ in the middle weighs all alike. The
# rings join points of equal KL from the prior, which is what the adversary pays for. As tau falls, the payment becomes cheaper and $Q^*$ moves outwards.

# %% jupyter={"source_hidden": true}
corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])  # where all weight is on group 0, 1, 2
mesh = torch.stack(torch.meshgrid(torch.linspace(0, 1, 220), torch.linspace(0, 0.87, 190), indexing="xy"), dim=-1)  # (190, 220, 2)
third = mesh[..., 1] / corners[2, 1]
second = mesh[..., 0] - third / 2
mixed = torch.stack([1 - second - third, second, third], dim=-1)  # the weights at each point of the picture
inside = (mixed > 0).all(-1)
from_prior = (mixed.clamp(min=1e-9) * (3 * mixed.clamp(min=1e-9)).log()).sum(-1)
path = torch.stack([dro.group_weights(losses, t) for t in torch.logspace(2, -1.3, 120).tolist()])  # from a huge tau to a tiny one
assert (path[:, 2].diff() >= 0).all(), "the smaller tau, the more weight for the worst group"
figure, (ax,) = canvas.axes(f"As tau falls, Q* goes from the prior to the worst group (weight {path[0, 2]:.2f} to {path[-1, 2]:.2f})", (7.2, 4.6))
ax.fill(*corners.T, facecolor="none", edgecolor="black", linewidth=1.2)
rings = ax.contour(mesh[..., 0], mesh[..., 1], from_prior.where(inside, torch.nan), levels=[0.02, 0.1, 0.25, 0.5, 0.8], colors="grey", linewidths=0.8)
ax.clabel(rings, fmt="KL %.2f", fontsize=8)
ax.plot(*(path @ corners).T, color=canvas.colours(1)[0], linewidth=2.5)
for t, (colour, marker, _) in zip((5.0, 1.0, 0.5, 0.2), canvas.cues(4)):
    x, y = (dro.group_weights(losses, t) @ corners).tolist()
    ax.plot(x, y, marker=marker, color=colour, ms=10, markeredgecolor="black", ls="", label=f"tau = {t:g}")
ax.plot(*corners.mean(0), marker="+", color="black", ms=12, mew=2, ls="", label="prior P")
for (x, y), g in zip(corners.tolist(), range(3)):
    ax.annotate(f"group {g}, L = {losses[g]:.1f}", (x, y), textcoords="offset points", xytext=(0, 8 if g == 2 else -16), ha="center")
ax.set(xlim=(-0.15, 1.15), ylim=(-0.1, 1.0), aspect="equal")
ax.axis("off")
ax.legend(loc="upper left", frameon=False)
alt = "The triangle of all weights of three groups with rings of equal KL around the prior; the path of Q* goes from the prior in the middle to the corner of the worst group"
plots.show(figure, alt=alt)
(walker,) = ax.plot([], [], marker="o", color="black", ms=13, ls="")


def walk(t: float) -> None:
    """Put the walker where Q* is at this tau."""
    walker.set_data(*(dro.group_weights(losses, t) @ corners)[:, None].tolist())
    figure.suptitle(f"tau = {t:.2f} nats, weight of the worst group {dro.group_weights(losses, t)[2]:.2f}", fontsize=12)


canvas.animation(figure, walk, torch.logspace(1, -1.3, 24).tolist(), alt=f"{alt}, as tau falls from 10 to 0.05")

# %% [markdown]
# Move tau yourself. The second slider adds a constant to all three losses. (On a page without a running kernel the sliders do not move, and the figures above show
# the effect of the first one.)

# %% tags=["interactive"]
knob = widgets.FloatLogSlider(value=0.5, base=10, min=-1.5, max=1.5, step=0.05, description="tau (nats)")
shift = widgets.FloatSlider(value=0.0, min=0.0, max=5.0, step=0.5, description="add to all")


bars = widgets.HTML()


def redraw(change: object = None) -> None:
    """One line a group: its loss, its weight, and a bar as long as the weight."""
    shifted = losses + shift.value
    lines = [
        f"L = {loss:.1f} &nbsp; Q* = {w:.3f} &nbsp; " + "█" * round(40 * w)
        for loss, w in zip(shifted.tolist(), dro.group_weights(shifted, knob.value).tolist())
    ]
    bars.value = "<pre>" + "<br>".join(lines) + "</pre>"


for slider in (knob, shift):
    slider.observe(redraw, names="value")
redraw()
display(widgets.VBox([knob, shift, bars]))

# %% [markdown]
# The next cell checks three facts:
#
# 1. **A constant added to all losses changes nothing.** Only gaps between groups count, so a model that is bad everywhere is weighted like one that is good
#    everywhere.
# 2. **Tau is measured in nats.** Doubling the losses and tau leaves the weights as they are. A tau that suits one data set may therefore be too small or too large on
#    another, and should be compared with the gaps.
# 3. **The ends.** A huge tau gives the prior. A tiny tau gives the worst group alone.

# %%
assert torch.allclose(dro.group_weights(losses + 5, tau), dro.group_weights(losses, tau))
assert torch.allclose(dro.group_weights(2 * losses, 2 * tau), dro.group_weights(losses, tau))
assert torch.allclose(dro.group_weights(losses, 1e6, prior), prior, atol=1e-4)
assert dro.group_weights(losses, 1e-3).tolist() == [0, 0, 1]

# %% [markdown]
# ## 6. What fails: a tiny tau, and absent groups
#
# *Degenerate weights* are one failure: all the weight is on one group, and the others are not trained. The **effective number of groups**, $e^{H(Q)}$ with $H$ the
# entropy, shows it: it is $K$ for equal weights, and one when one group has all the weight.
#
# In training, losses are measured on batches, so they are noisy. Below, the true losses of three groups are *nearly equal*, and every batch sees them with an error.

# %%
predict("05.c", "In what share of the batches does the truly worst group have the highest loss? (A blind choice has one third.)", ...)

# %% jupyter={"source_hidden": true}
torch.manual_seed(0)
truth = torch.tensor([1.9, 2.0, 2.1])
noise = 0.3  # std of a group's mean loss in one batch, nats
seen = truth + noise * torch.randn(25, 3)  # 25 batches, for the figure
many = truth + noise * torch.randn(20_000, 3)  # enough for percentages


def effective_groups(q: Tensor) -> Tensor:
    """exp of the entropy, along the last axis."""
    return torch.exp(torch.special.entr(q).sum(-1))


rows = []
for t in (0.02, 0.2, 2.0):
    q = torch.stack([dro.group_weights(batch, t) for batch in seen])  # (25, 3)
    rows += [
        {"batch": b, "tau": f"{t:g}", "weight": w, "effective": e}
        for b, (w, e) in enumerate(zip(q[:, 2].tolist(), effective_groups(q).tolist()))
    ]
flicker = pd.DataFrame(rows)
spread = flicker.groupby("tau")["weight"].std()

# %% jupyter={"source_hidden": true}
figure, (ax,) = canvas.axes(
    f"tau = 0.02 flips the weight from batch to batch (std {spread['0.02']:.2f}, at tau = 2 only "
    f"{spread['2']:.2f})",
    (7.5, 3.4),
)
sns.lineplot(
    flicker, x="batch", y="weight", hue="tau", style="tau", markers=True, palette=canvas.colours(3), ax=ax
)
ax.set(ylabel="weight of the group with the\nhighest true loss", ylim=(-0.05, 1.05))
sns.move_legend(ax, "center left", bbox_to_anchor=(1.0, 0.5))
plots.show(
    figure,
    alt="Weight of one group over twenty-five batches: at tau 0.02 it jumps between zero and one, at tau 2 it "
    "hardly moves",
)

# %% jupyter={"source_hidden": true}
mean_effective = {t: effective_groups(torch.softmax(many / t, dim=1)).mean().item() for t in (0.02, 0.2, 2.0)}
grid = torch.logspace(-1.5, 1.5, 61)
moves = torch.stack([torch.softmax(many / t, dim=1)[:, 2].std() for t in grid])  # falls as tau grows
calm = grid[moves < 0.1][0].item()
say(
    "Over {n:,} such batches, the effective number of groups is {e1:.1f} with the smallest tau, {e2:.1f} with "
    "the middle one and {e3:.1f} with the largest. The truly worst group has the highest loss in only "
    "**{top:.0%}** of the batches (a blind choice: {blind:.0%}).\n\n"
    "If the weight is to move by less than {limit} (standard deviation) from batch to batch, tau must be at least "
    "{calm:.2f} nats here. That is **{ratio:.1f} times** the noise of a group's loss ({noise} nats).",
    n=len(many),
    e1=mean_effective[0.02],
    e2=mean_effective[0.2],
    e3=mean_effective[2.0],
    top=(many.argmax(1) == 2).float().mean().item(),
    blind=1 / 3,
    limit=0.1,
    calm=calm,
    ratio=calm / noise,
    noise=noise,
)

# %% [markdown]
# A tiny tau follows the noise, since the worst group is then whichever had bad luck in this batch. There are two remedies. The first is to raise tau to a small multiple
# of the noise. Where the true gaps are smaller than the noise, as here, that is nearly `balanced`, and rightly so, because a batch cannot tell these groups apart. Where
# the gaps are larger, a tau between the two follows the gaps and not the noise. (The noise of a group's mean over $n$ tokens is the standard deviation of one token's
# loss divided by $\sqrt{n}$, so larger batches help too.) The second remedy is to average the losses over batches before they are turned into weights. `dro.ema_update`
# keeps an *exponential moving average* of each group's loss, with a decay $d$ just below one:
#
# $$m_g \leftarrow d\, m_g + (1 - d)\, L_g$$
#
# A tiny tau also breaks code that exponentiates directly:

# %%
naive = torch.exp(losses / 0.02) / torch.exp(losses / 0.02).sum()
print("naive:      ", naive)
print("the package:", dro.group_weights(losses, 0.02))
assert naive.isnan().any() and dro.group_weights(losses, 0.02).isfinite().all()

# %% [markdown]
# ### Absent groups
#
# A small batch may hold no token of some group, and then the group has no loss: the mean of nothing is NaN, and a zero would stand for a group that is fitted
# perfectly. The table shows what such a zero does to the weights of the groups that are present.

# %%
token_losses = torch.tensor([0.4, 0.6, 1.1, 1.3])
group_ids = torch.tensor([0, 0, 1, 1])  # three groups exist; no token of group 2 came along
L, counts = dro.group_losses(token_losses, group_ids, n_groups=3)
present = counts > 0
pd.DataFrame(
    {
        "tokens": counts.int(),
        "mean of nothing": [token_losses[group_ids == g].mean().item() for g in range(3)],
        "loss 0 invented": dro.group_weights(L, tau=1.0),
        "told who is present": dro.group_weights(L, tau=1.0, present=present),
    }
).round(3)

# %% jupyter={"source_hidden": true}
invented, told = dro.group_weights(L, tau=1.0), dro.group_weights(L, tau=1.0, present=present)
assert told[2] == 0 and torch.isclose(told.sum(), torch.tensor(1.0))
assert torch.allclose(told[:2], dro.group_weights(L[:2], tau=1.0)), "as if the absent group did not exist"
say(
    "The third group has no token, and yet it takes **{lost:.0%}** of the weight. The rest sums to "
    "{rest:.2f}, so this batch would be learned from with a smaller step, without any message.",
    lost=invented[2].item(),
    rest=invented[:2].sum().item(),
)

# %% [markdown]
# ## 7. A toy with a shortcut
#
# Does any of this help? We test it in a world that is small enough to understand: the label $y$ is $-1$ or $+1$, and a linear classifier sees four numbers.
#
# - The **core** feature is $y$ plus much noise. It is right for everybody.
# - The **shortcut** is $y$ plus little noise for most people, so it predicts better for them. For the minority it is $-y$, which is wrong.
# - Two **idle** features are noise, which a classifier can memorise by.
#
# In a language model that recommends, the shortcut stands for what surrounds the user: the *task text* (the instruction in the prompt) and the *prefix* (the tokens of
# the title already written). The core stands for the user's history.
#
# Three such worlds:
#
# - **two groups**: majority and minority, known.
# - **five groups**: the shortcut is right in four groups and wrong in the fifth. A clustering does not know
#   which differences matter, so several groups may share one shortcut.
# - **noise**: the minority's labels are coin flips. There is nothing to learn from it.
#
# Five rules will train the classifier:
#
# - **ERM**: the plain mean over all examples (*empirical risk minimisation*). For a language model this is SFT,
#   supervised fine-tuning.
# - **balanced**: every group has the same weight, whatever its loss.
# - **GDRT**: the closed form. Group DRO is the principle, train for the worst weighting; GDRT is the paper's
#   name for it with these softmax weights, on groups of tokens.
# - **EG**: Group DRO by exponentiated gradient. It keeps one weight vector and multiplies each weight by $e^{\eta L(g)}$ at every step (section 8, an appendix).
# - **reversed**: the softmax of *minus* $L/\tau$, so that the easiest group gets the most weight. This is a control.
#
# The code below sets the tau of GDRT, in nats, and the rate of EG.

# %%
predict("05.d", "In which of the three worlds does GDRT clearly beat balanced weights in the accuracy of the worst group?", ...)

# %% tags=["needed"]
WORLDS = {  # per group: size, and how the shortcut follows the label; 0: the labels are coin flips
    "two groups": [(380, +1), (20, -1)],
    "five groups": [(95, +1), (95, +1), (95, +1), (95, +1), (20, -1)],
    "noise": [(380, +1), (20, 0)],
}


def draw_world(groups: list[tuple[int, int]], random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, 4): core, shortcut, two idle ones; labels (N,), -1 or +1; group ids (N,)."""
    ids = torch.cat([torch.full((size,), g) for g, (size, _) in enumerate(groups)])
    side = torch.tensor([s for _, s in groups])[ids]
    y = torch.randint(0, 2, ids.shape, generator=random) * 2.0 - 1
    meant = torch.where(side == 0, torch.randint(0, 2, ids.shape, generator=random) * 2.0 - 1, y)
    x = torch.randn(len(ids), 4, generator=random) * torch.tensor([1.0, 0.5, 1.0, 1.0])
    x[:, 0] += meant
    x[:, 1] += y * side
    return x, y, ids


# %% [markdown]
# Training takes ten lines: losses per group, weights, weighted gradient. The five rules differ in the weights alone.


# %% tags=["needed"]
def eg_step(weights: Tensor, losses: Tensor, rate: float) -> Tensor:
    """The weights of exponentiated gradient after one step, shape (K,)."""
    return torch.softmax(weights.log() + rate * losses, dim=0)


def rule_weights(rule: str, L: Tensor, counts: Tensor, before: Tensor, tau: float) -> Tensor:
    """The group weights of one step."""
    if rule == "ERM":
        return counts / counts.sum()  # the mean over all examples
    if rule == "balanced":
        return torch.full_like(L, 1 / len(L))
    if rule == "EG":
        return eg_step(before, L, rate=0.1)
    return dro.reversed_group_weights(L, tau) if rule == "reversed" else dro.group_weights(L, tau)


def train(
    x: Tensor, y: Tensor, ids: Tensor, rule: str, tau: float = 0.1, steps: int = 200
) -> tuple[Tensor, Tensor]:
    """A linear classifier's coefficients (4,), and the last group weights (K,)."""
    k = int(ids.max()) + 1
    w, q = torch.zeros(4, requires_grad=True), torch.full((k,), 1 / k)
    for _ in range(steps):
        L, counts = dro.group_losses(F.softplus(-y * (x @ w)), ids, k)  # logistic loss, nats
        q = rule_weights(rule, L.detach(), counts, q, tau)
        (slope,) = torch.autograd.grad((q * L).sum(), w)
        w = (w - 0.3 * slope).detach().requires_grad_()
    return w.detach(), q


# %% [markdown]
# Here is one seed of each world. A point is an example by its core and its shortcut, blue for $y=+1$ and orange for $y=-1$, and the last group is drawn as crosses. A line is
# the boundary of a rule's classifier: a flat one decides by the shortcut, and an upright one by the core.

# %% jupyter={"source_hidden": true}
RULES = ["ERM", "balanced", "GDRT", "EG", "reversed"]
examples = {name: draw_world(groups, torch.Generator().manual_seed(0)) for name, groups in WORLDS.items()}
fitted = {name: {rule: train(*example, rule) for rule in RULES} for name, example in examples.items()}
relies = {rule: (w[1].abs() / w[:2].abs().sum()).item() for rule, (w, _) in fitted["five groups"].items()}
figure, axes = canvas.axes(
    f"Five groups: {relies['ERM']:.0%} of ERM's two coefficients is the shortcut's, {relies['balanced']:.0%} of balanced's, {relies['GDRT']:.0%} of GDRT's", (10.5, 4.2), 3
)
for ax, (name, (x, y, ids)) in zip(axes, examples.items()):
    last = ids == ids.max()
    for label, colour in ((1, "#0173b2"), (-1, "#de8f05")):
        ax.plot(*x[(y == label) & ~last, :2].T, ".", ms=3, alpha=0.35, color=colour)
        ax.plot(*x[(y == label) & last, :2].T, "X", ms=7, color=colour, markeredgecolor="black", markeredgewidth=0.6)
    for (rule, (w, _)), (colour, _, style) in zip(fitted[name].items(), canvas.cues(5)):
        along = torch.tensor([-w[1], w[0]]) / w[:2].norm() * 6  # the line on which w_core * core + w_shortcut * shortcut = 0
        ax.plot([-along[0], along[0]], [-along[1], along[1]], ls=style, color=colour, linewidth=2, label=rule)
    ax.set(title=name, xlabel="core", ylabel="shortcut" if ax is axes[0] else "", xlim=(-4, 4), ylim=(-3, 3))
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
plots.show(figure, alt="Examples of three worlds by core and shortcut, the last group as crosses, with the decision lines of five rules; in the world of five groups the share of the "
           f"shortcut in the coefficients is {relies['ERM']:.0%} for ERM, {relies['balanced']:.0%} for balanced and {relies['GDRT']:.0%} for GDRT")

# %% [markdown]
# With several seeds and fresh test data from the same world, each trained classifier has one row: its accuracy in the worst group, in the first (large) group and over all
# examples in the training proportions, and the share of the shortcut in the two coefficients that matter.

# %% jupyter={"source_hidden": true}
seeds = range(pick(quick=10, standard=20, full=50))
rows = []
for world, groups in WORLDS.items():
    for seed in seeds:
        random = torch.Generator().manual_seed(seed)
        data = draw_world(groups, random)
        test_x, test_y, test_ids = draw_world([(2000, side) for _, side in groups], random)
        for rule in RULES:
            w, q = train(*data, rule)
            margin = (test_x @ w) * test_y
            by_group = torch.stack([(margin[test_ids == g] > 0).float().mean() for g in range(len(groups))])
            sizes = torch.tensor([float(size) for size, _ in groups])
            rows.append(
                {
                    "world": world,
                    "rule": rule,
                    "seed": seed,
                    "worst group": by_group.min().item(),
                    "first group": by_group[0].item(),
                    "all": (by_group @ sizes / sizes.sum()).item(),
                    "shortcut share": (w[1].abs() / w[:2].abs().sum()).item(),
                    "weight of the last group": q[-1].item(),
                    "held-out loss of the last group": F.softplus(-margin[test_ids == len(groups) - 1])
                    .mean()
                    .item(),
                }
            )
results = pd.DataFrame(rows)

# %% jupyter={"source_hidden": true}
summary = results.groupby(["world", "rule"], sort=False)[
    ["worst group", "first group", "all", "shortcut share"]
]
summary.agg(lambda values: f"{metrics.t_interval(values):.2f}")  # mean [95% interval over seeds, by Student's t]


# %% jupyter={"source_hidden": true}
def gap(world: str, a: str, b: str, column: str = "worst group") -> metrics.Interval:
    """a - b, paired by seed, with its 95% interval over seeds."""
    part = results[results["world"] == world].pivot(index="seed", columns="rule", values=column)
    return metrics.t_interval(part[a] - part[b])


def verdict(interval: metrics.Interval) -> str:
    """What the interval allows one to say."""
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "no clear difference"


over = {world: verdict(gap(world, "GDRT", "balanced")) for world in WORLDS}
figure, axes = canvas.axes(
    "GDRT against balanced, worst group: " + "; ".join(f"{w}, {v}" for w, v in over.items()), (9.5, 3.8), 2
)
for ax, column in zip(axes, ("worst group", "first group")):
    sns.pointplot(
        results,
        x="world",
        y=column,
        hue="rule",
        dodge=0.6,
        linestyle="none",
        markers=["o", "s", "^", "D", "X"],
        palette=canvas.colours(5),
        errorbar=("ci", 95),
        seed=0,
        n_boot=500,
        ax=ax,
        legend=column == "first group",
    )
    ax.set(xlabel="", ylabel=f"accuracy of the {column}", ylim=(0, 1.03))
axes[0].axhline(0.5, color="black", lw=1, ls=":")
axes[0].annotate("guessing", (-0.45, 0.51), fontsize=8)
sns.move_legend(axes[1], "lower right", fontsize=8, title=None, ncols=2)
plots.show(
    figure,
    alt="Accuracy of the worst and of the first group for five rules in three worlds, with intervals over "
    "seeds; a dotted line marks guessing",
)

# %% [markdown]
# Differences that are paired by seed say more than overlapping intervals. The last column follows from the interval of each difference.

# %% jupyter={"source_hidden": true}
pairs = [("balanced", "ERM"), ("GDRT", "ERM"), ("GDRT", "balanced"), ("GDRT", "EG"), ("reversed", "ERM")]
compared = [
    {
        "world": world,
        "A - B": f"{a} - {b}",
        "measured on": column,
        "difference": f"{gap(world, a, b, column):+.3f}",
        "A is": verdict(gap(world, a, b, column)),
    }
    for world in WORLDS
    for column in ("worst group", "all")
    for a, b in pairs
]
pd.DataFrame(compared).set_index(["world", "measured on", "A - B"])

# %% [markdown]
# ### Explain
#
# **Two groups.** The plain mean takes the shortcut, and balancing helps: with equal weights the shortcut is right half of the time and worth nothing, so that only the
# core is left. DRO has little to add, because under balanced weights both groups end with about the same loss. Equal losses give equal weights, so the balanced answer is
# also DRO's. (*Reversed* weighting is unstable, as its wide interval shows: it gives everything to whichever group is easier after the first steps.)
#
# **Five groups.** Equal weights are not enough here, since four of five groups still profit from the shortcut. Balancing depends on how the groups happen to be cut, and DRO
# depends on it less: the loss of the fifth group stays high, and its weight grows until the shortcut no longer pays. This is the case for DRO over balancing. The row
# `GDRT - EG` says whether the two kinds of DRO differ. The rows measured on `all` show what DRO costs on average over everybody.
#
# **Noise.** The minority's loss on *new* data cannot fall below guessing, because there is nothing to learn. DRO cannot know that, so it keeps raising the weight, and the
# classifier fits twenty coin flips at the cost of everybody else. Nobody gains, and the large group loses. This is where the idea can fail: a group may be hard because
# its history matters or because it is noise, and the training loss does not tell which. EG does most harm, since it has no KL term. *Reversed* weights do next to no harm
# here, because they ignore the noise.
#
# Weight has one effect even on noise: it makes the classifier less confident there. A confident guess costs more than an uncertain one, so more weight lowers the
# held-out *loss* of a group without any signal, down to guessing and no further.
#
# **When to expect what:**

# %% jupyter={"source_hidden": true}
say(
    "- *Groups cut along the shortcut:* balancing moves the worst group by {a:+.2f} against ERM; DRO adds "
    "{b:+.2f} to that.\n"
    "- *Groups cut finer than the shortcut:* balancing {c:+.2f}, DRO another {d:+.2f}. GDRT minus EG: "
    "{eg:+.3f}; {eg_verdict}.\n"
    "- *A group of noise:* DRO changes the worst group by {e:+.2f} against ERM, and the large group by "
    "{f:+.2f}.\n"
    "- *Average over everybody,* training proportions: DRO against ERM {g:+.2f}, {h:+.2f} and {i:+.2f} in "
    "the three worlds. Where the future looks like the training set and only the average matters, keep the "
    "plain mean.\n\n"
    "All are differences of accuracy with 95% intervals over {n} seeds.",
    a=gap("two groups", "balanced", "ERM"),
    b=gap("two groups", "GDRT", "balanced"),
    c=gap("five groups", "balanced", "ERM"),
    d=gap("five groups", "GDRT", "balanced"),
    eg=gap("five groups", "GDRT", "EG"),
    eg_verdict={
        "better": "the closed form does a little better there",
        "worse": "EG, which may go further from the prior, does a little better there",
    }.get(verdict(gap("five groups", "GDRT", "EG")), "no clear difference between the two kinds"),
    e=gap("noise", "GDRT", "ERM"),
    f=gap("noise", "GDRT", "ERM", "first group"),
    g=gap("two groups", "GDRT", "ERM", "all"),
    h=gap("five groups", "GDRT", "ERM", "all"),
    i=gap("noise", "GDRT", "ERM", "all"),
    n=len(seeds),
)

# %% [markdown]
# ### Your own world
#
# The function below draws a world ten times, trains by balanced weights and by GDRT, and returns GDRT minus balanced in the accuracy of the worst group, with its interval
# over seeds.

# %% tags=["needed"]
def compare_rules(groups: list[tuple[int, int]]) -> metrics.Interval:
    """GDRT minus balanced, worst group's accuracy on new data, paired by seed."""
    if len(groups) != 3:
        raise ValueError(f"the exercise asks for three groups, and this world has {len(groups)}.")
    gaps = []
    for seed in range(10):
        random = torch.Generator().manual_seed(100 + seed)
        sample = draw_world(groups, random)
        test_x, test_y, test_ids = draw_world([(2000, side) for _, side in groups], random)
        right = {rule: (test_x @ train(*sample, rule)[0]) * test_y > 0 for rule in ("GDRT", "balanced")}
        worst = {rule: min(hits[test_ids == g].float().mean().item() for g in range(len(groups))) for rule, hits in right.items()}
        gaps.append(worst["GDRT"] - worst["balanced"])
    return metrics.t_interval(gaps)


# %% [markdown]
# ### Exercise 05.5 · A world in which GDRT beats balancing
#
# *Difficulty 3/5 · importance 5/5 · 15 minutes*
#
# Design a world with **three** groups in which GDRT clearly beats balanced weights. A group is a pair: how many examples it has, and how the
# shortcut follows the label there (`+1` it agrees, `-1` it is opposite, `0` the labels are coin flips). Decide first what makes balancing
# fail, and then choose the groups; trying at random takes longer.

# %% tags=["exercise"]
world = ...  # for example [(300, +1), ...]
outcome = ... if world is ... else compare_rules(world)
outcome

# %% tags=["check"]
checks.check("05.5", outcome);

# %% [markdown]
# <details><summary>GDRT and balancing come out alike</summary>
#
# With one group for and one against the shortcut, equal weights cancel it, and DRO has nothing to add. What if the groups that profit from
# the shortcut are in the majority *as groups*?
# </details>
#
# <details><summary>GDRT is worse</summary>
#
# Is one of your groups pure noise? Its loss cannot fall, so its weight only grows.
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 05.5
world = [(190, +1), (190, +1), (20, -1)]
outcome = compare_rules(world)
checks.check("05.5", outcome)
say(
    "In the world {world}, GDRT minus balanced is **{gap:+.2f}** [95% interval over seeds] in the accuracy of the worst group.",
    world=f"`{world}`", gap=outcome,
)

# %% [markdown]
# ### Which world am I in?
#
# In notebook 06 the world is unknown. Two figures may tell: the weight of the last group at the end of training, and its loss on *held-out* data. For the loss there is a
# floor to compare with, namely what a model reaches that knows nothing about the features. Here that is guessing, at $\log 2$ nats.

# %%
gauges = ["weight of the last group", "held-out loss of the last group"]
table = (
    results[results["rule"].isin(["balanced", "GDRT"])].groupby(["world", "rule"], sort=False)[gauges].mean()
)
table["guessing"] = floor = float(torch.log(torch.tensor(2.0)))
table.round(2)

# %% jupyter={"source_hidden": true}
weight_of_last, held_out = (table[gauge] for gauge in gauges)
assert weight_of_last["five groups", "GDRT"] > 1 / 5, "DRO listens more to the group that suffers"
assert (held_out["two groups"] < floor).all() and held_out["five groups", "GDRT"] < floor, "signal, and heard"
assert (held_out["noise"] > floor).all(), "nothing below the floor where there is nothing to learn"
one_rule = results[(results["world"] == "five groups") & (results["rule"] == "balanced")]
fifth = metrics.t_interval(one_rule["held-out loss of the last group"])
say(
    "The floor is {floor:.2f} nats. *Five groups:* under GDRT the fifth group's held-out loss is **{heard:.2f}**, "
    "below the floor. Under balanced weights it is **{fifth:.2f}** [95% interval over seeds], {where}, although it is the same group with "
    "the same signal. *Noise:* {noise:.2f} under GDRT and {even:.2f} under balanced weights, both above.",
    floor=floor,
    heard=held_out["five groups", "GDRT"],
    fifth=fifth,
    where="above it" if fifth.low > floor else "below it too" if fifth.high < floor else "not told apart from it",
    noise=held_out["noise", "GDRT"],
    even=held_out["noise", "balanced"],
)

# %% [markdown]
# In the world of five groups a large weight is the remedy, and in the world of noise it is the harm, so the weight does not tell the worlds apart. The held-out loss does, but
# in one direction only:
#
# - **Below the floor** shows signal, since nobody beats guessing on fresh coin flips except by luck.
# - **Not below the floor** shows nothing. The group may be noise, or it has signal and got too little weight because the others' shortcut still decides. To find out,
#   give it more weight and measure again.
#
# A language model has such a floor too: the loss of a scorer that never saw the history, which is minus the token relevance of notebook 03. A group whose held-out loss is
# below it has learned something that the scorer did not know. Whether it learned that from *this user's* history shows when a stranger's history raises the loss.

# %% [markdown]
# ## 8. Appendix: exponentiated gradient
#
# *No later notebook needs this section, and its code is folded.* The first paper on Group DRO for neural networks (Sagawa et al. 2020, arXiv 1911.08731) has no tau. It
# keeps one weight vector through the training and, at each step, multiplies each weight by $e^{\eta L(g)}$ and normalises:
#
# $$q_g \leftarrow q_g\, e^{\eta L_g} \Big/ \sum_h q_h\, e^{\eta L_h}$$
#
# This is *exponentiated gradient ascent* for the adversary. We freeze the losses and let it run beside the closed form, together with a third rule. Exponentiated gradient
# multiplies each weight by $e^{\eta\, \partial J/\partial q_g}$ and normalises. The rule above leaves out the KL term of $J$: it climbs $\sum_g q_g L_g$, whose slope is $L_g$. With the KL term its slope is, by step 4,
# $L_g - \tau(\log\frac{q_g}{P_g} + 1)$. The $+1$ is the same for all groups and normalises away, so that
#
# $$q_g \;\propto\; q_g\, e^{\eta (L_g - \tau \log (q_g/P_g))} = q_g^{1-\eta\tau}\, P_g^{\eta\tau}\, e^{\eta L_g}$$
#
# Each step first moves its weights a little towards the prior.

# %% jupyter={"source_hidden": true}
rate, uniform = 0.1, torch.full((3,), 1 / 3)


def eg_step_with_pull(weights: Tensor, losses: Tensor, rate: float, tau: float, prior: Tensor) -> Tensor:
    """Exponentiated gradient ascent on J(Q), the KL term included."""
    return torch.softmax((1 - rate * tau) * weights.log() + rate * tau * prior.log() + rate * losses, dim=0)


free, pulled, closed, rows = uniform, uniform, dro.group_weights(losses, tau), []
for n in range(151):
    if n % 10 == 0:
        rows += [
            {"step": n, "rule": rule, "weight": q[2].item()}
            for rule, q in [
                ("closed form", closed),
                ("exponentiated gradient", free),
                ("the same with the KL term", pulled),
            ]
        ]
    free, pulled = eg_step(free, losses, rate), eg_step_with_pull(pulled, losses, rate, tau, uniform)

# %% jupyter={"source_hidden": true}
race = pd.DataFrame(rows)
ends = race[race["step"] == 150].set_index("rule")["weight"]
figure = plots.learning_curve(
    race,
    "step",
    "weight",
    "rule",
    xlabel="steps with frozen losses",
    ylabel="weight of the worst group",
    title=f"Without the KL term the weight goes to {ends['exponentiated gradient']:.2f}; with it, to the "
    f"closed form's {ends['closed form']:.2f}",
)
plots.show(
    figure,
    alt="Weight of the worst group over steps: flat for the closed form, rising to one for exponentiated "
    "gradient",
)

# %% jupyter={"source_hidden": true}
seventh = uniform
for _ in range(7):
    seventh = eg_step(seventh, losses, rate)
assert torch.allclose(seventh, dro.group_weights(losses, tau=1 / (7 * rate)))
assert torch.allclose(pulled, closed, atol=1e-3)

# %% [markdown]
# After $n$ steps on fixed losses the exponentiated gradient *is* the closed form with $\tau = 1/(n\eta)$, which is asserted above for seven steps. Its temperature falls as
# training goes on, and on *frozen* losses it ends at the worst group alone. In training the losses change, because the group with the weight improves. Its aim is the worst
# group's loss, whatever the distance from the prior, whereas the closed form keeps its KL term.
#
# With the KL term the rule equals the closed form of an exponential moving average of the losses (section 6) with decay $1-\eta\tau$, which is the `ema` option of the
# package. Only the start differs: the average begins at zero here, and with the first batch in the package.

# %% jupyter={"source_hidden": true}
torch.manual_seed(2)
noisy = losses + 0.5 * torch.randn(40, 3)
q, mean = uniform, torch.zeros(3)
for batch in noisy:
    q = eg_step_with_pull(q, batch, rate, tau, uniform)
    mean = dro.ema_update(mean, batch, torch.ones(3, dtype=torch.bool), decay=1 - rate * tau)
    assert torch.allclose(q, dro.group_weights(mean, tau), atol=1e-5)

# %% [markdown]
# | | closed form, per batch | with running mean | exponentiated gradient |
# |---|---|---|---|
# | remembers | nothing | the last $1/(1-\text{decay})$ batches, roughly | everything |
# | a noisy batch | moves the weights at once | moves them a little | moves them a little |
# | KL from the prior | at most (largest loss gap)$/\tau$ | the same, for the mean losses | grows up to $-\log P$ of the worst group |
# | knobs | tau | tau, decay | rate |

# %% jupyter={"source_hidden": true}
reveal({"05.a": f"{by_hand['weight'].iloc[2]:.0%} of the weight", "05.b": "ways 1 and 2: the log-sum-exp, and the weights detached",
        "05.c": f"{(many.argmax(1) == 2).float().mean():.0%}", "05.d": ", ".join(name for name, found in over.items() if found == "better") or "in none"})

# %% [markdown]
# ## Recap
#
# In this notebook we have
#
# - **computed** the weights of Group DRO with a pencil,
# - **derived** them from the inner maximum, by a multiplier for the constraint and one slope for all groups,
# - **shown** that the gradient is the weighted sum of gradients, with weights detached, and what attached weights do,
# - **chosen** tau between noise (too small) and the prior (too large), and given absent groups no weight,
# - **told** apart a world where balancing is enough, one where DRO does better, and one where DRO does harm.

# %% [markdown] tags=["definition"]
# **Quick check.** Three groups with losses 0.5, 1.2 and 2.0, and tau = 0.5. What are the
# weights? And if every loss rises by 1?
#
# <details><summary>Answer</summary>
#
# (0.040, 0.161, 0.799), as in section 1. If all losses rise alike, nothing changes: only gaps count.
# </details>

# %% [markdown]
# **What could still be wrong.** The toy is linear, its groups are given, and its training is too short to memorise much. A large network can drive every group's training loss
# to zero, and then all weights are equal and DRO is balancing again. Real groups are clusters of a score, and may mix those whom the shortcut fails with noise. Which of the
# worlds a language model's groups resemble is a question for data.
#
# **Next:** `06_gdrt_fine_tuning` puts these weights into the training of a language model.
