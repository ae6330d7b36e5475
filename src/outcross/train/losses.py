"""Losses as pure functions on log-probabilities; the trainer picks one by `Loss.name`.

`nll` and `pg` take natural log-probabilities of completion tokens, (rows, columns), and weights that are zero on padding. The others take one
number a row: `chosen` and `rejected` are log π/π_ref of whole completions, *summed* over tokens unless they say otherwise. All give a *sum*.
The trainer divides that of `nll` by the completion tokens of its rows in the optimiser batch and any other by its rows, so that neither
the micro-batch nor gradient accumulation changes what is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outcross.errors import ConfigError, did_you_mean
from outcross.types import Loss

if TYPE_CHECKING:
    from torch import Tensor


def nll(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood, summed: L = − Σ_t w_t · log p(y_t | x, y_<t).

    With all weights 1 and the trainer's division this is the usual cross-entropy per completion token; with a weight
    per row it is reward-weighted maximum likelihood (Peters and Schaal 2007, ICML, equation 13; ReST, arXiv:2308.08998, equation 2).
    """
    return -(weights * log_probs).sum()


def pg(
    log_probs: Tensor,
    weights: Tensor,
    mask: Tensor,
    *,
    reference: Tensor | None = None,
    old: Tensor | None = None,
    beta: float = 0.0,
    clip: float | None = None,
    in_loss: bool = False,
) -> Tensor:
    """REINFORCE: L = − Σ_t G_t log π(y_t), where G = (1 − β) w − β Σ_t log π/π_ref has no gradient; its mean gradient is that of
    −E[(1 − β) w] + β KL(π‖π_ref) (RLAIF, arXiv:2309.00267 A.3). `weights` are advantages: nothing is divided by a deviation.

    With `clip` and the log-probabilities `old` under the policy that drew: L = − Σ_t min(ρ_t G_t, clamp(ρ_t, 1 ± clip) G_t),
    ρ = π/π_old (PPO, arXiv:1707.06347 equation 7).

    With `in_loss` G = w, and β Σ_t (π_ref/π − log π_ref/π − 1) is added, which estimates the divergence from above 0 at every token (GRPO,
    arXiv:2402.03300 equation 4). Its gradient is not that of the divergence of whole answers, and its rows are not normalised by length.
    """
    if in_loss and reference is not None:
        apart = (reference - log_probs) * mask
        return pg(log_probs, weights, mask, old=old, clip=clip) + beta * ((apart.exp() - apart - 1) * mask).sum()
    gain = weights
    if beta and reference is not None:
        ratio = ((log_probs - reference) * mask).sum(1, keepdim=True)
        gain = ((1 - beta) * weights - beta * ratio.detach()) * mask
    if clip is None or old is None:
        return -(gain * log_probs).sum()
    moved = ((log_probs - old) * mask).exp()
    return -(moved * gain).minimum(moved.clamp(1 - clip, 1 + clip) * gain).sum()


def dpo(chosen: Tensor, rejected: Tensor, weights: Tensor, beta: float = 0.1) -> Tensor:
    """L = − Σ w log σ(β (chosen − rejected)) (arXiv:2305.18290 equation 7)."""
    from torch.nn.functional import logsigmoid

    return -(weights * logsigmoid(beta * (chosen - rejected))).sum()


def ipo(chosen: Tensor, rejected: Tensor, weights: Tensor, beta: float = 0.1) -> Tensor:
    """L = Σ w (chosen − rejected − 1/(2β))² (arXiv:2310.12036 equation 17, τ = β). The paper sums log-ratios over tokens; trl takes their
    mean, which is `Loss.form` "trl"."""
    return (weights * (chosen - rejected - 1 / (2 * beta)).square()).sum()


def sppo(chosen: Tensor, target: Tensor, weights: Tensor, beta: float = 1e-3) -> Tensor:
    """L = Σ w (chosen − (P − ½)/β)², P = `target` the win rate against the reference (arXiv:2405.00675 equation 4.4, η = 1/β).

    trl's `sppo_hard`, which is `Loss.form` "trl", is this on the better answer with P = 1 and on the worse with P = 0, added up.
    """
    return (weights * (chosen - (target - 0.5) / beta).square()).sum()


def hard(target: Tensor) -> Tensor:
    """Win rates as 1, 0, or ½ where neither is better."""
    return (target - 0.5).sign() / 2 + 0.5


