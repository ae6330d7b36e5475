"""Structured answers: held by the server or told, validated, corrected once, or failed with the raw text kept; never dropped."""

from __future__ import annotations

import json
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from helpers import context
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator
from stub_server import Behaviour, Stub

from outcross.config.bind import Place, bind_use
from outcross.config.find import GENERATOR
from outcross.engine.budget import Budget, Meter
from outcross.engine.conserve import Counter, generated
from outcross.engine.executor import Executor
from outcross.engine.journal import Journal
from outcross.engine.tables import SAMPLES, Writer, decode_groups, encode_groups, rows_of
from outcross.errors import ConfigError, FingerprintError
from outcross.generate.draw import Draw
from outcross.models.http import http
from outcross.models.scripted import Scripted
from outcross.models.tabular import Tabular
from outcross.recipe import fingerprint
from outcross.schema import Schema
from outcross.stages import Context
from outcross.train.objectives import Imitate
from outcross.types import Array, Completion, Group, Message, Request, Response, Sample, Sampling, Score, Task


class Tone(Enum):
    dry = "dry"
    warm = "warm"


class Address(BaseModel):
    city: str


class Person(BaseModel):
    thought: str
    age: int = Field(ge=0)
    address: Address | None = None
    tone: Tone = Tone.dry

    @field_validator("age")
    @classmethod
    def believable(cls, age: int) -> int:
        if age > 150:
            raise ValueError("nobody is that old")
        return age


AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": False}
TASKS = [Task(f"t{index}", f"Who is {index}?") for index in range(3)]
HELLO = "Reply with the single word hello."


def read(text: str, schema: Any = AGE) -> tuple[str, str, str]:
    found = Schema.of(schema).reading(Completion(text))
    return found.text, found.how, found.problem


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "how"),
    [
        ('{"age": 3}', ""),
        ('\n {\n  "age":\t3 }\n', ""),
        ('```json\n{"age": 3}\n```', "taken out of a code fence"),
        ('First {"age": "?"}:\n```\n{"age": 1}\n```\nor better\n``` json\n{"age": 3}\n```', "taken out of a code fence"),
        ('Sure! Here it is: {"age": 3}. Anything else?', "taken out of other text"),
        ('<think>{"age": 9}, or [1] {broken</think>{"age": 3}', "taken out of other text"),
    ],
)
def test_json_is_found_in_what_models_write_and_it_is_said_where(text: str, how: str) -> None:
    assert read(text) == ('{"age":3}', how, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"age": "three"}', "$.age: 'three' is not of type 'integer' (schema: properties/age/type)"),
        ("{}", "$: 'age' is a required property (schema: required)"),
        ("I do not know.", "$: no JSON: Expecting value"),
        ("", "$: no JSON"),
        ('{"age": 3', "$: no JSON: Expecting ',' delimiter"),
        ('{"age": 3, "age": 4}', "$: no JSON: a key is given twice among ['age', 'age']"),
        ('{"age": NaN}', "$: no JSON: NaN is no number"),
        ('{"age": 1e999}', "$: no JSON: 1e999 is no number of JSON, or too large"),
        ('{"age": "\\ud800"}', "$: no JSON: half a surrogate pair"),
        ("[" * 100_000, "$: no JSON"),
        ("[" * 3000 + "{" * 3000, "$: no JSON"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(text: str, problem: str) -> None:
    found, how, said = read(text)
    assert not found and not how and said.startswith(problem), said


def test_arrays_and_cut_off_answers_are_not_read() -> None:
    schema = Schema.of(AGE)
    assert schema.reading(Completion(Array("u1", (1,), b"a"))).problem == "the answer is an array, not text"
    assert schema.reading(Completion('{"age": 3}', finished=False)).problem == "the answer was cut off"


def test_a_pydantic_model_brings_its_validators_and_keeps_its_order() -> None:
    said = '{"thought": "tö", "age": 30, "address": {"city": "x"}, "tone": "warm"}'
    assert read(said, Person) == (said.replace(": ", ":").replace(", ", ","), "", "")
    assert read('{"thought": "t", "age": 200}', Person)[2] == "$.age: Value error, nobody is that old (validator of Person)"
    assert read('{"thought": "t", "age": -1}', Person)[2].startswith("$.age: -1 is less than the minimum of 0")
    assert read('{"thought": "t", "age": "30"}', Person)[2].startswith("$.age: '30' is not of type 'integer'"), "nothing is converted"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=8,
)


