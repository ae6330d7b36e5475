"""Duplicates in meaning: those of one direction go, the best stays, whichever way the vectors are cut into blocks."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import NoPast, context, failed, score
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outcross.curate import semantic
from outcross.curate.semantic import VectorShelf, VectorWriter, semantic_duplicates
from outcross.curate.semantic_dedup import SemanticDedup
from outcross.errors import ConfigError, ModelError, StageError
from outcross.models.tabular import Tabular
from outcross.stages import Context
from outcross.types import Completion, Drop, Example, Group, Origin, Sample, Task, Turn


@dataclass(frozen=True)
class Compass:
    """A text "name 40" points to 40 degrees, whatever its name; every other text has a direction of its own in 30 more dimensions."""

    id: str = "compass"
    depth: int = 0
    scale: float = 3.0

    def close(self) -> None: ...

    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        for text in texts:
            *_, last = text.split()
            vector = np.zeros(32)
            if last.removeprefix("-").isdecimal():
                vector[:2] = math.cos(math.radians(int(last))), math.sin(math.radians(int(last)))
            else:
                vector[2:] = np.random.default_rng(sum(text.encode())).normal(size=30)
            yield (self.scale * vector).tolist()


def said(identifier: str, text: str, prompt: str = "", value: float | None = None) -> Sample:
    scores = () if value is None else (score("pass", value),)
    return Sample(identifier, (Turn(prompt, Completion(text)),), Origin("synthetic"), scores=scores)


def one(*samples: Sample, subgroup: str | None = None) -> Group:
    return Group(Task("task", "prompt", subgroup=subgroup), samples)


def run(stage: Any, ctx: Context, *groups: Group) -> tuple[list[str], list[tuple[str, str]]]:
    kept, dropped = [], []
    for item in stage(ctx, groups):
        if isinstance(item, Drop):
            dropped += [(item.reason, sample.id) for sample in item.group.samples]
        else:
            kept += [sample.id for sample in item.samples]
    return kept, dropped


def where(folder: Path, label: str = "phase/0000", model: Any = None, real: Sequence[Example] = ()) -> Context:
    return replace(context(folder, {"embedder": model or Compass()}, label), past=NoPast(folder, real))


def test_the_best_of_a_direction_stays_wherever_it_stands(tmp_path: Path) -> None:
    groups = (
        one(said("low", "north 0", value=0.1), said("best", "up 10", value=0.9)),
        one(said("other", "x 20", value=0.5), said("far", "x 60")),
    )
    kept, dropped = run(SemanticDedup(), where(tmp_path), *groups)
    assert kept == ["best", "far"], "cos 10° = 0.985, cos 20° = 0.940: low and other are near best, not near each other"
    assert dropped == [
        ("semantic duplicate in this group: cosine 0.98 with sample best", "low"),
        ("semantic duplicate in this round: cosine 0.98 with sample best", "other"),
    ]
    equal = one(said("a", "x 7"), said("b", "y 7"))
    assert run(SemanticDedup(threshold=1.0), where(tmp_path / "b"), equal)[0] == ["a"], "earlier among equals, and 16 bits do not matter"


def test_question_and_answer_must_both_agree(tmp_path: Path) -> None:
    samples = said("a", "x 0", "q 0"), said("b", "y 0", "q 90"), said("c", "z 5", "q 88"), said("d", "x 50", "q 0"), said("e", "x 0", "")
    assert run(SemanticDedup(), where(tmp_path), one(*samples)) == (
        ["a", "b", "d", "e"],
        [("semantic duplicate in this group: cosine 1.00 with sample b", "c")],
    )


def test_failed_requests_and_empty_answers_stay(tmp_path: Path) -> None:
    empty = said("e", ""), said("f", " "), failed(1), failed(2)
    assert run(SemanticDedup(), where(tmp_path), one(*empty))[1] == []
    assert run(SemanticDedup(), where(tmp_path / "none"))[0] == [], "a round without samples"


def test_earlier_rounds_and_real_rows_take_precedence(tmp_path: Path) -> None:
    real = Example("r0", "", "unlike all"), Example("r1", "", "row 200")
    stage = SemanticDedup()
    first = run(stage, where(tmp_path, real=real), one(said("a", "x 0"), said("copy", "x 201", value=1.0), said("b", "y 5")))
    assert first == (
        ["a"],
        [("memorised: cosine 1.00 with real row r1", "copy"), ("semantic duplicate in this group: cosine 1.00 with sample a", "b")],
    )
    second = one(said("c", "x 10", value=9.0), said("d", "x 100"))
    for _ in range(2):  # a round that is repeated after a crash does not meet itself
        again = run(stage, where(tmp_path, "phase/0001", real=real), second)
        assert again == (["d"], [("semantic duplicate of an earlier round: cosine 0.98 with sample a", "c")])
    assert run(replace(stage, across="round"), where(tmp_path, "phase/0002", real=real), second)[1] == []
    assert run(replace(stage, against_real=False), where(tmp_path / "free", real=real), one(said("copy", "x 201")))[1] == []
    other = where(tmp_path, "phase/0003", Compass(id="other"), real)
    assert run(stage, other, second)[1] == [], "vectors of another model are not compared"
    assert not list(tmp_path.rglob("work"))


def test_a_subgroup_keeps_its_best_sample(tmp_path: Path) -> None:
    most = one(*(said(f"m{i}", f"x {i}", value=1.0) for i in range(3)), subgroup="most")
    few = one(said("f0", "y 1", value=0.2), said("f1", "y 2", value=0.4), subgroup="few")
    kept, dropped = run(SemanticDedup(), where(tmp_path), most, few)
    assert kept == ["m0", "f1"] and [item for _, item in dropped] == ["m1", "m2", "f0"]
    assert run(SemanticDedup(), where(tmp_path, "phase/0001"), few)[0] == [], "earlier rounds hold the subgroup already"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_blocks_change_nothing(tmp_path: Path, data: st.DataObject) -> None:
    """The greedy rule over all pairs, in plain Python, on random directions that lie close."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count, older = int(rng.integers(1, 25)), int(rng.integers(0, 12))
    angles = rng.integers(0, 60, count + older)
    scores = rng.choice([0.0, 0.5, 1.0], count)
    threshold = 0.99  # cos 8.1°
    near = np.abs(angles[:, None] - angles[None]) <= 8
    kept: list[int] = []
    for i in np.lexsort((np.arange(count), -scores)):
        if not near[i, count:].any() and not near[i, kept].any():
            kept.append(int(i))
    folder = tmp_path / str(rng.random())
    with VectorWriter(folder / "a", Compass()) as mine, VectorWriter(folder / "b", Compass()) as theirs:
        for i, angle in enumerate(angles):
            (mine if i < count else theirs).add(str(i), f"t {angle}", "p")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "_ROWS", data.draw(st.integers(1, 9)))
        patch.setattr(semantic, "_COLUMNS", data.draw(st.integers(1, 9)))
        found = semantic_duplicates(VectorShelf(folder / "a"), [VectorShelf(folder / "b")], scores, threshold)
    assert set(np.flatnonzero(found.shelf == -1)) == set(kept)
    for i in np.flatnonzero(found.shelf == -2):
        assert int(found.document[i]) in kept and near[i, found.document[i]]
        assert found.jaccard[i] == pytest.approx(math.cos(math.radians(abs(angles[i] - angles[found.document[i]]))), abs=2e-3)


