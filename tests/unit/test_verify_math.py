"""Mathematical equality: the same verdicts as math-verify, time-outs and dead workers told apart, streaming."""

from __future__ import annotations

import json
import logging
import os
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from helpers import context, sample

from outcross.errors import ConfigError, MissingExtra
from outcross.types import Group, Score, Task
from outcross.verify.math import Math, at_once, plain_number
from outcross.verify.math_worker import TwoStages
from outcross.verify.workers import Job, Worker, Workers

pytest.importorskip("math_verify", reason="needs math-verify: pip install 'outcross[math]'")
from math_verify import parse, verify

MATH = Job("math_worker", 2**30, 60.0)
THEIRS = Path(__file__).with_name("math_verify_cases.json")
GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "test.jsonl"


@lru_cache
def read(text: str) -> Any:
    return parse(text, parsing_timeout=None)


def reference(gold: str, answer: str) -> str:
    """math-verify's own verdict, in this process."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    expected = read(gold) or read(f"${gold}$")
    return "pass" if read(answer) and verify(expected, read(answer), timeout_seconds=None) else "fail"


def scores(pairs: list[tuple[str, str]], verifier: Math = Math()) -> list[Score]:
    groups = [Group(Task(str(index), "", gold), (sample(answer),)) for index, (gold, answer) in enumerate(pairs)]
    return [group.samples[0].scores[0] for group in verifier(context(Path()), groups)]


# ── agreement ──────────────────────────────────────────────────────────────────────────────────────────────────────────
CASES = [
    ("$\\frac{1}{2}$", "$0.5$"), ("$x+1$", "$1+x$"), ("$x^2-1$", "$(x-1)(x+1)$"), ("$\\sqrt{8}$", "$2\\sqrt{2}$"), ("$\\pi$", "$3.14$"),
    ("$2\\pi r$", "\\boxed{2r\\pi}"), ("$\\{1,2,3\\}$", "$\\{3,2,1\\}$"), ("$\\{1,2\\}$", "$\\{1,3\\}$"), ("$(1,2)$", "$(1,2)$"),
    ("$(1,2)$", "$(2,1)$"), ("$[0,1]$", "$[0,1)$"), ("$(-\\infty,3)$", "$x<3$"), ("$x<3$", "$3>x$"), ("$x=5$", "$5$"), ("$5$", "$x=5$"),
    ("$y=2x+1$", "$2x+1$"), ("$\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}$", "$\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}$"),
    ("$\\begin{pmatrix}1\\\\2\\end{pmatrix}$", "$\\begin{pmatrix}2\\\\1\\end{pmatrix}$"), ("$50\\%$", "$0.5$"), ("50", "50%"), ("0.5", "50%"),
    ("1/3", "0.333333"), ("1/3", "0.3333"), ("$\\frac{\\sqrt{3}}{3}$", "$\\frac{1}{\\sqrt{3}}$"), ("$e^{i\\pi}$", "$-1$"), ("$10!$", "3628800"),
    ("$\\sin(\\pi/6)$", "$\\frac12$"), ("$\\log_2 8$", "3"), ("$3+4i$", "$4i+3$"), ("$|{-3}|$", "3"), ("$90^\\circ$", "90"), ("$\\$18$", "18"),
    ("18", "The answer is 18."), ("18", "First 18, then 19."), ("18", "so \\boxed{18} and not 19"), ("18", "\\boxed{19} not 18"), ("18", "no idea"),
    ("18", ""), ("1,234", "1234"), ("1234", "1,234.00"), ("-5", "-5"), ("5", "- 5"), ("7", "+7"), ("100000", "1e5"), ("$1.5 \\times 10^3$", "1500"),
    ("$\\frac{1}{2}, \\frac{1}{3}$", "$\\frac{1}{3}, \\frac{1}{2}$"), ("$x \\in [1,2]$", "$1 \\le x \\le 2$"), ("$2^{10}$", "1024"), ("$a=1, b=2$", "$b=2, a=1$"),
    ("$\\text{even}$", "even"), ("$3\\frac{1}{2}$", "3.5"), ("$\\binom{5}{2}$", "10"), ("$[1,2]$", "$\\{1,2\\}$"), ("x^2+2x+1", "$(x+1)^2$"),
]  # fmt: skip


def test_verdicts_are_those_of_math_verify_on_its_own_kind_of_cases_both_ways_round() -> None:
    pairs = [pair for gold, answer in CASES if answer for pair in ((gold, answer), (answer, gold)) if read(pair[0]) or read(f"${pair[0]}$")]
    pairs += [(gold, answer) for gold, answer in CASES if not answer]
    found = [score.verdict for score in scores(pairs, Math(seconds=60))]
    assert len(pairs) > 90 and found == [reference(*pair) for pair in pairs]
    assert {"pass", "fail"} == set(found)


def test_verdicts_are_those_of_math_verify_on_the_cases_of_its_own_tests_and_some_of_them_the_other_way_round() -> None:
    own = [(gold, answer) for gold, answer in json.loads(THEIRS.read_text(encoding="utf-8"))["pairs"]]
    every = own + [(answer, gold) for gold, answer in own[::4]]
    pairs = [pair for pair in every if read(pair[0]) or read(f"${pair[0]}$")]
    found = [score.verdict for score in scores(pairs, Math(seconds=60))]
    assert len(pairs) > 300 and found == [reference(*pair) for pair in pairs]
    assert found.count("pass") > 200 and found.count("fail") > 40


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("$(1,2)$", "$\\{1,2\\}$", "pass"),  # an interval equals a set
        ("$5$", "$x=5$", "pass"), ("$x=5$", "$5$", "pass"),
        ("$1<x<2$", "$(1,2)$", "pass"), ("$(1,2)$", "$1<x<2$", "fail"),  # the order matters
        ("50", "50%", "pass"), ("0.5", "50%", "pass"),
        ("5", "- 5", "pass"), ("100000", "1e5", "fail"), ("1", "1e5", "pass"),
    ],
)  # fmt: skip
def test_what_math_verify_lets_through_is_let_through_on_purpose(gold: str, answer: str, verdict: str) -> None:
    assert [score.verdict for score in scores([(gold, answer)])] == [verdict] == [reference(gold, answer)]


def test_the_faster_prediction_gives_the_same_trees() -> None:
    """Full prediction in this process against two stages: the text of every tree, for what LaTeX the cases hold."""
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

    def tree(parser: Any) -> str:
        try:
            return str(parser.math().toStringTree(recog=plain_parser(" ")))
        except Exception:
            return "does not parse"

    def plain_parser(text: str) -> Any:
        return _Latex2Sympy.create_parser(_Latex2Sympy(), text)

    texts = {
        part
        for pair in json.loads(THEIRS.read_text(encoding="utf-8"))["pairs"]
        for text in pair
        for part in re.findall(r"\$([^$]{1,200})\$", text)
    }
    differ = [text for text in texts if tree(TwoStages(plain_parser, text)) != tree(plain_parser(text))]
    assert len(texts) > 150 and not differ


@pytest.mark.skipif(not GSM8K.exists(), reason="needs GSM8K at ../shared/data/gsm8k")
def test_verdicts_are_those_of_math_verify_on_answers_to_gsm8k() -> None:
    rng, pairs = random.Random(0), []
    for row in map(json.loads, GSM8K.read_text().splitlines()[:250]):
        solution, _, gold = row["answer"].partition("\n#### ")
        wrong = str(int(gold.replace(",", "")) + rng.choice([1, -1, 10, 100]))
        written = rng.choice(
            ["The answer is {}.", "\\boxed{{{}}}", "${}$", "**{}**", "#### {}", "= {} dollars", "${}.00", "{}%", "x = {}", "{}"]
        )
        pairs += [(gold, f"{solution}\n{written.format(said)}") for said in (gold, wrong)] + [
            (gold, written.format(gold)),
            (gold, solution),
        ]
    found = [score.verdict for score in scores(pairs, Math(seconds=60))]
    assert found == [reference(*pair) for pair in pairs]
    assert 300 < found.count("pass") < 900


def plain(rng: random.Random) -> str:
    number = rng.choice([0, 1, 2, 7, 10, 100, 1234, 1234567, 999999999])
    top, below = number % 100, rng.choice([1, 2, 3, 4])
    grouped = f"{number:,}" if number < 10**9 else str(number)
    text = rng.choice(["", "-"]) + rng.choice(
        [str(number), grouped, f"{number}.{rng.choice(['0', '5', '25', '00001'])}", f"\\frac{{{top}}}{{{below}}}"]
    )
    return rng.choice(["{}", "{}", "${}$", "\\boxed{{{}}}", "$\\boxed{{{}}}$", " {}\n"]).format(text)


def test_the_fast_path_decides_most_plain_numbers_and_never_otherwise_than_math_verify() -> None:
    rng, decided = random.Random(0), 0
    for _ in range(1500):
        gold, answer = plain(rng), plain(rng)
        if (finding := at_once(gold, answer)) is not None:
            decided += 1
            assert finding[0] == reference(gold, answer), (gold, answer)
    assert decided > 1200


@pytest.mark.parametrize(
    "text", ["", "x", "+5", "- 5", "1e5", "1.5.2", "5%", "1,23", "12,345.", "٣", "½", "007", "\\dfrac{1}{2}", "1 2", "9" * 10, "$$", "1/0"]
)
def test_what_is_not_plainly_a_number_is_left_to_math_verify(text: str) -> None:
    assert plain_number(text) is None and at_once(text, "5") is None


# ── what is neither right nor wrong ────────────────────────────────────────────────────────────────────────────────────
def test_a_task_without_a_readable_reference_is_no_failure() -> None:
    task = Task("t", "", None)
    (found,) = Math()(context(Path()), [Group(task, (sample("5"),))])
    assert found.samples[0].verdict == "abstain"
    (score,) = scores([("", "it is $x$")])
    assert (score.verdict, score.reason) == ("error", "the reference answer cannot be read")


def test_a_time_out_is_an_error_of_its_own_and_the_rest_of_the_batch_is_judged() -> None:
    found = scores([("$x+1$", "$1+x$"), ("41", "10**10**10"), ("$x+2$", "$2+x$"), ("$x+2$", "$3+x$")], Math(seconds=1))
    assert [score.verdict for score in found] == ["pass", "error", "pass", "fail"]
    assert (found[1].reason, found[1].value, found[1].evidence) == ("timeout", None, "no verdict within 1 s")


def test_a_worker_that_hangs_dies_or_fills_its_memory_is_closed_and_says_which() -> None:
    worker = Worker(MATH)
    assert [verdict for verdict, _, _ in worker.judge([("$x$", "$x$"), ("$x$", "$y$")])] == ["pass", "fail"]
    assert not worker.closed
    worker.close()
    worker = Worker(replace(MATH, seconds=1e-9))
    found = worker.judge([("$x$", "$x^2$"), ("$x$", "$x$")])
    assert found == [("error", "timeout", "no verdict within 1e-09 s")] and worker.closed
    worker = Worker(MATH)
    worker.kill()
    assert worker.judge([("$x$", "$x$")])[0][:2] == ("error", "the worker died") and worker.closed


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    workers = Workers(MATH)
    assert workers.submit("$x$", "$x$").result()[:2] == ("error", "no worker could be used")
    workers.close()


# ── the stage ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_groups_leave_in_order_and_workers_start_when_needed_and_end_with_the_stream() -> None:
    read_so_far: list[int] = []

    def endless(text: str) -> Iterator[Group]:
        for index in count():
            read_so_far.append(index)
            yield Group(Task(str(index), "", f"${index}+x$"), (sample(text.format(index)), sample("5", 1)))

    def children() -> int:
        found = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended since
                found += (process / "stat").read_text().rpartition(") ")[2].split()[1] == str(os.getpid())
        return found

    before = children()
    stream = Math()(context(Path()), endless("$x+{}$"))
    assert children() == before
    found = list(islice(stream, 20))
    assert [[item.verdict for item in group.samples] for group in found] == [["pass", "fail"]] * 20
    assert len(read_so_far) <= 20 + 2 * 16 * len(os.sched_getaffinity(0)) + 1 and children() > before
    stream.close()  # type: ignore[attr-defined]
    assert children() == before


def test_an_answer_is_bounded_and_limits_make_sense() -> None:
    assert scores([("5", "5" * 50_001)])[0].reason == "the answer is too long"
    with pytest.raises(ConfigError, match="more than 0"):
        Math(seconds=0)
    with pytest.raises(ConfigError, match="itself needs 512"):
        Math(memory_mb=100)


def test_without_the_package_the_extra_is_named_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcross.verify.math.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"outcross\[math\]"):
        Math()(context(Path()), ())
