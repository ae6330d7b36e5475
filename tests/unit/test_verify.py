"""Verifiers: what passes, what fails, and what is neither."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers import context, failed, group, sample, verdicts
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.errors import ConfigError
from outcross.recipe import fingerprint
from outcross.types import Array, Completion, Group, Message, Score, Task
from outcross.verify.arithmetic import Number, last_number
from outcross.verify.exact import Exact
from outcross.verify.function import Function


def judge(verifier: Any, *texts: str, answer: str | None = "4") -> list[str | None]:
    return verdicts(verifier(context(Path()), [group(*texts, answer=answer)]))[0]


# ── exact ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_exact_compares_with_the_reference_up_to_outer_space() -> None:
    assert judge(Exact(), "4", " 4\n", "5", "44", "") == ["pass", "pass", "fail", "fail", "fail"]
    assert judge(Exact(), "YES", answer="yes") == ["fail"] != judge(Exact(casefold=True), "YES", answer="yes")


def test_exact_finds_the_last_match_of_a_pattern_and_its_first_group() -> None:
    assert judge(Exact(r"\d+"), "3 and then 4.", "4 and then 3", "none") == ["pass", "fail", "fail"]
    assert judge(Exact(r"<a>(.*?)</a>"), "<a>1</a> no, <a>4</a>", "4") == ["pass", "fail"]
    with pytest.raises(ConfigError, match="not a regular expression"):
        Exact("(")


@pytest.mark.parametrize("verifier", [Exact(), Number()])
def test_cut_off_answers_fail_failed_requests_stay_unscored_and_no_reference_abstains(verifier: Any) -> None:
    cut = sample("4", finished=False)
    picture = sample("", 2)
    picture = type(picture)(picture.id, (type(picture.turns[0])("2+2=", Completion(Array("uint8", (1,), b"4"))),), picture.origin)
    (found,) = verifier(context(Path()), [group(cut, failed(1), picture)])
    assert [item.verdict for item in found.samples] == ["fail", None, "error"]
    assert found.samples[0].scores[0].reason.startswith("unfinished")
    assert found.samples[1] == failed(1)
    assert judge(verifier, "4", answer=None) == ["abstain"]


def test_a_score_names_its_verifier_and_version_and_keeps_earlier_scores() -> None:
    (once,) = Exact()(context(Path()), [group("4")])
    (twice,) = Number()(context(Path()), [once])
    assert [(score.verifier, score.version, score.value) for score in twice.samples[0].scores] == [
        ("exact", "1", 1.0),
        ("number", "1", 1.0),
    ]


# ── numbers ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("the answer is 18.", 18),
        ("-7", -7),
        ("5-3", 3),
        ("x = −2.50", Fraction(-5, 2)),
        ("$1,234,567.5", Fraction(2469135, 2)),
        ("-$5", -5),
        ("1,2,3", 3),
        ("12,34", 34),
        ("3/4", Fraction(3, 4)),
        ("3 / 4", Fraction(3, 4)),
        ("1.5e3", 1500),
        ("2E-2", Fraction(1, 50)),
        (".5", Fraction(1, 2)),
        ("50%", 50),
        ("1/0", None),
        ("no number", None),
        ("9" * 500, None),
        ("", None),
    ],
)
def test_last_number_reads_numbers_as_they_are_written(text: str, value: Fraction | int | None) -> None:
    assert last_number(text) == value


@given(st.integers(-(10**20), 10**20), st.integers(0, 6))
@settings(max_examples=200)
def test_any_decimal_is_read_exactly_with_or_without_commas(number: int, places: int) -> None:
    expected = Fraction(number, 10**places)
    whole, rest = divmod(abs(number), 10**places)
    sign, tail = "-" if number < 0 else "", f".{rest:0{places}d}" if places else ""
    for text in (f"{sign}{whole}{tail}", f"{sign}{whole:,}{tail}", f"So 3 of them make {sign}{whole:,}{tail} in all."):
        assert last_number(text) == expected


@given(st.integers(-999, 999), st.integers(1, 999))
def test_any_fraction_is_read_exactly(top: int, bottom: int) -> None:
    assert last_number(f"about {top}/{bottom}") == Fraction(top, bottom)


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_no_text_breaks_the_reader(text: str) -> None:
    last_number(text)


def test_number_compares_values_within_the_tolerance() -> None:
    assert judge(Number(), "It is 0.75", "6/8", "75e-2", "0.7500001", answer="3/4") == ["pass", "pass", "pass", "fail"]
    assert judge(Number(0.01), "0.74", "0.73", answer="0.75") == ["pass", "fail"]
    assert judge(Number(), "4", answer="four") == ["error"]
    with pytest.raises(ConfigError, match="0 or more"):
        Number(-1.0)


# ── functions ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def length(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float(len(text)) for text in completions]


def by_answer(prompts: list[str], completions: list[str], answer: list[str]) -> list[float | None]:
    return [None if text == "?" else float(text == right) for text, right in zip(completions, answer, strict=True)]


def raises(prompts: list[str], completions: list[str]) -> list[float | None]:
    raise RuntimeError("no network")


def wrong_length(prompts: list[str], completions: list[str]) -> list[float | None]:
    return [1.0]


def not_a_list(prompts: list[str], completions: list[str]) -> Any:
    return 1.0


def odd_values(prompts: list[str], completions: list[str]) -> Any:
    return [float("nan"), "high", True, float("inf")]


def test_a_function_with_the_signature_of_trl_is_a_verifier() -> None:
    (found,) = Function(length, passes_at=3)(context(Path()), [group("four", failed(1), "by")])
    assert [(item.verdict, item.value) for item in found.samples] == [("pass", 4.0), (None, None), ("fail", 2.0)]
    assert judge(Function(by_answer), "4", "5", "?") == ["pass", "fail", "abstain"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [(raises, "RuntimeError: no network"), (wrong_length, "1 values for 2 completions"), (not_a_list, "returned a float")],
)
def test_a_function_that_misbehaves_gives_errors_with_the_reason(function: Callable[..., Any], reason: str) -> None:
    (found,) = Function(function)(context(Path()), [group("a", "b")])
    assert [item.verdict for item in found.samples] == ["error", "error"]
    assert all(reason in item.scores[0].reason and item.value is None for item in found.samples)


def test_values_that_are_no_finite_numbers_are_errors_one_by_one() -> None:
    assert judge(Function(odd_values), "a", "b", "c", "d") == ["error", "error", "pass", "error"]


SEEN: list[dict[str, Any]] = []


def noting(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
    SEEN.append({"prompts": prompts, "completions": completions, **columns})
    return [1.0] * len(completions)


def test_a_function_sees_finished_answers_with_all_columns_of_the_task() -> None:
    SEEN.clear()
    talk = Task("t", (Message("user", "hi"),), "4", "easy", columns=(("unit", "m"),))
    plain = Task("u", "hi", "5")
    cut = sample("lo", 1, finished=False)
    groups = [Group(talk, (sample("a"), cut, sample("b", 2))), Group(plain, (sample("c"),)), Group(plain, (cut,))]
    assert verdicts(Function(noting)(context(Path()), groups)) == [["pass", "fail", "pass"], ["pass"], ["fail"]]
    first, second = SEEN
    assert first["prompts"] == [[{"role": "user", "content": "hi"}]] * 2
    assert first["completions"] == [[{"role": "assistant", "content": text}] for text in "ab"]
    assert (first["answer"], first["subgroup"], first["unit"]) == (["4", "4"], ["easy", "easy"], ["m", "m"])
    assert (second["prompts"], second["completions"]) == (["hi"], ["c"])


def test_the_version_of_a_function_follows_its_source() -> None:
    assert Function(length).version == Function(length).version != Function(by_answer).version
    assert Function(length).name == "length"
    assert fingerprint(Function(length)) == fingerprint(Function(length)) != fingerprint(Function(length, 2.0))
    (found,) = Function(length)(context(Path()), [group("a")])
    assert found.samples[0].scores == (Score("length", Function(length).version, "pass", 1.0),)
