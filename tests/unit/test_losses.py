"""Losses against closed forms and a reference implementation."""

from __future__ import annotations

import pytest
import torch

from outcross.errors import ConfigError
from outcross.models import tabular_losses
from outcross.train import losses
from outcross.train.losses import check_policy_loss, nll
from outcross.types import Loss


def test_nll_is_the_weighted_sum():
    log_probs = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -9.0, -9.0]])
    weights = torch.tensor([[1.0, 0.5, 0.0], [-2.0, 0.0, 0.0]])
    assert float(nll(log_probs, weights)) == pytest.approx(1.0 + 1.0 - 6.0)


def test_nll_over_tokens_is_cross_entropy():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6, 11), torch.randint(0, 11, (4, 6))
    mask = torch.rand(4, 6) < 0.6
    log_probs = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    labels = torch.where(mask, targets, -100)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert float(nll(log_probs, mask.float()) / mask.sum()) == pytest.approx(float(expected), rel=1e-6)


def test_nll_gradient_is_minus_the_weight():
    log_probs, weights = torch.zeros(2, 3, requires_grad=True), torch.arange(6.0).reshape(2, 3)
    nll(log_probs, weights).backward()
    assert torch.equal(log_probs.grad, -weights)


@pytest.mark.parametrize("name", ["nl", "bt", "value", "own"])
def test_a_loss_that_a_policy_cannot_learn_by_is_refused(name):
    with pytest.raises(ConfigError, match=rf"the loss '{name}'.*allowed: .*nll"):
        check_policy_loss(Loss(name))


@pytest.mark.parametrize("loss", [Loss("dpo", 0.0), Loss("sppo", -1.0), Loss("pg", None, 1.0)], ids=str)
def test_settings_that_no_paper_has_are_refused(loss):
    with pytest.raises(ConfigError, match="give a number"):
        check_policy_loss(loss)
    check_policy_loss(Loss("pg", 0.0))


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    first, second, target, rows = double(4).requires_grad_(), double(4).requires_grad_(), torch.rand(4, dtype=torch.float64), double(4)
    check = torch.autograd.gradcheck
    assert check(lambda a, b: losses.dpo(a, b, rows, 0.3), (first, second))
    assert check(lambda a, b: losses.ipo(a, b, rows, 0.3), (first, second))
    assert check(lambda a, b: losses.bt(a, b, target, rows), (first, second))
    assert check(lambda a: losses.sppo(a, target, rows, 0.1), (first,))
    assert check(lambda a: losses.kto(a, target.round(), torch.tensor(0.3), rows, 0.2), (first,))
    assert check(lambda a: losses.value(a, target, rows), (first,))


@pytest.mark.parametrize(
    "loss",
    [
        *(Loss("nll"), Loss("pg"), Loss("pg", 0.05), Loss("pg", None, 0.2), Loss("dpo", 0.3), Loss("ipo", 0.5), Loss("sppo", 0.1)),
        *(Loss("pg", 0.3, form="trl"), Loss("pg", 0.3, 0.2, form="trl"), Loss("sppo", 0.1, form="trl")),
    ],
    ids=str,
)
def test_the_toy_policy_learns_by_the_same_slopes(loss):
    torch.manual_seed(1)
    own, other, reference, beside, old, weight = (double(6) for _ in range(6))
    target = torch.rand(6, dtype=torch.float64)
    own.requires_grad_(), other.requires_grad_()
    mask = torch.ones(6, 1, dtype=torch.bool)
    columns = {"log_probs": own, "reference": reference, "old": old, "weights": weight, "other": other, "other_reference": beside}
    terms = losses.Terms(
        **{name: value[:, None] for name, value in columns.items()},
        mask=mask,
        other_mask=mask,
        target=target,
        row_weights=weight,
        divergence=torch.zeros(()),
    )
    found = torch.autograd.grad(losses.total(loss, terms), (own, other), allow_unused=True)
    numbers = [item.detach().numpy() for item in (own, other, reference, beside, old, target, weight)]
    for mine, expected in zip(found, tabular_losses.SLOPES[loss.name](tabular_losses.Rows(*numbers), loss), strict=True):
        assert (mine if mine is not None else torch.zeros(6)).tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_soft_labels_are_stationary_where_the_reward_model_agrees_with_them():
    p = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    gap = p.logit().requires_grad_()
    losses.bt(gap, torch.zeros_like(gap), p, torch.ones_like(p)).backward()
    assert gap.grad.abs().max() < 1e-12
    hard = losses.bt(gap, torch.zeros_like(gap), torch.ones_like(p), torch.ones_like(p))
    assert hard.item() == pytest.approx(-torch.nn.functional.logsigmoid(gap).sum().item(), rel=1e-12), "the usual loss of hard labels"


