"""Probes of likelihood on models that score for real: tails of real text, and samples under a frozen model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import NoPast, context

from outcross.errors import ConfigError, StageError
from outcross.evaluate.likelihood import LikelihoodShift, SelfPerplexity, bin_edges, chi_squared
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.statistics import half_samples
from outcross.evaluate.tail_loss import TailLoss, often
from outcross.evaluate.text_statistic import TextStatistic
from outcross.gate.evidence import weigh
from outcross.generate.draw import Draw
from outcross.models.categorical import Categorical
from outcross.stages import Context, FitPlan, Model
from outcross.types import Completion, Example, Origin, Task, Turn

REAL = Origin("real", "attested", "made up")
SYMBOLS = [f"s{i}" for i in range(60)]
ZIPF = {name: (i + 1) ** -1.5 for i, name in enumerate(SYMBOLS)}
ROWS = tuple(
    Example(f"r{i}", "say:", name, origin=REAL)
    for i, name in enumerate(np.random.RandomState(4).choice(SYMBOLS, 4000, p=np.array(list(ZIPF.values())) / sum(ZIPF.values())))
)
TASKS = tuple(Task(f"t{i}", f"say {i}:") for i in range(400))


def on(folder: Path, policy: Model, reference: Model | None = None, label: str = "probe") -> Context:
    return Context({"policy": policy, "reference": reference or policy}, NoPast(folder), label, 0, 7, context(folder).runner)


# ── tails ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_rare_are_the_rarest_decile_and_ties_stand_together() -> None:
    assert often({"a": 80, "b": 12, "c": 5, "d": 3}, 0.1) == {"a", "b"}
    assert often({"a": 80, "b": 10, "c": 5, "d": 5}, 0.1) == {"a", "b"}
    assert often({"a": 80, "b": 6, "c": 6, "d": 6, "e": 2}, 0.1) == {"a", "b", "c", "d"}, "three that tie are 18 % together"
    assert often({"a": 6, "b": 6}, 0.1) == frozenset(), "where even the rarest are more, they alone are rare"


def test_the_tails_loss_rises_before_the_mean_does_when_rare_words_vanish(tmp_path: Path) -> None:
    champion = Categorical(ZIPF)
    seen = Counter(row.completion for row in ROWS)
    lost = sorted(SYMBOLS, key=lambda name: seen[name])[:8]
    candidate = Categorical({name: 0.0 if name in lost else weight for name, weight in ZIPF.items()})
    tail, whole = TailLoss(ROWS), RealLoss(ROWS)
    of_tail, of_whole = (weigh(probe(on(tmp_path, candidate)), probe(on(tmp_path, champion)), 0.025) for probe in (tail, whole))
    assert of_tail.low < -tail.margin and of_tail.estimate < -3 * tail.margin
    assert of_tail.estimate < 8 * of_whole.estimate < 0
    measured = tail(on(tmp_path, champion))
    rare = [row for row in ROWS if row.completion not in often(seen, 0.1)]  # type: ignore[arg-type]
    assert measured.items == tuple(row.id for row in rare) and 0.05 < len(rare) / len(ROWS) <= 0.1
    total = sum(ZIPF.values())
    assert measured.values == pytest.approx([-math.log(ZIPF[str(row.completion)] / total) for row in rare])


def test_refitting_on_own_samples_raises_the_tails_loss_first(tmp_path: Path) -> None:
    """One generation of the chain of Shumailov et al., at its real size."""
    first = Categorical(ZIPF)
    drawn = np.random.RandomState(1).choice(SYMBOLS, 400, p=first.probs)
    made = [Example(f"d{i}", "say:", str(name)) for i, name in enumerate(drawn)]
    second = first.fit(made, plan=FitPlan(), reference=None, seed=0, seen=lambda step, ids, **facts: None)
    rise = {probe.name: probe(on(tmp_path, second)).mean - probe(on(tmp_path, first)).mean for probe in (TailLoss(ROWS), RealLoss(ROWS))}
    assert rise["tail_loss"] > 5 * rise["real_loss"] > 0


@dataclass(frozen=True)
class Letters:
    """A language model whose tokens are letters, each with a loss of its own, and an end token of none."""

    losses: tuple[tuple[str, float], ...]
    id: str = "letters"
    depth: int = 0

    def close(self) -> None: ...

    def token_ids(self, completion: Completion, /) -> Sequence[int]:
        return [*map(ord, str(completion.content)), 0]

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        known = dict(self.losses)
        return ([*(-known[letter] for letter in str(turn.completion.content)), 0.0] for turn in turns)


def test_in_a_text_of_several_tokens_only_the_rare_ones_count(tmp_path: Path) -> None:
    model = Letters((("a", 1.0), ("b", 2.0), ("z", 7.0), ("y", 5.0)))
    rows = [Example(f"e{i}", "p", text) for i, text in enumerate(["aabb"] * 9 + ["azay", "bbb"])]
    found = TailLoss(rows)(on(tmp_path, model))
    assert (found.items, found.values, found.unit) == (("e9",), (6.0,), "nats per token") and not found.higher_is_better
    other = [Example(f"f{i}", "p", text) for i, text in enumerate(["yz"] * 9 + ["b"])]
    elsewhere = TailLoss(rows, reference=other)(on(tmp_path, model))
    assert elsewhere.values == (1.5,) * 9 + (1.0, 2.0), "b is rare there, and a was never seen"


def test_rare_subgroups_have_a_tail_of_their_own(tmp_path: Path) -> None:
    model = Letters((("a", 1.0), ("b", 2.0), ("z", 7.0)))
    rows = [Example(f"e{i}", "p", "a", subgroup="many") for i in range(19)] + [
        Example("few", "p", "zb", subgroup="few"),
        Example("none", "p", "z"),
    ]
    found = TailLoss(rows, "subgroups")(on(tmp_path, model))
    assert found.items == ("few",) and found.values == pytest.approx([3.0]) and found.probe == "tail_loss_subgroups"
    with pytest.raises(ConfigError, match=r"no subgroup of the real rows is rare.*with a `subgroup`"):
        TailLoss([rows[-1]], "subgroups")(on(tmp_path, model))
    with pytest.raises(ConfigError, match=r"share is 1\.0"):
        TailLoss(rows, share=1.0)


def test_a_model_that_does_not_name_its_tokens_is_refused(tmp_path: Path) -> None:
    class Blind:
        id, depth = "blind", 0

        def close(self) -> None: ...

        def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
            return ([-1.0, -2.0] for _ in turns)

    with pytest.raises(ConfigError, match="scored 2 tokens of 'e' and names 1; take a local language model"):
        TailLoss([Example("e", "p", "two tokens")])(on(tmp_path, Blind()))
    with pytest.raises(StageError, match="no items"):
        TailLoss([])(on(tmp_path, Blind()))


def test_a_language_model_names_the_tokens_that_it_scores() -> None:
    pytest.importorskip("torch", reason="pip install 'outcross[torch]' runs this")
    from outcross.models.torch_lm import from_config

    model = from_config({"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 8, "n_positions": 32}, alphabet="abcd ")
    for completion in (Completion("abba"), Completion("cd", finished=False), Completion("")):
        (scored,) = model.log_probs([Turn("a", completion)])
        assert len(model.token_ids(completion)) == len(scored)


# ── samples under a frozen model ───────────────────────────────────────────────────────────────────────────────────────
def test_self_perplexity_is_the_answers_cross_entropy_under_the_reference(tmp_path: Path) -> None:
    reference = Categorical({"a": 0.7, "b": 0.2, "c": 0.1})
    found = SelfPerplexity(TASKS, Draw(n=20))(on(tmp_path, Categorical({"a": 0.5, "b": 0.5}), reference))
    assert found.mean == pytest.approx(-(math.log(0.7) + math.log(0.2)) / 2, abs=0.03)
    assert found.items == tuple(task.id for task in TASKS) and found.higher_is_better
    assert SelfPerplexity(TASKS, Draw(n=2)).roles == ("policy", "reference")


def test_mass_that_moves_to_what_is_likely_or_to_what_was_never_said_shifts_the_histogram(tmp_path: Path) -> None:
    first = Categorical(ZIPF)
    sharper = Categorical({name: weight**2 for name, weight in ZIPF.items()})
    babbling = Categorical({name: weight + 0.004 * sum(ZIPF.values()) for name, weight in ZIPF.items()})
    shift, perplexity = LikelihoodShift(TASKS, Draw(n=1), ROWS, replicates=60), SelfPerplexity(TASKS, Draw(n=1))
    found = {name: (shift(on(tmp_path, m, first)), perplexity(on(tmp_path, m, first))) for name, m in locals().items() if name in NAMES}
    base, base_perplexity = found["first"]
    assert abs(base.values[0]) < 0.1 and base.unit == "chi-squared over real" and not base.higher_is_better
    assert weigh(found["sharper"][0], base, 0.025).low < -shift.margin
    assert weigh(found["sharper"][1], base_perplexity, 0.025).low < -perplexity.margin
    assert found["babbling"][0].values[0] > base.values[0] and found["babbling"][1].mean > base_perplexity.mean
    vocabulary = TextStatistic(TASKS, Draw(n=1), reference=ROWS, replicates=20)
    assert vocabulary(on(tmp_path, sharper)).values[0] < vocabulary(on(tmp_path, first)).values[0] - 0.3


NAMES = ("first", "sharper", "babbling")


def test_the_shift_has_no_bias_and_its_spread_is_not_too_small() -> None:
    shares, rng = np.array([0.4, 0.3, 0.2, 0.1]), np.random.RandomState(3)
    moved = np.array([0.6, 0.2, 0.1, 0.1])
    subsets = half_samples([str(i) for i in range(60)], 60)
    for truth in (shares, moved):
        found = [chi_squared(np.eye(4)[rng.choice(4, 60, p=truth)], shares, subsets) for _ in range(400)]
        values = np.array([each[0] for each in found])
        assert values.mean() == pytest.approx(((truth - shares) ** 2 / shares).sum(), abs=4 * values.std() / 20)
        assert np.sqrt(np.mean([each[1:].var(ddof=1) for each in found])) > 0.9 * values.std()
    everything = np.eye(4)[[3] * 60]
    assert chi_squared(everything, shares, subsets)[0] == pytest.approx(1 / 0.1 - 1)


def test_samples_of_one_item_are_not_independent_and_failed_items_count_for_nothing() -> None:
    shares = np.array([0.5, 0.5])
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 0.0]])
    pairs = [rows[i] @ (rows[j] / shares) for i in range(3) for j in range(3) if i != j]
    assert chi_squared(rows, shares, np.ones((1, 4), bool))[0] == pytest.approx(np.mean(pairs) - 1)


def test_bins_are_equal_parts_of_real_text_and_none_is_empty() -> None:
    values = np.random.RandomState(0).random_sample(1000)
    edges = bin_edges(values, 10)
    assert set(np.bincount(np.searchsorted(edges, values))) == {100}
    tied = np.array([1.0] * 70 + [2.0] * 20 + [3.0] * 10)
    assert bin_edges(tied, 10).tolist() == [1.0, 2.0] and len(bin_edges(np.ones(50), 10)) == 0


def test_real_rows_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    model = Categorical({"a": 1.0, "b": 1.0})
    rows = [Example(f"e{i}", "p", "ab"[i % 2]) for i in range(30)]
    with pytest.raises(StageError, match="all 30 real rows have one likelihood"):
        LikelihoodShift(TASKS, Draw(n=1), rows)(on(tmp_path, model))
    with pytest.raises(ConfigError, match="10 bins and has 9 rows"):
        LikelihoodShift(TASKS, Draw(n=1), rows[:9])(on(tmp_path, model))
