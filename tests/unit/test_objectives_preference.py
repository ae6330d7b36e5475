"""What is learnt from comparisons, win rates, verdicts and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import context, failed, group, sample, score
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from outcross.errors import ConfigError
from outcross.judgement import Compared, Judgement, keys, written
from outcross.stages import Stage
from outcross.train.objectives import Approve, Prefer, Reinforce, Score, WinRate, win_rates
from outcross.types import Completion, Example, Group, Loss, Sample, Turn
from outcross.types import Score as Found


def rows(objective: Any, *groups: Group, **models: Any) -> list[Example]:
    return list(objective(context(Path(), models), list(groups)))


def valued(*values: float) -> list[Sample]:
    return [sample(f"a{i}", i, scores=(score("pass" if value >= 0.5 else "fail", value),)) for i, value in enumerate(values)]


def judged(table: Sequence[Sequence[float]], **fields: Any) -> Group:
    """A group whose judge said `table[i][k]`: how probably i beats k. Half of -1: not asked."""
    plain = [sample(f"a{i}", i) for i in range(len(table))]
    names = keys(plain)
    made = []
    for i in range(len(plain)):
        pairs = tuple(Compared(names[plain[k].id], p, p, p) for k, p in enumerate(table[i]) if k != i and p >= 0)
        value = sum(pair.p for pair in pairs) / len(pairs)
        found = Found(
            "pairwise_judge",
            "1",
            "pass" if value >= 0.5 else "fail",
            value,
            "",
            written(Judgement("judge", "j", "log-probabilities", pairs)),
        )
        made.append(sample(f"a{i}", i, scores=(found,)))
    return group(*made, **fields)


ROCK = [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
LINE = [[0.5, 0.7, 0.9], [0.3, 0.5, 0.8], [0.1, 0.2, 0.5]]
BROKEN = (
    sample("broken", 90, scores=(score("error"),)),
    sample("unsure", 91, scores=(score("abstain", None),)),
    sample("unseen", 92),
    failed(93),
)


# ── pairs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_best_is_preferred_to_the_worst() -> None:
    (row,) = rows(Prefer(), group(*valued(0.4, 0.9, 0.1, 0.9), *BROKEN, subgroup="easy"))
    assert (row.completion, row.rejected, row.target, row.loss, row.subgroup) == ("a1", "a2", None, Loss("dpo", 0.1), "easy")
    assert len(row.origin.parents) == 2 and row.origin.depth == 1


def test_all_pairs_of_different_value_are_pairs_and_equal_ones_none() -> None:
    found = rows(Prefer(pairs="all"), group(*valued(0.4, 0.9, 0.1, 0.9)))
    assert {(row.completion, row.rejected) for row in found} == {("a1", "a0"), ("a3", "a0"), ("a0", "a2"), ("a1", "a2"), ("a3", "a2")}
    assert rows(Prefer(pairs="all", margin=0.6), group(*valued(0.4, 0.9, 0.1))) == [
        row for row in found if (row.completion, row.rejected) == ("a1", "a2")
    ]
    for pairs in ("best_worst", "all", "one_token"):
        assert rows(Prefer(pairs=pairs), group(*valued(1.0, 1.0)), group(*valued(1.0)), group(*BROKEN)) == []  # type: ignore[arg-type]


def test_one_token_pairs_are_of_answers_of_one_token() -> None:
    made = [
        Sample(str(i), (Turn("2+2=", Completion(text, tokens)),), sample("x").origin, scores=(score("pass" if right else "fail", right),))
        for i, (text, tokens, right) in enumerate([("4", (7,), 1.0), ("5", (8,), 0.0), ("no idea", (1, 2), 0.0)])
    ]
    (row,) = rows(Prefer(pairs="one_token"), group(*made))
    assert (row.completion, row.rejected) == ("4", "5")


def test_soft_labels_are_the_judges_and_follow_it_where_values_disagree() -> None:
    """In a circle each beats one and loses to one: equal values, three firm labels."""
    found = rows(Prefer(Loss("bt"), "all", labels="soft"), judged(ROCK))
    assert {(row.completion, row.rejected, row.target) for row in found} == {("a0", "a1", 1.0), ("a2", "a0", 1.0), ("a1", "a2", 1.0)}
    found = rows(Prefer(Loss("bt"), "all", labels="soft"), judged(LINE))
    assert {(row.completion, row.rejected, row.target) for row in found} == {("a0", "a1", 0.7), ("a0", "a2", 0.9), ("a1", "a2", 0.8)}
    (row,) = rows(Prefer(Loss("bt"), labels="soft"), judged(LINE))
    assert (row.completion, row.rejected, row.target) == ("a0", "a2", 0.9)
    missing = [[0.5, -1, 0.9], [-1, 0.5, 0.8], [0.1, 0.2, 0.5]]
    assert len(rows(Prefer(Loss("bt"), "all", labels="soft"), judged(missing))) == 2


def test_losses_that_cannot_learn_from_such_rows_are_refused() -> None:
    for wrong, why in ((Prefer, "learns from no pairs"),):
        with pytest.raises(ConfigError, match=why):
            wrong(Loss("kto"))
    with pytest.raises(ConfigError, match="soft labels are learnt by the loss bt"):
        Prefer(labels="soft")
    with pytest.raises(ConfigError, match="margin is -1"):
        Prefer(margin=-1)


# ── win rates ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_win_rates_count_the_answer_itself_at_one_half() -> None:
    """SPPO §5.1; the best and the worst of them are learnt."""
    found = rows(WinRate(), judged(LINE))
    assert [(row.completion, row.target) for row in found] == [("a0", pytest.approx(2.1 / 3)), ("a2", pytest.approx(0.8 / 3))]
    assert found[0].loss == Loss("sppo", 1e-3) and found[0].rejected is None
    assert [row.target for row in rows(WinRate(keep="all"), judged(LINE))] == pytest.approx([2.1 / 3, 1.6 / 3, 0.8 / 3])
    assert rows(WinRate(), judged(ROCK)) == [], "in a circle all are equal"


def test_a_task_with_a_pair_that_was_not_judged_is_left_out() -> None:
    assert rows(WinRate(), judged([[0.5, -1, 0.9], [-1, 0.5, 0.8], [0.1, 0.2, 0.5]])) == []
    assert rows(WinRate(), group(*valued(0.9, 0.1))) == [], "nobody compared"


def test_values_are_compared_by_bradley_terry() -> None:
    found = rows(WinRate(opponents="values"), group(*valued(2.0, 0.0)))
    assert [row.target for row in found] == pytest.approx([(0.5 + 1 / (1 + 2.718281828**-2)) / 2, (0.5 + 1 / (1 + 2.718281828**2)) / 2])
    assert len(rows(WinRate(opponents="values"), group(*valued(1000.0, -1000.0)))) == 2


@given(st.integers(2, 6).flatmap(lambda k: st.lists(st.floats(0, 1), min_size=k * k, max_size=k * k)))
def test_the_win_rates_of_a_task_average_to_one_half(numbers: list[float]) -> None:
    size = int(len(numbers) ** 0.5)
    found = win_rates(lambda i, k: numbers[i * size + k] if i < k else 1 - numbers[k * size + i], size)
    assert sum(found) / size == pytest.approx(0.5, abs=1e-9) and all(0 <= rate <= 1 for rate in found)


# ── single rows ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_verdicts_and_values_become_targets() -> None:
    one = group(*valued(0.9, 0.1), *BROKEN)
    assert [(row.target, row.loss.name) for row in rows(Approve(), one)] == [(1.0, "kto"), (0.0, "kto")]
    assert [(row.target, row.loss.name) for row in rows(Score(), one)] == [(0.9, "value"), (0.1, "value")]


# ── rewards ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def weights(objective: Reinforce, *groups: Group) -> list[Any]:
    return [row.weight for row in rows(objective, *groups)]


def test_an_advantage_is_a_value_above_what_its_peers_are_worth() -> None:
    one = group(*valued(1.0, 0.0, 0.5), *BROKEN)
    assert weights(Reinforce(), one) == pytest.approx([0.75, -0.75]), "the middle one has none and is left out"
    assert weights(Reinforce(baseline="mean"), one) == pytest.approx([0.5, -0.5])
    assert weights(Reinforce(baseline="none"), one) == [1.0, 0.5], "a value of 0 has no gradient"
    assert weights(Reinforce(), group(*valued(1.0)), group(*valued(0.3, 0.3, 0.3))) == [], "nobody to compare with, or nothing to choose"


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_leaving_one_out_is_the_groups_mean_scaled(values: list[float]) -> None:
    """(r − mean of the others) = n/(n − 1) (r − mean of all), so that advantages add up to 0."""
    one = group(*valued(*values))
    left, mean = ({row.origin.parents: row.weight for row in rows(Reinforce(baseline=name), one)} for name in ("leave_one_out", "mean"))  # type: ignore[arg-type]
    n = len(values)
    for parents, weight in mean.items():
        assert left.get(parents, 0.0) == pytest.approx(weight * n / (n - 1), abs=1e-9)  # type: ignore[operator]
    assert sum(left.values()) == pytest.approx(0, abs=1e-9)  # type: ignore[arg-type]


def test_peers_may_be_the_seat_the_kind_of_task_or_the_whole_round() -> None:
    origin = sample("x").origin
    white = Sample("w", (Turn("p", Completion("a")),), origin, "white", (score("pass", 1.0),))
    black = Sample("b", (Turn("p", Completion("c")),), origin, "black", (score("fail", 0.0),))
    again = Sample("v", (Turn("p", Completion("d")),), origin, "white", (score("fail", 0.4),))
    first, second = group(white, black, subgroup="easy"), group(again, subgroup="hard")
    assert weights(Reinforce(peers="seat"), first, second) == pytest.approx([0.6, -0.6])
    assert weights(Reinforce(peers="subgroup"), first, second) == pytest.approx([1.0, -1.0])
    assert weights(Reinforce(peers="round"), first, second) == pytest.approx([0.8, -0.7, -0.1])


def test_a_critic_gives_a_baseline_for_each_token() -> None:
    class Critic(Stage):
        id, depth = "critic", 0

        def values(self, turns: Any) -> Any:
            return ([0.25, 0.5] for _ in turns)

        def close(self) -> None:
            """Nothing."""

    found = rows(Reinforce(baseline="critic"), group(*valued(1.0, 0.0)), critic=Critic())
    assert [row.weight for row in found] == [(0.75, 0.5), (-0.25, -0.5)]
    assert Reinforce(baseline="critic").roles == ("critic",) and not Reinforce(baseline="critic").uses_peers


def test_a_critic_that_knows_the_answer_is_no_baseline_and_is_asked_about_the_prompt_instead() -> None:
    asked: list[Any] = []

    class Critic(Stage):
        id, depth = "critic", 0

        def values(self, turns: Any) -> Any:
            asked.extend(turn.completion.content for turn in turns)
            return ([0.25] for _ in turns)

        def close(self) -> None:
            """Nothing."""

    long = sample("two tokens", 3, scores=(score("pass", 1.0),))
    long = replace(long, turns=(replace(long.turns[-1], completion=Completion("two tokens", tokens=(1, 2))),))
    with pytest.raises(ConfigError, match="one number for an answer of 2 tokens, which knows the answer"):
        rows(Reinforce(baseline="critic"), group(long), critic=Critic())
    del asked[:]
    objective = Reinforce(baseline="prompt_critic")
    assert [row.weight for row in rows(objective, group(*valued(1.0, 0.0), long), critic=Critic())] == [0.75, -0.25, 0.75]
    assert asked == ["", "", ""] and objective.roles == ("critic",) and not objective.uses_peers


def test_a_critic_of_prompts_learns_what_their_answers_were_worth() -> None:
    found = rows(Score(at="prompt"), group(*valued(1.0, 0.0)))
    assert [(row.completion, row.target, row.loss.name) for row in found] == [("", 1.0, "value"), ("", 0.0, "value")]
    assert len({row.id for row in found}) == 2


def test_answers_that_were_cut_off_are_compared_with_and_not_learnt() -> None:
    cut = sample("runs on", 7, scores=(score("fail", 0.0),), finished=False)
    assert weights(Reinforce(), group(*valued(1.0, 0.5), cut)) == [0.75], (
        "0.5 is what its peers are worth on average, the cut one among them"
    )
    for objective in (Prefer(), WinRate(opponents="values"), Approve(), Score()):
        assert all(cut.id not in row.origin.parents for row in rows(objective, group(*valued(1.0, 0.5), cut)))


def test_the_log_probs_of_the_draw_come_along_for_clipping() -> None:
    made = [
        Sample(str(i), (Turn("2+2=", Completion(str(i), (1, 2), (-0.5, -0.25))),), sample("x").origin, scores=(score("pass", value),))
        for i, value in enumerate((1.0, 0.0))
    ]
    assert [row.old_log_probs for row in rows(Reinforce(), group(*made))] == [(-0.5, -0.25)] * 2
    clipped = rows(Reinforce(Loss("pg", 0.1, 0.2)), group(*made))
    assert [row.tokens for row in clipped] == [(1, 2)] * 2 and not rows(Reinforce(), group(*made))[0].tokens