def test_memory_does_not_grow_with_the_square_of_the_round(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        rng = np.random.default_rng(3)
        with VectorWriter(tmp_path / str(count), Compass()) as writer:
            for i in range(count):
                writer.add(str(i), "text " + "".join(map(chr, rng.integers(97, 123, 40))), "")
        tracemalloc.start()
        semantic_duplicates(VectorShelf(tmp_path / str(count)), [], np.zeros(count), 0.999)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(6000) < peak(1500) + 20 * 2**20, "all cosines at once would be 144 MB"


class Blind(Compass):
    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        return ([1.0, 0.0] for _ in texts)


class Odd(Compass):
    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        return ([0.0] * 4 if "zero" in text else [1.0] * (5 if "long" in text and "?" not in text else 4) for text in texts)


def test_a_model_that_cannot_tell_texts_apart_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match="raise the threshold"):
        run(SemanticDedup(), where(tmp_path, model=Blind()), one(said("a", "x 0")))
    for text, message in (("zero", "no direction"), ("long", "of \\[4, 5\\] numbers; one of 4 each")):
        with pytest.raises(ModelError, match=message):
            run(SemanticDedup(), where(tmp_path, model=Odd()), one(said("a", text), said("b", "x")))
    with pytest.raises(ConfigError, match="does not embed"):
        run(SemanticDedup(), where(tmp_path, model=Tabular(["a"])), one(said("a", "x 0")))
    monkeypatch.setattr(
        "outcross.curate.semantic_dedup.semantic_duplicates", lambda shelf, *_: semantic.Found(*(np.full(len(shelf), -1),) * 3)
    )
    with pytest.raises(StageError, match="missed a planted duplicate"):
        run(SemanticDedup(), where(tmp_path), one(said("a", "x 0")))
    wrong: list[dict[str, Any]] = [{"threshold": 0.0}, {"threshold": 1.2}, {"across": "all"}]
    for values in wrong:
        with pytest.raises(ConfigError, match="allowed"):
            SemanticDedup(**values)
