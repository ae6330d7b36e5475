"""Families of reasoning-gym as tasks, and their own scorers as a verifier that never runs what a model wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import context, failed, sample, verdicts

from outcross.errors import ConfigError, DataError
from outcross.tasks.reasoning_gym import ReasoningGym
from outcross.types import Group, Task
from outcross.verify.reasoning_gym import ReasoningGymScorer, is_plain


def judged(tmp_path: Path, task: Task, *texts: str, pattern: str = "") -> list[tuple[str | None, str]]:
    group = Group(task, tuple(sample(text, index, task.prompt) for index, text in enumerate(texts)))
    (found,) = ReasoningGymScorer(pattern)(context(tmp_path), [group])
    return [(item.verdict, item.scores[0].reason) for item in found.samples]


@pytest.mark.parametrize("family", ["chain_sum", "gsm_symbolic", "spell_backward", "countdown", "simple_integration"])
def test_reference_answers_pass_and_others_do_not(family: str, tmp_path: Path) -> None:
    for task in ReasoningGym(family, n=3, split="train"):
        assert task.answer is not None
        found = judged(tmp_path, task, task.answer, "17.5")
        assert [verdict for verdict, _ in found] == ["pass", "fail"]


def test_partial_marks_fail_and_a_pattern_finds_the_answer(tmp_path: Path) -> None:
    (task,) = ReasoningGym("chain_sum", n=1)
    text = f"The answer is {task.answer}"
    assert judged(tmp_path, task, text) == [("fail", "the scorer gave less than the full mark")]
    assert judged(tmp_path, task, text, pattern=r"is (\S+)") == [("pass", "")]


def test_splits_are_disjoint_even_in_a_family_with_few_questions() -> None:
    config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    train, held_out = (
        {task.prompt for task in ReasoningGym("chain_sum", n=20, seed=seed, split=split, config=config)}  # type: ignore[arg-type]
        for seed, split in ((0, "train"), (1, "held_out"))
    )
    assert len(train) == len(held_out) == 20 and not train & held_out
    with pytest.raises(DataError, match="different questions"):
        list(ReasoningGym("chain_sum", n=5000, config=config))


def test_the_same_seed_gives_the_same_questions() -> None:
    first, again, other = (list(ReasoningGym("chain_sum", n=5, seed=seed)) for seed in (0, 0, 1))
    assert first == again and {task.id for task in first}.isdisjoint(task.id for task in other)


def test_unknown_families_and_settings_are_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="did you mean 'chain_sum'"):
        list(ReasoningGym("chain_sums", n=1))
    with pytest.raises(ConfigError, match="refused its settings"):
        list(ReasoningGym("chain_sum", n=1, config={"terms": 3}))


def test_what_a_scorer_would_run_as_a_program_never_reaches_it(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    attack = f"open({str(proof)!r}, 'w')"
    for family in ("spiral_matrix", "binary_matrix", "string_insertion", "n_queens", "countdown", "simple_integration"):
        (task,) = ReasoningGym(family, n=1)
        assert [verdict for verdict, _ in judged(tmp_path, task, attack)] == ["error"]
    assert not proof.exists()


@pytest.mark.parametrize(
    ("family", "text", "plain"),
    [
        ("countdown", "(1 + 2) * 3 / 4", True),
        ("countdown", "9**9", False),
        ("countdown", "abs(3)", False),
        ("simple_integration", "x**2/2 + 3*exp(-x) + C", True),
        ("simple_integration", "x**(1/2)", True),
        ("simple_integration", "((9**99)**99)**99", False),
        ("simple_integration", "9**(9*99)", False),
        ("simple_integration", "x.__class__", False),
        ("simple_integration", "99999999!", False),
        ("polynomial_multiplication", "[i for i in x]", False),
        ("spiral_matrix", "1 2 3", True),
        ("spiral_matrix", "[1, 2, 3]", True),
        ("spiral_matrix", "[0] * 10", False),
        ("chain_sum", "open('x')", True),
    ],
)
def test_plain_data_is_told_from_programs(family: str, text: str, plain: bool) -> None:
    assert is_plain(family, text) is plain


def test_a_scorer_that_raises_is_an_error_and_foreign_tasks_are_abstained_on(tmp_path: Path) -> None:
    (task,) = ReasoningGym("prime_factorization", n=1)
    ((verdict, reason),) = judged(tmp_path, task, "two times three")
    assert verdict == "error" and "ValueError" in reason
    other = Group(Task("t", "2+2=", "4"), (sample("4"), failed(1)))
    assert verdicts(ReasoningGymScorer()(context(tmp_path), [other])) == [["abstain", None]]


def test_an_item_that_this_version_makes_differently_is_an_error(tmp_path: Path) -> None:
    (task,) = ReasoningGym("chain_sum", n=1)
    changed = Task(task.id, "another question", task.answer, columns=task.columns)
    ((verdict, reason),) = judged(tmp_path, changed, str(task.answer))
    assert verdict == "error" and "version" in reason
