"""Composed prompts: what is on the record, exact shares, one result everywhere, templates that are data-proof, and clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from outcross.errors import ConfigError, DataError
from outcross.recipe import fingerprint
from outcross.tasks.attributes import (
    AnyAttribute,
    Boolean,
    Cases,
    Category,
    Expression,
    Integer,
    SampleOf,
    Subcategory,
    Uniform,
)
from outcross.tasks.compose import Compose
from outcross.types import Message, Origin, Task

TOPICS: dict[str, AnyAttribute] = {
    "topic": Category({"algebra": 3, "geometry": 1}),
    "subtopic": Subcategory({"algebra": ["linear", "quadratic"], "geometry": ["area", "angles", "volume"]}, "topic"),
    "grade": Integer((1, 4)),
}
SEEDS = tuple(
    Task(f"s{i}", f"seed {i}", str(i), "g", Origin("synthetic", "none", "model", 2), columns=(("place", f"P{i}"),)) for i in range(3)
)


def column(tasks: Any, name: str) -> list[str]:
    return [dict(task.columns)[name] for task in tasks]


def rows(path: Path, *given: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


# ── what a task holds ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_task_has_its_texts_every_attribute_and_where_it_comes_from() -> None:
    made = Compose(
        "{{ topic }} in {{ place }}: {{ prompt }}",
        {"topic": Category(["algebra"]), "hard": Boolean(1), "double": Expression("answer|int * 2")},  # type: ignore[arg-type]
        SEEDS,
        system="You teach {{ topic }}.",
        answer="{{ double }}",
        subgroup="topic if hard else 'easy'",
    )
    task = list(made)[2]
    assert task.prompt == (Message("system", "You teach algebra."), Message("user", "algebra in P2: seed 2"))
    assert (task.answer, task.subgroup) == ("4", "algebra")
    assert task.columns == (("place", "P2"), ("double", "4"), ("hard", "true"), ("topic", "algebra"))
    assert task.origin == Origin("synthetic", "none", "model", 2, parents=("s2",), note="composed")


def test_without_a_system_message_the_prompt_is_a_text_and_messages_are_several_turns() -> None:
    assert next(iter(Compose("Hi {{ x }}", {"x": Integer((5, 5))}, n=1))).prompt == "Hi 5"
    turns = (Message("user", "{{ x }}?"), Message("assistant", "No."), Message("user", "And {{ x + 1 }}?"))
    assert next(iter(Compose(messages=turns, attributes={"x": Integer((5, 5))}, n=1))).prompt == (
        Message("user", "5?"),
        Message("assistant", "No."),
        Message("user", "And 6?"),
    )


def test_real_seeds_do_not_make_a_composed_prompt_real(tmp_path: Path) -> None:
    real = tuple(replace_origin(task, Origin("real", "attested", "book")) for task in SEEDS)
    assert {task.origin.kind for task in Compose("{{ prompt }}", rows=real)} == {"unknown"}
    (task,) = Compose("{{ q }}", rows=rows(tmp_path / "seeds.jsonl", {"q": "why?"}))
    assert task.origin.source.startswith("seeds.jsonl@blake2b:") and len(task.origin.parents) == 1 and not task.origin.is_real


def replace_origin(task: Task, origin: Origin) -> Task:
    return Task(task.id, task.prompt, task.answer, task.subgroup, origin, columns=task.columns)


def test_rows_are_gone_over_as_often_as_n_takes_and_identifiers_stay_unique() -> None:
    assert [task.origin.parents[0] for task in Compose("{{ prompt }}", rows=SEEDS, n=7)] == ["s0", "s1", "s2"] * 2 + ["s0"]
    twice = list(Compose("{{ prompt }}", rows=SEEDS, per_row=2))
    assert [task.origin.parents[0] for task in twice] == ["s0", "s0", "s1", "s1", "s2", "s2"]
    assert len({task.id for task in twice}) == 6


def test_a_row_drawn_from_a_file_is_on_the_record_by_its_columns_and_as_often_as_its_weight_says(tmp_path: Path) -> None:
    people = rows(tmp_path / "people.jsonl", {"name": "Ada", "items": 3, "share": 3}, {"name": "Bo", "items": 1, "share": 1})
    tasks = list(Compose("{{ who.name }} has {{ who.items }}", {"who": SampleOf(people, "share")}, n=8))
    assert Counter(task.prompt for task in tasks) == {"Ada has 3": 6, "Bo has 1": 2}
    assert dict(tasks[0].columns).keys() == {"who.name", "who.items", "who.share"}


# ── shares ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("seed", range(5))
def test_stratified_shares_are_exact_also_within_what_an_attribute_depends_on(seed: int) -> None:
    tasks = list(Compose("{{ topic }}", TOPICS, n=240, seed=seed))
    assert Counter(column(tasks, "topic")) == {"algebra": 180, "geometry": 60}
    assert Counter(column(tasks, "subtopic")) == {"linear": 90, "quadratic": 90, "area": 20, "angles": 20, "volume": 20}
    assert set(Counter(column(tasks, "grade")).values()) == {60}


@pytest.mark.parametrize("seed", range(5))
def test_crossed_gives_every_combination_its_exact_share(seed: int) -> None:
    tasks = list(Compose("{{ topic }}", TOPICS, n=96, seed=seed, plan="crossed"))
    met = Counter(zip(column(tasks, "subtopic"), column(tasks, "grade"), strict=True))
    assert len(met) == 5 * 4
    assert {met[name, grade] for name in ("linear", "quadratic") for grade in "1234"} == {9}
    assert {met[name, grade] for name in ("area", "angles", "volume") for grade in "1234"} == {2}


def test_shares_that_do_not_divide_differ_by_less_than_one_task_and_by_the_seed() -> None:
    third = {"x": Category(("a", "b", "c"))}
    found = [Counter(column(Compose("{{ x }}", third, n=100, seed=seed), "x")) for seed in range(30)]
    assert {count for counts in found for count in counts.values()} == {33, 34}
    assert {max(counts, key=counts.__getitem__) for counts in found} == {"a", "b", "c"}


def test_ranges_are_a_latin_hypercube_and_attributes_are_planned_apart() -> None:
    made = list(Compose("{{ x }}", {"x": Uniform((0, 1000), 6), "y": Uniform((0, 1000), 6), "z": Category(("a", "b"))}, n=1000))
    for name in "xy":
        assert sorted(int(float(value)) for value in column(made, name)) == list(range(1000))
    met = Counter((float(x) < 500, float(y) < 500, z) for x, y, z in zip(*(column(made, name) for name in "xyz"), strict=True))
    assert all(90 < count < 160 for count in met.values()) and len(met) == 8


def test_tasks_of_one_row_differ_from_each_other_and_the_shares_of_all_stay_exact() -> None:
    varied: dict[str, AnyAttribute] = {"kind": Category(("a", "b", "c")), "tone": Category(("x", "y"))}
    for plan in ("stratified", "crossed"):
        tasks = list(Compose("{{ kind }}", varied, rows=SEEDS * 10, per_row=3, plan=plan))  # type: ignore[arg-type]
        kinds = column(tasks, "kind")
        assert all(set(kinds[place : place + 3]) == {"a", "b", "c"} for place in range(0, 90, 3))
        assert set(Counter(kinds).values()) == {30} and set(Counter(column(tasks, "tone")).values()) == {45}


def test_constraints_hold_and_an_impossible_one_says_what_was_drawn() -> None:
    kept = Compose("{{ grade }}", TOPICS, n=300, constraints=("grade > 2 or topic == 'geometry'",))
    assert all(grade > "2" or topic == "geometry" for topic, grade in zip(column(kept, "topic"), column(kept, "grade"), strict=True))
    impossible = replace(kept, constraints=("grade > 9",), attempts=20)
    with pytest.raises(DataError, match=r"task 0: none of 20 draws kept the constraints; the last had grade=\d\. Loosen"):
        list(impossible)


def test_coverage_counts_what_came_out_against_the_plan() -> None:
    found = Compose("{{ topic }} {{ grade }}", TOPICS, n=240).coverage()
    assert (found.tasks, found.prompts) == (240, 8)
    by_name = {item.name: item for item in found.attributes}
    assert by_name["subtopic"].planned == pytest.approx(
        {"linear": 3 / 8, "quadratic": 3 / 8, **dict.fromkeys(("area", "angles", "volume"), 1 / 12)}
    )
    assert by_name["topic"].off == 0 and not by_name["topic"].missing and found.pairs[("grade", "topic")] == (8, 8)
    assert ("subtopic", "topic") not in found.pairs
    few = Compose("{{ topic }}", TOPICS, n=2).coverage()
    assert len({item.name: item for item in few.attributes}["grade"].missing) == 2
    assert "grade: 2 of 4 values" in str(few) and "; never: " in str(few)


# ── the same everywhere ────────────────────────────────────────────────────────────────────────────────────────────────
SCRIPT = """
from outcross.tasks.compose import Compose
from outcross.tasks.attributes import *
from outcross.recipe import fingerprint
made = Compose("{{ a }} {{ b }} {{ c }} {{ d }}", {"a": Category({"x": 1, "y": 2}), "b": Normal((0, 1)), "c": Uuid("T-"), "d": Faker("name")}, n=50, seed=3)
print(fingerprint(made), hash("salted") and [task.id for task in made])
"""


def test_another_process_makes_the_same_tasks_with_the_same_fingerprint() -> None:
    def run(hash_seed: str) -> str:
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed})
        return done.stdout

    assert run("1") == run("2")


def test_it_can_be_gone_over_again_and_neither_order_nor_other_attributes_change_a_draw() -> None:
    made = Compose("{{ topic }}{{ grade }}", TOPICS, n=50, plan="independent")
    assert list(made) == list(made)
    backwards = replace(made, attributes=dict(reversed(TOPICS.items())))
    assert list(backwards) == list(made) and fingerprint(backwards) == fingerprint(made)
    more = replace(made, attributes={**TOPICS, "aaa": Boolean(0.5)})
    assert [task.prompt for task in more] == [task.prompt for task in made]
    assert [task.prompt for task in replace(made, seed=1)] != [task.prompt for task in made]


def test_the_fingerprint_follows_content_and_settings_and_not_the_place(tmp_path: Path) -> None:
    one, two = rows(tmp_path / "a.jsonl", {"q": "x"}), rows(tmp_path / "b.jsonl", {"q": "x"})
    first = Compose("{{ q }}", {"p": SampleOf(one)}, rows=one)
    assert fingerprint(first) == fingerprint(Compose("{{ q }}", {"p": SampleOf(two)}, rows=two))
    rows(two, {"q": "y"})
    changed = [
        Compose("{{ q }}!", {"p": SampleOf(one)}, rows=one),
        Compose("{{ q }}", {"p": SampleOf(one)}, rows=two),
        replace(first, seed=9),
    ]
    changed += [Compose("{{ q }}", {"p": SampleOf(two)}, rows=one)]
    assert len({fingerprint(item) for item in (first, *changed)}) == 5


def test_a_hundred_thousand_tasks_stream() -> None:
    tracemalloc.start()
    assert sum(1 for _ in islice(Compose("{{ topic }} {{ subtopic }}", TOPICS, n=100_000), 3_000)) == 3_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


# ── templates ──────────────────────────────────────────────────────────────────────────────────────────────────────────
HOSTILE = "{{ ''.__class__.__mro__ }} {% for i in range(9) %} {{ 7 * 7 }} {# x #}"


def test_a_template_in_the_data_is_only_text(tmp_path: Path) -> None:
    path = rows(tmp_path / "seeds.jsonl", {"q": HOSTILE})
    (task,) = Compose("{{ q }} | {{ again }}", {"again": Expression("q"), "third": Expression("{{ q }}")}, rows=path, answer="{{ third }}")
    assert task.prompt == f"{HOSTILE} | {HOSTILE}" and task.answer == HOSTILE


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ q.__class__.__mro__ }}",
        "{{ q.format.__self__ }}",
        "{{ ''|attr('__class__') }}",
        "{% set x = q.__init__.__globals__ %}{{ x }}",
        "{{ '{0.__class__}'.format(q) }}",
        "{% include '/etc/passwd' %}",
        "{{ row.clear() }}",
    ],
)
def test_a_template_that_reaches_for_more_than_its_data_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task 0, row 1 of .*: prompt cannot be written: .*(unsafe|loader|no 'clear'|no attribute)"):
        list(Compose(source, rows=rows(tmp_path / "seeds.jsonl", {"q": "x"})))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "{{ topc }}"}, r"compose: prompt uses 'topc', which is no attribute and no column of the rows; did you mean 'topic'\?"),
        ({"system": "{{ topc }}"}, "compose: system uses 'topc'"),
        ({"answer": "{{ grad }}"}, "answer uses 'grad'.* did you mean 'grade'"),
        ({"subgroup": "topc"}, "subgroup uses 'topc'.* did you mean 'topic'"),
        ({"constraints": ("grad > 1",)}, "the constraint 'grad > 1' uses 'grad'"),
        ({"constraints": ("grade >",)}, "the constraint 'grade >' is not Jinja"),
        ({"prompt": "a\nb {{ topic"}, "prompt is not Jinja: line 2: "),
        ({"prompt": "{{ [1, 2]|random }}"}, "No filter named 'random'"),
        ({"attributes": {**TOPICS, "x": Expression("topc + 1")}}, "attribute 'x' uses 'topc'.* did you mean 'topic'"),
        ({"attributes": {**TOPICS, "x": Expression("y"), "y": Expression("x")}}, "attributes x, y are made from each other in a circle"),
        (
            {"attributes": {"topic": Category(("a", "b")), "x": Subcategory({"a": [1]}, "topic")}},
            "attribute 'x' has no case for the topic 'b'",
        ),
        ({"attributes": {"topic": Category(("a",)), "x": Cases({"a": Boolean(1), "A": Boolean(1)}, "topic")}}, "'A', which no topic is"),
        ({"attributes": {"two words": Boolean(1)}}, "an attribute is called 'two words'"),
        ({"attributes": {"range": Boolean(1)}}, "an attribute is called 'range'"),
        ({"prompt": ""}, "give either `prompt`"),
        ({"n": None}, "say how many tasks to make"),
        ({"per_row": 0}, "per_row=0"),
        ({"plan": "random"}, "plan is 'random'; allowed: stratified"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Compose(**{"prompt": "{{ topic }}", "attributes": TOPICS, "n": 5, **settings})


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ((Message("user", "a"), Message("assistant", "b")), "last message is the assistant's"),
        ((Message("usr", "a"),), "the role 'usr'; allowed: system, user, assistant, tool"),
    ],
)
def test_conversations_that_cannot_be_asked_are_refused(turns: tuple[Message, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Compose(messages=turns, n=1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ qq }}", r"prompt uses 'qq'.* did you mean 'q'\? allowed: empty, kind, person, q, row"),
        ("{{ person.nam }}", r"row 1 of .*: prompt cannot be written: there is no 'nam' in it; did you mean 'name'\?"),
        ("{{ row['full name'] }}", "there is no 'full name' in it; allowed: empty, person, q"),
        ("{{ empty }}", r"a value in it is empty \(null\); say what to write instead"),
        ("{{ q.upper }}", "it prints a function; call it"),
        ("{{ q * 2.5 }}", "can't multiply"),
        (" {{ '' }} ", "prompt is empty when it is filled in"),
    ],
)
def test_what_does_not_fit_a_row_is_said_with_the_row(source: str, message: str, tmp_path: Path) -> None:
    path = rows(tmp_path / "seeds.jsonl", {"q": "why", "person": {"name": "Ada"}, "empty": None})
    with pytest.raises(ConfigError, match=message):
        list(Compose(source, {"kind": Category(("a",))}, rows=path))


def test_an_attribute_may_not_hide_a_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'q' is an attribute and a column of the rows; rename the attribute"):
        list(Compose("{{ q }}", {"q": Boolean(1)}, rows=rows(tmp_path / "seeds.jsonl", {"q": "x"})))