@given(values, st.sampled_from([None, 2]), st.booleans())
def test_any_value_in_any_layout_becomes_the_same_text(value: Any, indent: int | None, ascii_only: bool) -> None:
    text, how, problem = read(json.dumps(value, indent=indent, ensure_ascii=ascii_only), {})
    assert json.loads(text) == value and not how and not problem
    assert read(text, {})[0] == text


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading(text: str) -> None:
    found, _, problem = read(text)
    assert bool(found) != bool(problem)


# ── schemas as values ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_schema_has_a_fingerprint_of_its_content_and_of_its_models_source() -> None:
    assert fingerprint(Draw(schema=AGE)) == fingerprint(Draw(schema=dict(AGE))) != fingerprint(Draw(schema={"type": "array"}))
    assert fingerprint(Draw(schema=Person)) == fingerprint(Draw(schema=Person))
    assert fingerprint(Draw(schema=Person)) != fingerprint(Draw(schema=Person.model_json_schema())), "validators count"
    assert Draw(schema=Person) == Draw(schema=Schema.of(Person)) and hash(Draw(schema=Person))
    made: dict[str, Any] = {"__name__": "typed_at_a_prompt"}
    exec("from pydantic import BaseModel\nclass Made(BaseModel):\n    x: int", made)
    with pytest.raises(FingerprintError, match="put the model into a file, or give its JSON schema"):
        fingerprint(Draw(schema=made["Made"]))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"type": "integr"}, "no JSON schema"),
        ({"$ref": "http://elsewhere/schema.json"}, "refers to 'http://elsewhere/schema.json', which is not in it"),
        ({"default": float("nan")}, "not JSON"),
        (3, "give a pydantic model"),
        (int, "give a pydantic model"),
    ],
)
def test_what_is_no_schema_is_refused_at_once(given_: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Draw(schema=given_)


def test_a_run_file_names_a_schema_in_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "age.json").write_text(json.dumps(AGE))
    (tmp_path / "my_models.py").write_text("from pydantic import BaseModel\n\n\nclass Aged(BaseModel):\n    age: int\n")
    (tmp_path / "list.json").write_text("[]")
    monkeypatch.syspath_prepend(str(tmp_path))

    def bound(raw: Any) -> Draw:
        planned = bind_use({"use": "draw", "schema": raw}, GENERATOR, Place("generate", tmp_path), {})
        assert planned.plain["schema"] == raw
        made = planned.make()
        assert isinstance(made, Draw)
        return made

    assert bound(AGE) == bound("age.json") == Draw(schema=AGE)
    made = bound("my_models:Aged").schema
    assert isinstance(made, Schema) and made.model is not None and made.model.__name__ == "Aged"
    assert bound(None) == Draw()
    for raw, message in (("none.json", "there is no file"), ("list.json", "is a list, not a JSON schema"), (3, "generate.schema is 3")):
        with pytest.raises(ConfigError, match=message):
            bound(raw)


# ── drawing ────────────────────────────────────────────────────────────────────────────────────────────────────────────
class Says:
    """A script by attempt: what a prompt is answered first and after a correction; keeps what it was asked."""

    def __init__(self, first: str | Response, then: str | Response = "", hello: str = "hello") -> None:
        self.first, self.then, self.hello = first, then, hello
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> str | Response:
        self.asked.append(request)
        text = request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content  # type: ignore[union-attr]
        if text == HELLO:
            return self.hello
        return self.then if "This answer is not valid" in text else self.first


