"""Structure: JSON schemas and regular expressions, against their libraries, with deadlines that hold."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from helpers import context, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from outcross.errors import ConfigError, MissingExtra
from outcross.recipe import fingerprint
from outcross.schema import Schema
from outcross.types import Group, Score, Task
from outcross.verify.pattern import Matches
from outcross.verify.schema import JsonSchema

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: pip install 'outcross[structured]'")
PERSON = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}


class Even(BaseModel):
    """A model whose validator says more than its schema."""

    number: int

    @field_validator("number")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value


def scores(verifier: Any, *answers: str, **columns: str) -> list[Score]:
    task = Task("t", "", columns=tuple(columns.items()))
    (found,) = verifier(context(Path()), [Group(task, tuple(map(sample, answers, range(len(answers)))))])
    return [item.scores[0] for item in found.samples]


def said(verifier: Any, *answers: str, **columns: str) -> list[tuple[str, str]]:
    return [(score.verdict, score.reason) for score in scores(verifier, *answers, **columns)]


# ── JSON schemas ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_answer_is_json_of_the_schema_wherever_it_stands() -> None:
    answers = (
        '{"age": 3}',
        ' {"age": 3}\n',
        'Here:\n```json\n{"age": 3}\n```',
        'I say {"age": 3}.',
        '{"age": -3}',
        "{}",
        "three",
        '{"age": 3',
        "[3]",
    )
    found = scores(JsonSchema(Schema.of(PERSON)), *answers)
    assert [item.verdict for item in found] == ["pass"] * 4 + ["fail"] * 5
    assert [item.evidence for item in found[:4]] == ["", "", "taken out of a code fence", "taken out of other text"]
    assert found[4].reason == "not what the schema says" and "minimum" in found[4].evidence and found[6].reason == "no JSON"
    alone = said(JsonSchema(Schema.of(PERSON), alone=True), *answers[:4])
    assert alone == [("pass", "")] * 2 + [("fail", "more than the JSON")] * 2


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
            lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["age", "x"]), x),
        ),
        min_size=5,
        max_size=20,
    )
)
def test_verdicts_are_those_of_jsonschema(values: list[Any]) -> None:
    own = jsonschema.Draft202012Validator(PERSON)
    found = scores(JsonSchema(Schema.of(PERSON), seconds=60, alone=True), *map(json.dumps, values))
    assert [item.verdict == "pass" for item in found] == [own.is_valid(value) for value in values]


def test_the_validators_of_a_model_count() -> None:
    assert said(JsonSchema(Schema.of(Even)), '{"number": 2}', '{"number": 3}', '{"number": "2"}') == [
        ("pass", ""), ("fail", "not what the schema says"), ("fail", "not what the schema says"),
    ]  # fmt: skip


def test_every_task_may_have_a_schema_of_its_own() -> None:
    verifier = JsonSchema(column="wanted")
    assert said(verifier, "3", '"x"', wanted='{"type": "integer"}') == [("pass", ""), ("fail", "not what the schema says")]
    assert said(verifier, "3")[0] == ("abstain", "the task has no schema")
    for broken in ("{", '{"type": "no such type"}', '{"$ref": "https://example.com/schema.json"}', "[]"):
        assert said(verifier, "3", wanted=broken)[0] == ("error", "the task's schema is no JSON schema")


@pytest.mark.parametrize(
    "answer",
    ["[" * 100_000, '{"age":' * 20_000, '{"age": 1e999}', '{"age": NaN}', '{"age": 3, "age": -3}', "9" * 900_000, '"\\ud800"', "", "\x00", "{" * 5000 + "}" * 5000, "[1," * 3000],
)  # fmt: skip
def test_hostile_json_fails(answer: str) -> None:
    assert [item.verdict for item in scores(JsonSchema(Schema.of(PERSON), seconds=60), answer, '{"age": 3}')] == ["fail", "pass"]


def test_a_schema_that_takes_for_ever_on_an_answer_is_a_time_out() -> None:
    slow = {"type": "string", "pattern": "^(a+)+$"}
    found = said(JsonSchema(Schema.of(slow), seconds=0.5), '"aa"', json.dumps("a" * 60 + "b"), '"b"')
    assert found == [("pass", ""), ("error", "timeout"), ("fail", "not what the schema says")]


def test_schemas_are_part_of_the_identity_and_wrong_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = JsonSchema(Schema.of(PERSON)), JsonSchema(Schema.of({**PERSON, "required": []}))
    assert fingerprint(first) != fingerprint(second) and fingerprint(first) == fingerprint(JsonSchema(Schema.of(dict(PERSON))))
    for wrong in ({}, {"schema": Schema.of(PERSON), "column": "x"}):
        with pytest.raises(ConfigError, match=r"either a `schema`, or the `column`"):
            JsonSchema(**wrong)
    for field, value in (("seconds", 0), ("memory_mb", 1)):
        with pytest.raises(ConfigError, match=f"{field} is"):
            JsonSchema(column="x", **{field: value})
    monkeypatch.setattr("outcross.verify.schema.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"outcross\[structured\]"):
        JsonSchema(column="x")(context(Path()), ())


# ── regular expressions ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_pattern_matches_the_whole_answer_or_some_part_of_it() -> None:
    answers = ("abc", " abc\n", "xabc", "ab\nc", "")
    assert [item.verdict for item in scores(Matches("[a-c]+"), *answers)] == ["pass", "pass", "fail", "fail", "fail"]
    assert [item.verdict for item in scores(Matches("[a-c]+", where="anywhere"), *answers)] == ["pass"] * 4 + ["fail"]
    assert [item.verdict for item in scores(Matches("(?is)A.*C"), *answers)] == ["pass", "pass", "fail", "pass", "fail"]


def test_every_task_may_have_a_pattern_of_its_own() -> None:
    verifier = Matches(column="shape")
    assert said(verifier, "12", "x", shape="[0-9]+") == [("pass", ""), ("fail", "the pattern does not match")]
    assert said(verifier, "x")[0] == ("abstain", "the task has no pattern")
    for broken in ("(", "a{1,99999999999}", "(" * 2000):
        assert said(verifier, "x", shape=broken)[0] == ("error", "the task's pattern is not a regular expression")


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["[0-9]+", "a|b*", "(?i)x.y", "^$|\\w+@\\w+", "(a)(?=b)"]),
    st.lists(st.text("ab@xY1 \n", max_size=6), min_size=1, max_size=20),
)
def test_verdicts_are_those_of_re(pattern: str, answers: list[str]) -> None:
    for where, own in (("whole", re.fullmatch), ("anywhere", re.search)):
        found = scores(Matches(pattern, where=where, seconds=60), *answers)  # type: ignore[arg-type]
        assert [item.verdict == "pass" for item in found] == [bool(own(pattern, text.strip())) for text in answers]


@pytest.mark.parametrize("pattern", ["(a+)+", "(a|aa)+", "(.*a){25}", "(a*)*b", "([a-z]+)*x", "(?:a?){40}a{40}"])
def test_catastrophic_patterns_are_time_outs_and_the_rest_is_judged(pattern: str) -> None:
    found = scores(Matches(pattern, seconds=0.3), "b", "a" * 39 + "!", "c")
    assert found[1].verdict in ("error", "fail") and found[1].value in (None, 0.0)
    assert [found[0].verdict, found[2].verdict] == ["pass" if re.fullmatch(pattern, "b") else "fail", "fail"]
    if found[1].verdict == "error":
        assert found[1].reason == "timeout" and found[1].evidence == "no verdict within 0.3 s"


def test_patterns_and_settings_that_make_no_sense_are_refused() -> None:
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"pattern": "("}, "is not a regular expression"), ({}, "either a `pattern`"), ({"pattern": "a", "column": "b"}, "either a `pattern`"),
        ({"pattern": "a", "where": "start"}, "one of whole, anywhere"), ({"pattern": "a", "seconds": 0}, "more than 0"),
    ]  # fmt: skip
    for wrong, message in wrongs:
        with pytest.raises(ConfigError, match=message):
            Matches(**wrong)
    assert said(Matches("a*"), "a" * 1_000_001) == [("fail", "the answer is too long")]


# ── workers ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_groups_leave_in_order_are_read_ahead_no_further_than_the_window_and_no_worker_is_left() -> None:
    read: list[int] = []

    def endless() -> Iterator[Group]:
        for index in count():
            read.append(index)
            yield Group(Task(str(index), ""), (sample("a" if index % 3 else "b"),))

    stream = Matches("a")(context(Path()), endless())
    found = list(islice(stream, 50))
    assert [group.task.id for group in found] == list(map(str, range(50)))
    assert [group.samples[0].verdict for group in found] == ["pass" if index % 3 else "fail" for index in range(50)]
    assert len(read) <= 50 + 2 * 16 * len(os.sched_getaffinity(0)) + 1
    stream.close()  # type: ignore[attr-defined]
    assert not [line for line in running() if "outcross.verify.pattern_worker" in line]


def running() -> list[str]:
    """Command lines of this process's children."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            found.append(Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_canaries_are_judged_as_they_say() -> None:
    for verifier in (
        Matches("[0-9]+"),
        Matches("e", where="anywhere"),
        Matches(column="shape"),
        JsonSchema(Schema.of(PERSON)),
        JsonSchema(column="wanted"),
    ):
        for canary in verifier.canaries:
            found = scores(verifier, *canary.answers, **dict(canary.task.columns))
            assert tuple(item.verdict for item in found) == canary.expected and "fail" in canary.expected
