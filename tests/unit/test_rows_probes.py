"""Probes of rows: the contract of each, values that are known beforehand, and that no value depends on how many rows there are."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import pkgutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import context, failed, sample, score
from hypothesis import given
from hypothesis import strategies as st

import outcross.evaluate.rows
from outcross.errors import StageError
from outcross.evaluate.rows.chosen import chosen
from outcross.evaluate.rows.diversity import RowDiversity
from outcross.evaluate.rows.length import AnswerLength, Finished
from outcross.evaluate.rows.passing import PassShare, Rechecked
from outcross.evaluate.rows.subgroups import Subgroups
from outcross.evaluate.rows.variety import dissimilarity, distinct
from outcross.recipe import fingerprint
from outcross.stages import Stage
from outcross.types import Group, Measurement, Sample, Task
from outcross.verify.exact import Exact

MODULES = [importlib.import_module(f"outcross.evaluate.rows.{item.name}") for item in pkgutil.iter_modules(outcross.evaluate.rows.__path__)]
PROBES = [
    kind
    for module in MODULES
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Stage) and kind.__module__ == module.__name__
]
WORDS = [f"w{i}" for i in range(400)]
ZIPF = 1 / np.arange(1, 401) / sum(1 / np.arange(1, 401))


@dataclass(frozen=True)
class Listed:
    """Rows that are listed, and what was made besides."""

    groups: Sequence[Group]
    aside: Sequence[Group] = ()

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def made(self) -> Iterator[Group]:
        return itertools.chain(self.groups, self.aside)


def group(name: str, *samples: Sample | str, subgroup: str | None = None, answer: str | None = None) -> Group:
    made = [sample(item, i, name) if isinstance(item, str) else item for i, item in enumerate(samples)]
    return Group(Task(name, name, answer, subgroup), tuple(made))


def texts(n: int, seed: int = 0, length: int = 20) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length, p=ZIPF)) for _ in range(n)]


def rows(answers: Sequence[str]) -> Listed:
    return Listed([group(f"t{i}", answer) for i, answer in enumerate(answers)])


def measure(probe: Any, given: Listed, folder: Path = Path()) -> Measurement:
    found: Measurement = probe(context(folder), given)
    return found


# ── the contract ───────────────────────────────────────────────────────────────────────────────────────────────────────
def built(kind: type[Stage]) -> Any:
    return kind(**{item.name: Exact() for item in dataclasses.fields(kind) if item.name == "verifier"})


@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_of_rows_keeps_the_contract(kind: type[Stage], tmp_path: Path) -> None:
    probe = built(kind)
    assert kind.__dataclass_params__.frozen and probe == built(kind)  # type: ignore[attr-defined]
    assert fingerprint(probe) == fingerprint(built(kind)) and kind.__doc__
    assert probe.kind in ("quality", "diversity", "fit") and probe.ground and set(probe.calls(10)) <= set(probe.roles)
    bounds = probe.bounds
    assert bounds.margin is not None or bounds.limit is not None, "a probe that asks nothing guards nothing"
    assert bounds.margin is None or bounds.margin > 0
    scored = [
        group(f"t{i}", sample(str(i % 7), i, f"t{i}", scores=(score("pass", 1.0),)), subgroup="ab"[i % 2], answer=str(i % 7))
        for i in range(12)
    ]
    found = measure(probe, Listed(scored), tmp_path)
    assert found.probe == probe.name and len(found.items) > 0
    assert len(found.values) == len(found.items) or (len(found.values) == 1 and found.replicates)
    assert set(found.items) == set(measure(probe, Listed(scored[::-1]), tmp_path).items)
    assert probe(context(tmp_path), Listed([])) is None, "of no rows there is nothing to say"


# ── diversity ──────────────────────────────────────────────────────────────────────────────────────────────────────────
TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=4), min_size=3, max_size=6)


def grams(text: Sequence[str], n: int) -> list[tuple[str | None, ...]]:
    padded = [*(text or [""]), *[None] * (n - 1)]
    return [tuple(padded[i : i + n]) for i in range(len(padded) - n + 1)]


@given(TEXTS)
def test_rarefaction_is_the_mean_over_all_draws(given: list[list[str]]) -> None:
    """Against every draw of two texts, counted one by one; and without each text in turn."""

    def counted(texts: list[list[str]]) -> float:
        draws = list(itertools.combinations(texts, 2))
        different = np.mean([len({gram for text in draw for gram in grams(text, n)}) for n in (1, 2, 3) for draw in draws])
        return float(different / (2 * np.mean([max(1, len(text)) for text in texts])))

    size, whole = len(given), counted(given)
    expected = [size * whole - (size - 1) * counted(given[:i] + given[i + 1 :]) for i in range(size)]
    assert distinct(given, drawn=2) == pytest.approx(expected)


@given(TEXTS)
def test_dissimilarity_is_the_mean_over_all_pairs(given: list[list[str]]) -> None:
    def cosine(one: Sequence[Any], other: Sequence[Any]) -> float:
        a, b = Counter(one), Counter(other)
        return float(sum(a[key] * b[key] for key in a) / (sum(n * n for n in a.values()) * sum(n * n for n in b.values())) ** 0.5)

    pairs = list(itertools.combinations(given, 2))
    expected = 1 - np.mean([cosine(grams(a, n), grams(b, n)) for n in (1, 2, 3) for a, b in pairs])
    assert dissimilarity(given).mean() == pytest.approx(expected)


@pytest.mark.parametrize("statistic", ["distinct", "dissimilarity"])
def test_diversity_does_not_depend_on_the_number_of_rows(statistic: Any) -> None:
    probe = RowDiversity(statistic)
    small = [measure(probe, rows(texts(100, seed))).mean for seed in range(30)]
    large = measure(probe, rows(texts(1500, 99))).mean
    assert abs(np.mean(small) - large) < 3 * np.std(small) / 30**0.5 + 1e-3


@pytest.mark.parametrize("statistic", ["distinct", "dissimilarity"])
def test_the_spread_of_the_values_is_the_spread_between_sets(statistic: Any) -> None:
    probe = RowDiversity(statistic)
    told = np.std(measure(probe, rows(texts(120, 7))).values) / 120**0.5
    between = np.std([measure(probe, rows(texts(120, seed))).mean for seed in range(100)])
    assert told == pytest.approx(between, rel=0.35)


def test_twenty_texts_again_and_again_are_seen_at_once() -> None:
    varied, few = texts(600), texts(20) * 30
    drop = measure(RowDiversity(), rows(varied)).mean - measure(RowDiversity(), rows(few)).mean
    assert drop > 5 * RowDiversity().margin
    alike = [f"{text} as an assistant I am glad to help you with all of your questions today and tomorrow" for text in texts(200, length=5)]
    probe = RowDiversity("dissimilarity")
    assert measure(probe, rows(varied)).mean - measure(probe, rows(alike)).mean > 5 * probe.margin


def test_several_answers_to_one_question_are_not_called_monotonous() -> None:
    answers = texts(150)
    once = measure(RowDiversity(), rows(answers))
    thrice = Listed([group(f"t{i}", *[f"{text}"] * 3) for i, text in enumerate(answers)])
    assert measure(RowDiversity(), thrice).values == once.values


def test_prompts_can_be_measured_too_and_have_a_name_of_their_own() -> None:
    same = Listed([group("the same question", sample(text, i, "the same question")) for i, text in enumerate(texts(1))])
    assert measure(RowDiversity(of="prompt"), same).probe == "prompt_distinct"


def test_the_rows_that_are_looked_at_do_not_depend_on_their_order() -> None:
    given = rows(texts(50)).groups
    names = [item.task_id for item in chosen(Listed(given), 10)]
    assert names == [item.task_id for item in chosen(Listed(given[::-1]), 10)] and len(names) == 10
    assert names == [item.task_id for item in chosen(Listed(given), 50)][:10]


# ── lengths, subgroups, verdicts ───────────────────────────────────────────────────────────────────────────────────────
def test_twice_as_long_is_one_doubling() -> None:
    short, long = (measure(AnswerLength(), rows(["x" * (n - 1)] * 5)) for n in (32, 64))
    assert short.values == (5.0,) * 5 and long.values == (6.0,) * 5
    assert AnswerLength().bounds.either_way


def test_answers_that_were_cut_off_are_counted() -> None:
    cut = group("cut", sample("and then", 0, "cut", finished=False), "whole")
    assert measure(Finished(), Listed([group("t", "whole"), cut])).values == (1.0, 0.5)


def test_the_subgroup_that_fared_worst_is_named() -> None:
    asked = [group(f"{name}{i}", "x", subgroup=name) for name, n in (("a", 8), ("b", 8), ("c", 4)) for i in range(n)]
    kept = [item for item in asked if item.task.subgroup != "c" or item.task.id == "c0"]
    found = measure(Subgroups(), Listed(kept, asked))
    assert found.items == ("c",) and found.values[0] == pytest.approx((1 / 17) / (4 / 20))
    gone = measure(Subgroups(), Listed([item for item in kept if item.task.subgroup != "c"], asked))
    assert (gone.items, gone.values) == (("c",), (0.0,))
    assert Subgroups()(context(Path()), Listed([group("t", "x")])) is None, "tasks without subgroups say nothing"


def test_the_pass_share_counts_what_was_set_aside_and_no_errors() -> None:
    def judged(name: str, *verdicts: Any) -> Group:
        return group(
            name, *(sample(v, i, name, scores=(score(v, 1.0 if v == "pass" else None),)) for i, v in enumerate(verdicts)), failed(9)
        )

    found = measure(
        PassShare(), Listed([judged("a", "pass", "fail")], [judged("b", "fail"), judged("a", "pass", "pass"), judged("c", "error")])
    )
    assert dict(zip(found.items, found.values, strict=True)) == {"a": 0.75, "b": 0.0}


def test_a_recheck_forgets_the_first_verdict_and_leaves_out_what_cannot_be_decided() -> None:
    wrong = sample("5", 0, "2+2", scores=(score("pass", 1.0, "lenient"),))
    right = [group(f"t{i}", "4", answer="4") for i in range(30)]
    found = measure(Rechecked(Exact()), Listed([*right, group("2+2", wrong, answer="4")]))
    assert found.probe == "rechecked_exact" and found.mean == pytest.approx(30 / 31)
    with pytest.raises(StageError, match="could not measure"):
        measure(Rechecked(Exact()), Listed([*right, *(group(f"no answer {i}", "4") for i in range(5))]))
