"""Records survive Parquet unchanged, and a file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.engine.tables import (
    DROPS,
    EXAMPLES,
    MEASUREMENTS,
    SAMPLES,
    Writer,
    decode_example,
    decode_groups,
    decode_measurement,
    encode_drops,
    encode_examples,
    encode_groups,
    encode_measurements,
    rows_of,
)
from outcross.types import (
    Array,
    Completion,
    Drop,
    Example,
    Group,
    Loss,
    Measurement,
    Message,
    Origin,
    Sample,
    Score,
    Task,
    Turn,
)

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
single = st.floats(allow_nan=False, allow_infinity=False, width=32)
number = st.floats(allow_nan=False, allow_infinity=False)
content = st.one_of(text, st.builds(Array, st.just("uint8"), st.just((2,)), st.binary(min_size=2, max_size=2)))
prompt = st.one_of(text, st.lists(st.builds(Message, text, text), min_size=1, max_size=3).map(tuple), content)
texts = st.lists(text, max_size=3).map(tuple)
origin = st.builds(
    Origin,
    st.sampled_from(["real", "synthetic", "unknown"]),
    st.sampled_from(["proved", "attested", "none"]),
    text,
    st.integers(0, 9),
    text,
    texts,
    texts,
    text,
)
completion = st.builds(
    Completion,
    content,
    st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple),
    st.lists(single, max_size=4).map(tuple),
    st.just(()),
    st.booleans(),
)
score = st.one_of(
    st.builds(Score, text, text, st.sampled_from(["pass", "fail"]), st.none() | number, text, text),
    st.builds(Score, text, text, st.sampled_from(["error", "abstain"]), st.none(), text, text),
)
task = st.builds(
    Task, text, prompt, st.none() | text, st.none() | text, origin, number, st.lists(st.tuples(text, text), max_size=2).map(tuple)
)


@st.composite
def groups(draw: st.DrawFn) -> list[Group]:
    made = []
    for number_, found in enumerate(draw(st.lists(task, max_size=5))):
        own = msgspec.structs.replace(found, id=f"{number_}:{found.id}")
        plain = st.builds(Turn, st.just(own.prompt), completion)
        turns = st.lists(st.one_of(plain, st.builds(Turn, prompt, completion, st.none() | number, st.none() | number)), max_size=2).map(
            tuple
        )
        samples = st.builds(Sample, text, turns, origin, text, st.lists(score, max_size=2).map(tuple), text)
        made.append(Group(own, tuple(draw(st.lists(samples, min_size=1, max_size=3)))))
    return made


@settings(max_examples=150, deadline=None)
@given(groups())
def test_groups_survive(made: list[Group]) -> None:
    batch = encode_groups(made)
    assert batch.num_rows == sum(len(group.samples) for group in made)
    assert list(decode_groups(batch.to_pylist())) == made


@settings(max_examples=100, deadline=None)
@given(groups(), text, text)
def test_drops_keep_curator_and_reason(made: list[Group], curator: str, reason: str) -> None:
    rows = encode_drops([Drop(group, curator, reason) for group in made]).to_pylist()
    assert list(decode_groups(rows)) == made
    assert all((row["curator"], row["reason"]) == (curator, reason) for row in rows)


examples = st.builds(
    Example,
    text,
    prompt,
    content,
    st.builds(Loss, st.sampled_from(["nll", "dpo", "pg"]), st.none() | number, st.none() | number),
    st.one_of(number, st.lists(number, max_size=3).map(tuple)),
    st.none() | content,
    st.one_of(st.none(), number, st.lists(number, max_size=3).map(tuple)),
    st.lists(number, max_size=3).map(tuple),
    origin,
    st.none() | text,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(examples, max_size=4))
def test_examples_survive(made: list[Example]) -> None:
    batch = encode_examples([(example, 3) for example in made])
    assert [decode_example(row) for row in batch.to_pylist()] == made


def test_measurements_survive() -> None:
    made = [Measurement("a", ("x", "y"), (0.5, 1.0), None, False, "nats"), Measurement("b", ("z",), (2.0,), (1.9, 2.1))]
    assert [decode_measurement(row) for row in encode_measurements([("candidate", item) for item in made]).to_pylist()] == made


def group(number_: int, samples: int = 2) -> Group:
    own = Task(f"t{number_}", f"{number_}+1=", str(number_ + 1))
    origin_ = Origin("synthetic", source="m", depth=1, round="train/0000", parents=(own.id,))
    return Group(own, tuple(Sample(f"s{number_}.{i}", (Turn(own.prompt, Completion("1")),), origin_) for i in range(samples)))


def test_a_file_of_many_batches_reads_back_as_written_and_twice_the_same(tmp_path: Path) -> None:
    made = [group(i) for i in range(1000)]
    for name in ("a", "b"):
        with Writer(tmp_path / f"{name}.parquet", SAMPLES, encode_groups, rows=64) as table:
            for item in made:
                table.add(item)
    assert list(decode_groups(rows_of(tmp_path / "a.parquet", batch=77))) == made
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    for name, schema, encode in (("d", DROPS, encode_drops), ("e", EXAMPLES, encode_examples), ("m", MEASUREMENTS, encode_measurements)):
        with Writer(tmp_path / f"{name}.parquet", schema, encode):
            pass
        assert pq.read_table(tmp_path / f"{name}.parquet").schema.names == schema.names


def test_an_unfinished_file_never_appears(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "a.parquet", SAMPLES, encode_groups) as table:
        table.add(group(1 // 0))
    assert list(tmp_path.iterdir()) == []


def test_other_tools_read_the_tables(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="pip install duckdb to run this")
    with Writer(tmp_path / "g.parquet", SAMPLES, encode_groups) as table:
        table.add(group(1))
    path = tmp_path / "g.parquet"
    found = duckdb.sql(f"select id, outcross.depth, outcross.parents[1] from '{path}' order by id").fetchall()
    assert found == [("s1.0", 1, "t1"), ("s1.1", 1, "t1")]