def drawn(says: Says, folder: Path, draw: Draw | None = None, task: Task = TASKS[0]) -> Sample:
    (group,) = (draw or Draw(n=1, schema=AGE))(context(folder, {"policy": Scripted(says, name="says")}), [task])
    (sample,) = group.samples
    return sample


def test_a_model_that_keeps_the_schema_is_sent_it_and_told_nothing(tmp_path: Path) -> None:
    says = Says('{"age": 3}', hello='{"age": 0}')
    assert drawn(says, tmp_path).text == '{"age":3}'
    probe, asked = says.asked
    assert probe.prompt == HELLO and json.loads(str(probe.schema)) == AGE and probe.sampling.temperature == 0
    assert asked.prompt == "Who is 0?" and asked.schema == probe.schema


@pytest.mark.parametrize("hello", ["hello", '"hello"', 'hello {"age": 0}'])
def test_a_model_that_does_not_is_told_the_schema_inside_its_template(hello: str, tmp_path: Path) -> None:
    says = Says('{"age": 3}', hello=hello)
    sample = drawn(says, tmp_path, Draw(n=1, schema=AGE, template="Q: {prompt}\nA:"))
    told = str(says.asked[1].prompt)
    assert told.startswith("Q: Who is 0?\n\nAnswer with JSON only") and told.endswith(f"{Schema.of(AGE).text}\nA:")
    assert says.asked[1].schema is None
    assert sample.turns[0].prompt == "Who is 0?" and not sample.origin.note and not sample.error


def test_tokens_stay_with_the_text_they_are_of(tmp_path: Path) -> None:
    for text, kept in (('{"age":3}', (1, 2)), ('{"age": 3}', ())):
        sample = drawn(Says(Response((Completion(text, kept, (-0.5,) * len(kept)),))), tmp_path)
        assert sample.turns == (type(sample.turns[0])("Who is 0?", Completion('{"age":3}', kept, (-0.5,) * len(kept))),)


@pytest.mark.parametrize("conversation", [False, True])
def test_an_invalid_answer_gets_one_correction_turn_and_both_are_kept(conversation: bool, tmp_path: Path) -> None:
    prompt = (Message("user", "Who?"),) if conversation else "Who?"
    says = Says('{"age": "three"}', 'Sorry: {"age": 3}')
    sample = drawn(says, tmp_path, task=Task("t", prompt))
    again = says.asked[2]
    assert again.n == 1 and again.seed != says.asked[1].seed
    if isinstance(again.prompt, tuple):
        assert [message.role for message in again.prompt] == ["user", "assistant", "user"] and again.prompt[1].content == '{"age": "three"}'
        said = again.prompt[2].content
    else:
        said = str(again.prompt)
        assert '{"age": "three"}' in said
    assert "$.age: 'three' is not of type 'integer'" in said and Schema.of(AGE).text in said
    assert [turn.completion.content for turn in sample.turns] == ['{"age": "three"}', '{"age":3}']
    assert {turn.prompt for turn in sample.turns} == {prompt}, "what is learnt is the answer to the task, not to the correction"
    assert sample.origin.note.startswith("corrected once: $.age: 'three'") and sample.origin.note.endswith("taken out of other text")
    assert not sample.error and len(says.asked) == 3


def test_what_stays_invalid_is_a_failed_sample_with_its_raw_turns(tmp_path: Path) -> None:
    sample = drawn(Says("no idea", '{"age": null}'), tmp_path)
    assert [turn.completion.content for turn in sample.turns] == ["no idea", '{"age": null}']
    for part in ("invalid under its schema: $.age: None is not of type", "corrected from $: no JSON", "task 't0', answer 0", "next: "):
        assert part in sample.error
    assert '{"age": null}' in sample.error and "properties/age/type" in sample.error


def test_a_correction_without_an_answer_and_a_cut_off_answer_fail_with_the_next_step(tmp_path: Path) -> None:
    lost = drawn(Says("no idea", Response(error="500: busy")), tmp_path)
    assert [turn.completion.content for turn in lost.turns] == ["no idea"]
    assert "the correction got no answer" in lost.error and lost.error.endswith("correction: 500: busy")
    says = Says(Response((Completion('{"age": ', finished=False),)))
    cut = drawn(says, tmp_path, Draw(n=1, schema=AGE, sampling=Sampling(max_tokens=7)))
    assert "cut off" in cut.error and "raise sampling.max_tokens (7)" in cut.error and len(says.asked) == 2


