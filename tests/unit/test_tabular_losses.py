"""The toy policy's preference and policy-gradient losses: slopes by finite differences, and the closed forms they are known for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from outcross.errors import ModelError
from outcross.models.tabular import Tabular
from outcross.models.tabular_losses import SLOPES, Collected, Rows, gradient
from outcross.stages import FitPlan
from outcross.types import Completion, Example, Loss, Turn

LOSSES = [Loss("nll"), Loss("pg"), Loss("pg", 0.05), Loss("pg", None, 0.2), Loss("dpo", 0.3), Loss("ipo", 0.5), Loss("sppo", 0.1)]
LOSSES += [Loss("pg", 0.3, form="trl"), Loss("pg", 0.3, 0.2, form="trl"), Loss("sppo", 0.1, form="trl")]


def ignore(step: int, ids: Sequence[str]) -> None:
    """Nothing is noted."""


def value(loss: Loss, log_probs: np.ndarray, row: dict[str, float], fixed: np.ndarray) -> float:
    """A row's loss by its definition; for pg the surrogate whose gradient at `fixed` is the policy gradient."""
    chosen, rejected, w = log_probs[1], log_probs[2], row["weight"]
    h = (chosen - row["ref"]) - (rejected - row["ref_rejected"])
    if loss.name == "nll":
        return float(-w * chosen)
    if loss.name == "pg":
        if loss.form == "trl" and loss.beta:
            apart = row["ref"] - chosen
            return value(Loss("pg", None, loss.clip), log_probs, row, fixed) + loss.beta * (math.exp(apart) - apart - 1)
        beta = loss.beta or 0.0
        gain = (1 - beta) * w - beta * (fixed[1] - row["ref"]) if beta else w
        if loss.clip is None:
            return float(-gain * chosen)
        ratio = math.exp(chosen - row["old"])
        return -min(ratio * gain, min(max(ratio, 1 - loss.clip), 1 + loss.clip) * gain)
    if loss.name == "dpo":
        return w * math.log1p(math.exp(-(loss.beta or 0) * h))
    if loss.name == "ipo":
        return float(w * (h - 1 / (2 * (loss.beta or 1))) ** 2)
    target = float(row["target"] > 0.5) if loss.form == "trl" else row["target"]
    return float(w * (chosen - row["ref"] - (target - 0.5) / (loss.beta or 1)) ** 2)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.name}-{loss.beta}-{loss.clip}-{loss.form}")
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_the_definition(loss: Loss, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=5)

    def log_softmax(x: np.ndarray) -> np.ndarray:
        return np.asarray(x - np.log(np.exp(x).sum()))

    now = log_softmax(logits)
    row = {
        "ref": -1.3,
        "ref_rejected": -2.1,
        "old": float(now[1] - rng.normal() * 0.1),
        "target": 0.8,
        "weight": float(rng.choice([-0.7, 1.4])),
    }
    known = Tabular(["a", "b", "c", "d", "e"])

    class Reference(Tabular):
        def log_probs(self, turns):  # type: ignore[no-untyped-def]
            return iter([(row["ref"],) if turn.completion.content == "b" else (row["ref_rejected"],) for turn in turns])

    collected = Collected()
    rejected = "c" if loss.name in ("dpo", "ipo") else None
    example = Example("x", "p", "b", loss, row["weight"], rejected=rejected, target=row["target"], old_log_probs=(row["old"],))
    collected.add(example, lambda said: known.answers.index(str(said)))
    found = gradient(now[None, :], collected.lessons(Reference(["a"])), np.array([0]))[0]
    step = 1e-6
    shifts = np.eye(5) * step
    by_differences = [
        (value(loss, log_softmax(logits + d), row, now) - value(loss, log_softmax(logits - d), row, now)) / (2 * step) for d in shifts
    ]
    assert found == pytest.approx(np.array(by_differences), abs=1e-6)


def table(model: Tabular, answers: Sequence[str], prompt: str = "p") -> np.ndarray:
    return np.array([values[0] for values in model.log_probs([Turn(prompt, Completion(text)) for text in answers])])