def test_win_rates_reproduce_the_multiplicative_weights_update():
    """The square vanishes at π_t · exp(P/β)/Z when the targets are shifted by the exact log Z instead of 1/(2β)."""
    torch.manual_seed(2)
    beta, rates, before = 0.5, torch.rand(5, dtype=torch.float64), double(5).log_softmax(0)
    shift = beta * (before + rates / beta).logsumexp(0) - 0.5
    logits = before.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimiser.zero_grad()
        found = losses.sppo(logits.log_softmax(0) - before, rates - shift, before.exp(), beta)
        found.backward()
        return found

    optimiser.step(closure)
    assert logits.softmax(0).tolist() == pytest.approx((before + rates / beta).softmax(0).tolist(), abs=1e-6)


def test_a_bandit_converges_to_the_tilted_reference():
    """The expected gradient under `pg` is zero at π ∝ π_ref · exp(r (1 − β)/β)."""
    beta, reward = 0.3, torch.tensor([1.0, 0.2], dtype=torch.float64)
    reference = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    logits = reference.clone().requires_grad_()
    mask = torch.ones(2, 1, dtype=torch.bool)
    for _ in range(400):
        log_probs = logits.log_softmax(0)
        odds = log_probs.exp().detach()
        each = [
            odds[arm]
            * losses.pg(log_probs[arm].view(1, 1), reward[arm].view(1, 1), mask[:1], reference=reference[arm].view(1, 1), beta=beta)
            for arm in range(2)
        ]
        (slope,) = torch.autograd.grad(sum(each), logits)
        logits = (logits - 2.0 * slope).detach().requires_grad_()
    expected = (reference + reward * (1 - beta) / beta).softmax(0)
    assert logits.softmax(0).tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_clipping_takes_away_the_gradient_of_what_moved_far_enough():
    log_probs = torch.tensor([[0.5, -0.5, 0.1]], requires_grad=True)
    losses.pg(log_probs, torch.tensor([[1.0, -1.0, 1.0]]), torch.ones(1, 3), old=torch.zeros(1, 3), clip=0.2).backward()
    assert log_probs.grad.tolist()[0] == pytest.approx([0.0, 0.0, -(2.718281828**0.1)], rel=1e-5)


def test_padding_adds_nothing_and_a_mean_is_over_tokens():
    log_probs, mask = torch.tensor([[-1.0, -2.0, -9.0]]), torch.tensor([[True, True, False]])
    assert float(losses.log_ratio(log_probs, torch.zeros(1, 3), mask)) == -3.0
    assert float(losses.log_ratio(log_probs, torch.zeros(1, 3), mask, mean=True)) == -1.5


def test_the_divergence_in_the_loss_is_grpos_estimate():
    """Above 0, without a slope where the two models agree, and on average the divergence."""
    torch.manual_seed(0)
    now, reference = (torch.randn(50, dtype=torch.float64).log_softmax(0) for _ in range(2))
    mask, none = torch.ones(50, 1, dtype=torch.bool), torch.zeros(50, 1, dtype=torch.float64)

    def each(reference):
        return torch.stack(
            [
                losses.pg(now[i : i + 1, None], none[:1], mask[:1], reference=reference[i : i + 1, None], beta=1.0, in_loss=True)
                for i in range(50)
            ]
        )

    assert bool((each(reference) > 0).all()) and float(each(now).abs().max()) == 0
    assert float((now.exp() * each(reference)).sum()) == pytest.approx(float((now.exp() * (now - reference)).sum()), rel=1e-9)