def test_of_many_a_huge_answer_is_shown_to_the_model_in_part(tmp_path: Path) -> None:
    says = Says("x" * 1_000_000, '{"age": 1}')
    assert drawn(says, tmp_path).text == '{"age":1}'
    assert len(str(says.asked[2].prompt)) < 10_000


def test_a_model_of_this_process_that_knows_no_schemas_goes_the_same_way(tmp_path: Path) -> None:
    model = Tabular(['{"age": 3}', '{"age": "x"}', "hm"])
    groups = list(Draw(n=30, schema=AGE)(context(tmp_path, {"policy": model}), TASKS))
    samples = [sample for group in groups for sample in group.samples]
    ends = {(len(sample.turns), bool(sample.error)) for sample in samples}
    assert len(samples) == 90 == len({sample.id for sample in samples}) and ends == {(1, False), (2, False), (2, True)}
    assert {sample.text for sample in samples if not sample.error} == {'{"age":3}'}
    assert Draw(n=2, schema=AGE).calls(10) == {"policy": 31}, "at most: each answer may be corrected, and one question is a probe"


# ── through the engine, over HTTP ──────────────────────────────────────────────────────────────────────────────────────
def answers(prompt: str) -> str:
    """A model that no server holds to anything: a third right, a third corrected, a third hopeless."""
    number = int(next(word for word in prompt.replace("?", " ").split() if word.isdigit())) if "Who" in prompt else 0
    if prompt == HELLO:
        return "hello"
    return [f'{{"age": {number}}}', f'{{"age": {number}}}' if "not valid" in prompt else "hm", "hm"][number % 3]


@pytest.mark.parametrize("able", [True, False])
def test_every_row_ends_as_an_answer_or_a_failure_and_a_resumed_run_asks_nothing(able: bool, tmp_path: Path) -> None:
    tasks = [Task(f"t{index}", f"Who is {index} ?") for index in range(60)]
    rounds: list[list[Group]] = []
    with Stub(Behaviour(schema=able, says=answers, errors=0.1)) as stub, closing(Journal(tmp_path / "j.db")) as journal:
        for _ in range(2):
            counter = Counter("generate", "draw")
            with closing(http(stub.url, "stub", key_env=None, retries=20)) as model:
                meter = Meter(Budget(), journal)
                ctx = Context({"policy": model}, None, "r/0", 0, 0, Executor(journal, meter))  # type: ignore[arg-type]
                rounds.append(list(generated(Draw(n=1, schema=AGE), ctx, tasks, counter)))
            counter.close()
        assert max(stub.answered.values()) == 1 and sum(stub.answered.values()) == (61 if able else 1 + 60 + 40)
    assert rounds[0] == rounds[1]
    assert (counter.into, counter.failed) == (60, 0 if able else 20)
    with Writer(tmp_path / "groups.parquet", SAMPLES, encode_groups) as writer:
        for group in rounds[0]:
            writer.add(group)
    assert list(decode_groups(rows_of(tmp_path / "groups.parquet"))) == rounds[0]
    passed = [Group(group.task, tuple(judged(sample) for sample in group.samples)) for group in rounds[0]]
    learnt = list(Imitate()(context(tmp_path), passed))
    assert len(learnt) == (60 if able else 40) and {json.loads(str(item.completion)).keys() == {"age"} for item in learnt} == {True}
    assert all(isinstance(item.prompt, str) and item.prompt.startswith("Who is") and "JSON" not in item.prompt for item in learnt)


def judged(sample: Sample) -> Sample:
    if sample.error:
        return sample
    return Sample(sample.id, sample.turns, sample.origin, sample.seat, (Score("v", "1", "pass", 1.0),))