def kto(chosen: Tensor, target: Tensor, divergence: Tensor, weights: Tensor, beta: float = 0.1) -> Tensor:
    """L = Σ w (1 − σ(±β (chosen − z))), plus where `target` is 1 (good) and minus where it is 0 (arXiv:2402.01306 equation 8).

    `divergence`: z, the mean log π/π_ref of mismatched answers, not below 0 and without a gradient, as trl estimates it.
    """
    sign = 2 * target - 1
    return (weights * (1 - (sign * beta * (chosen - divergence)).sigmoid())).sum()


def bt(chosen: Tensor, rejected: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Of two rewards: L = − Σ w [p log σ(Δ) + (1 − p) log σ(−Δ)], Δ = chosen − rejected, p = `target` the probability that `chosen` is
    better (RLAIF, arXiv:2309.00267 §2.2). It is stationary at σ(Δ) = p."""
    from torch.nn.functional import logsigmoid

    gap = chosen - rejected
    return -(weights * (target * logsigmoid(gap) + (1 - target) * logsigmoid(-gap))).sum()


def value(values: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """L = Σ w (V − Z)², for a learned value (arXiv:2309.00267 A.3)."""
    return (weights * (values - target).square()).sum()


@dataclass(frozen=True)
class Terms:
    """What the losses of some rows are made of. By column: `log_probs`, `reference`, `old`, `weights`, `mask` of completions, and `other`,
    `other_reference`, `other_mask` of rejected ones. By row: `target`. `divergence` is KTO's. What a loss does not read may be anything."""

    log_probs: Tensor
    reference: Tensor
    old: Tensor
    weights: Tensor
    mask: Tensor
    other: Tensor
    other_reference: Tensor
    other_mask: Tensor
    target: Tensor
    row_weights: Tensor
    divergence: Tensor


def total(loss: Loss, terms: Terms) -> Tensor:
    """The summed loss of rows that share `loss`."""
    if loss.name == "nll":
        return nll(terms.log_probs, terms.weights)
    if loss.name == "pg":
        old = terms.old if loss.clip is not None else None
        inside, beta = loss.form == "trl" and bool(loss.beta), loss.beta or 0.0
        given = (terms.log_probs, terms.weights, terms.mask)
        return pg(*given, reference=terms.reference, old=old, beta=beta, clip=loss.clip, in_loss=inside)
    chosen = log_ratio(terms.log_probs, terms.reference, terms.mask, mean=loss.form == "trl" and loss.name == "ipo")
    if loss.name == "sppo":
        target = hard(terms.target) if loss.form == "trl" else terms.target
        return sppo(chosen, target, terms.row_weights, 1e-3 if loss.beta is None else loss.beta)
    beta = 0.1 if loss.beta is None else loss.beta
    if loss.name == "kto":
        return kto(chosen, terms.target, terms.divergence, terms.row_weights, beta)
    rejected = log_ratio(terms.other, terms.other_reference, terms.other_mask, mean=loss.form == "trl" and loss.name == "ipo")
    return (dpo if loss.name == "dpo" else ipo)(chosen, rejected, terms.row_weights, beta)


def log_ratio(log_probs: Tensor, reference: Tensor, mask: Tensor, *, mean: bool = False) -> Tensor:
    """log π/π_ref of each completion, (rows,): summed over its tokens, or their mean."""
    found = ((log_probs - reference) * mask).sum(1)
    return found / mask.sum(1) if mean else found


POLICY_LOSSES = ("nll", "pg", "dpo", "ipo", "sppo", "kto")
PAIRED = frozenset({"dpo", "ipo"})
TARGETED = frozenset({"sppo", "kto"})


def refers(loss: Loss) -> bool:
    """Whether it looks at a reference model."""
    return loss.name in ("dpo", "ipo", "sppo", "kto") or (loss.name == "pg" and bool(loss.beta))


def check_policy_loss(loss: Loss) -> None:
    """Raises `ConfigError` for a loss that a language model cannot be trained with."""
    if loss.name not in POLICY_LOSSES:
        raise ConfigError(f"a language model cannot be trained with the loss {loss.name!r}; {did_you_mean(loss.name, POLICY_LOSSES)}")
    if loss.beta is not None and not (loss.beta > 0 or (loss.name == "pg" and loss.beta == 0)):
        raise ConfigError(f"the loss {loss.name!r} has beta = {loss.beta:g}; give a number above 0")
    if loss.clip is not None and not 0 < loss.clip < 1:
        raise ConfigError(f"the loss {loss.name!r} has clip = {loss.clip:g}; give a number between 0 and 1, or none")