def test_sppo_with_the_constant_of_its_partition_is_the_multiplicative_weights_update() -> None:
    """Regressing every answer's log-ratio on η (P − ½) less the exact log Z reproduces π ∝ π₀ exp(η P) (arXiv:2405.00675 §4)."""
    answers, eta = ["a", "b", "c"], 0.7
    start = Tabular(answers).fit(
        [Example(str(i), "p", text, weight=w) for i, (text, w) in enumerate(zip(answers, (1.0, 0.5, 0.2), strict=True))],
        plan=FitPlan(lr=0.5, epochs=20, batch=3),
        reference=None,
        seed=0,
        seen=ignore,
    )
    wins = np.array([0.9, 0.5, 0.1])
    before = table(start, answers)
    log_z = math.log(float(np.exp(before + eta * (wins - 0.5)).sum()))
    loss = Loss("sppo", 1 / eta)
    rows = [Example(f"r{i}", "p", text, loss, target=float(p) - log_z / eta) for i, (text, p) in enumerate(zip(answers, wins, strict=True))]
    plan = FitPlan(lr=0.05, epochs=3000, batch=3, schedule="constant", warmup=0.0)
    after = start.fit(rows, plan=plan, reference=start, seed=0, seen=ignore)
    expected = before + eta * wins - math.log(float(np.exp(before + eta * wins).sum()))
    assert table(after, answers) == pytest.approx(expected, abs=1e-6)


def test_policy_gradient_with_divergence_settles_at_the_tilted_reference() -> None:
    """Two arms, all advantages known: π ∝ π_ref exp(r (1 − β)/β), the maximum of (1 − β) E[r] − β KL."""
    answers, beta, reward = ["a", "b"], 0.3, {"a": 1.0, "b": 0.2}
    reference = model = Tabular(answers)
    for step in range(400):
        p = np.exp(table(model, answers))
        mean = float(sum(p[i] * reward[text] for i, text in enumerate(answers)))
        loss = Loss("pg", beta)
        # Every answer once, weighed by its probability: the expectation of the sampled gradient, advantage and divergence alike.
        rows = [
            Example(f"{step}{text}", "p", text, Loss("pg"), float(p[i] * _gain(reward[text] - mean, p[i], 0.5, beta)))
            for i, text in enumerate(answers)
        ]
        model = model.fit(
            rows, plan=FitPlan(lr=1.0, epochs=1, batch=2, schedule="constant", warmup=0.0), reference=reference, seed=0, seen=ignore
        )
    assert loss.beta == beta
    odds = np.diff(table(model, answers))[0]
    assert odds == pytest.approx((reward["b"] - reward["a"]) * (1 - beta) / beta, abs=1e-3)


def _gain(advantage: float, p: float, ref: float, beta: float) -> float:
    rows = Rows(*(np.array([x]) for x in (math.log(p), 0.0, math.log(ref), 0.0, math.nan, 0.0, advantage)))
    return float(-SLOPES["pg"](rows, Loss("pg", beta))[0][0])


def test_a_fit_may_mix_losses_and_refuses_what_it_cannot_learn() -> None:
    rows = [Example("1", "p", "a"), Example("2", "q", "b", Loss("dpo", 0.5), rejected="a")]
    start = Tabular(["a", "b"])
    after = start.fit(rows, plan=FitPlan(lr=0.5, epochs=50, batch=2), reference=start, seed=0, seen=ignore)
    assert table(after, ["a", "b"], "p")[0] > -0.5 and table(after, ["a", "b"], "q")[1] > table(start, ["a", "b"], "q")[1]
    for example, told in (
        (Example("x", "p", "a", Loss("kto")), "cannot learn by the loss 'kto'"),
        (Example("x", "p", "a", Loss("ipo", 0.1)), "no rejected answer"),
        (Example("x", "p", "a", Loss("sppo", 0.1)), "no target"),
    ):
        with pytest.raises(ModelError, match=told):
            start.fit([example], plan=FitPlan(), reference=start, seed=0, seen=ignore)
    with pytest.raises(ModelError, match="looks at a reference model"):
        start.fit([rows[1]], plan=FitPlan(), reference=None, seed=0, seen=ignore)
