"""What judges leave on the record, and how objectives read it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from helpers import context, failed, group, sample
from hypothesis import given
from hypothesis import strategies as st
from judges import biased

from outcross.engine.tables import SAMPLES, Writer, decode_groups, encode_groups, rows_of
from outcross.judgement import Compared, Judgement, Member, judgement_of, keys, preferences, written
from outcross.types import Group, Score
from outcross.verify.judge_pairwise import PairwiseJudge

share = st.integers(0, 10**6).map(lambda n: n / 10**6)
pairs = st.builds(Compared, st.text("0123456789abcdef", min_size=1, max_size=32), share, share, share, st.integers(-1, 20))
judgements = st.builds(
    Judgement,
    st.text(max_size=5),
    st.text(max_size=9),
    st.just("log-probabilities"),
    st.lists(pairs, max_size=4).map(tuple),
    st.integers(0, 9),
)


@given(judgements)
def test_a_judgement_is_read_as_it_was_written(judgement: Judgement) -> None:
    assert judgement_of(Score("j", "1", "pass", 1.0, "", written(judgement))) == judgement
    panel = Judgement(panel=(Member("j", "pass", 0.5, judgement), Member("k", "error", reason="gone")))
    assert judgement_of(Score("p", "1", "pass", 1.0, "", written(panel))) == panel


@pytest.mark.parametrize("evidence", ["", "exact pass 1", '{"evidence":"judgement"', '{"evidence":"other"}', "{"])
def test_other_evidence_is_no_judgement(evidence: str) -> None:
    assert judgement_of(Score("x", "1", "pass", 1.0, "", evidence)) is None


def test_preferences_survive_the_table_and_samples_that_were_set_aside(tmp_path: Path) -> None:
    ctx = context(tmp_path, {"judge": biased(len, 0.3)})
    (made,) = PairwiseJudge()(ctx, [Group(group().task, (sample("a"), failed(1), sample("bbb", 2), sample("cc", 3)))])
    with Writer(tmp_path / "groups.parquet", SAMPLES, encode_groups) as table:
        table.add(made)
    (read,) = decode_groups(rows_of(tmp_path / "groups.parquet"))
    assert preferences(read) == preferences(made) and len(preferences(made)) == 6
    trimmed = Group(made.task, made.samples[:3])
    assert set(preferences(trimmed)) == {(made.samples[0].id, made.samples[2].id), (made.samples[2].id, made.samples[0].id)}
    assert preferences(made, "another") == {} == preferences(made, role="another") and preferences(made, role="judge") == preferences(made)


def test_samples_whose_identifiers_begin_alike_are_told_apart(tmp_path: Path) -> None:
    same = "0123456789ab"
    named = [msgspec.structs.replace(sample(text, index), id=f"{same}{index}") for index, text in enumerate(("a", "bb", "ccc"))]
    other = msgspec.structs.replace(sample("dddd", 3), id="ffffffffffff0000")
    assert list(keys([*named, other]).values()) == [*(item.id for item in named), "ffffffffffff"]
    (made,) = PairwiseJudge()(context(tmp_path, {"judge": biased(len, 0.0)}), [Group(group().task, (*named, other))])
    found = preferences(made)
    assert len(found) == 12 and found[named[0].id, named[2].id] < found[named[0].id, named[1].id] < 0.5


def test_a_record_is_small(tmp_path: Path) -> None:
    """About 40 bytes a pair: five answers a task, all compared, are a few hundred bytes a sample."""
    (made,) = PairwiseJudge()(context(tmp_path, {"judge": biased(len, 0.3)}), [group(*("x" * n for n in range(1, 6)))])
    assert all(len(item.scores[-1].evidence) < 130 + 4 * 50 for item in made.samples)
