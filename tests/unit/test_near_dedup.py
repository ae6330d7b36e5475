"""Near duplicates: what is dropped resembles something that stays, what is unlike stays, and the best of a cluster is left."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import NoPast, context, failed, group, sample, score
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outcross.curate import near_dedup
from outcross.curate.near_dedup import NearDedup
from outcross.errors import ConfigError, StageError
from outcross.stages import Context
from outcross.types import Completion, Drop, Example, Group, Origin, Sample, Task, Turn

RNG = random.Random(7)
VOCABULARY = [f"word{i}" for i in range(2000)]
BASE = RNG.choices(VOCABULARY, k=100)
TEXT = " ".join(BASE)


def edited(*places: int, by: str = "changed") -> str:
    return " ".join(by if index in places else word for index, word in enumerate(BASE))


def run(curator: NearDedup, ctx: Context, *groups: Group) -> tuple[list[str], list[tuple[str, str]]]:
    """Identifiers that stay, and reasons with the identifiers they drop."""
    kept, dropped = [], []
    for item in curator(ctx, groups):
        if isinstance(item, Drop):
            dropped += [(item.reason, one.id) for one in item.group.samples]
        else:
            kept += [one.id for one in item.samples]
    return kept, dropped


def said(identifier: str, text: str, prompt: str = "", value: float | None = None) -> Sample:
    scores = () if value is None else (score("pass", value),)
    return Sample(identifier, (Turn(prompt, Completion(text)),), Origin("synthetic"), scores=scores)


def one(*samples: Sample) -> Group:
    return Group(Task("task", "prompt"), samples)


def test_the_best_of_a_cluster_stays_wherever_it_stands(tmp_path: Path) -> None:
    groups = (
        one(said("low", TEXT, value=0.1), said("best", edited(50), value=0.9)),
        one(said("other", edited(3), value=0.5), said("far", "x")),
    )
    kept, dropped = run(NearDedup(), context(tmp_path), *groups)
    assert kept == ["best", "far"]
    assert dropped == [
        ("near duplicate in this group: Jaccard 0.90 with sample best", "low"),
        ("near duplicate in this round: Jaccard 0.83 with sample best", "other"),
    ]
    assert run(NearDedup(), context(tmp_path / "none"), one(said("a", TEXT), said("b", TEXT.upper() + ".")))[0] == ["a"], (
        "earlier among equals"
    )


def test_a_chain_is_not_swept_away_with_its_first_link(tmp_path: Path) -> None:
    links = [edited(*range(0, 5 * step, 5)) for step in range(6)]
    kept, dropped = run(NearDedup(), context(tmp_path), one(*(said(str(i), text) for i, text in enumerate(links))))
    assert kept == ["0", "3"], [reason for reason, _ in dropped]
    assert [(reason.split()[-1], item) for reason, item in dropped] == [("0", "1"), ("0", "2"), ("3", "4"), ("3", "5")]


def test_question_and_answer_must_both_agree(tmp_path: Path) -> None:
    kept, _ = run(
        NearDedup(),
        context(tmp_path),
        one(said("a", "Paris", TEXT), said("b", "London", TEXT)),
        one(said("c", "42", "What is six times seven?"), said("d", "42", "How many roads must a man walk down, in that book?")),
        one(said("e", f"17 + {TEXT} = 18"), said("f", f"17 - {TEXT} = 18"), said("g", "17 + 25 = 42"), said("h", "17 + 26 = 43")),
    )
    assert kept == ["a", "b", "c", "d", "e", "g", "h"], "only a long answer with one sign changed is near"


def test_failed_requests_and_empty_answers_stay(tmp_path: Path) -> None:
    empty = [said("e1", "", TEXT), said("e2", "", TEXT), failed(1), failed(2)]
    assert run(NearDedup(), context(tmp_path), one(*empty))[1] == []


def test_across_rounds_the_earlier_one_stays_and_dropped_ones_are_forgotten(tmp_path: Path) -> None:
    curator = NearDedup(against_real=False)
    assert run(curator, context(tmp_path), one(said("a", TEXT), said("b", edited(40))))[0] == ["a"]
    second = context(tmp_path, label="phase/0001")
    better = one(said("c", edited(60), value=1.0), said("d", edited(40, 42, 43)), said("e", edited(*range(0, 100, 9))))
    for _ in range(2):  # a round that is repeated after a crash does not meet itself
        assert run(curator, second, better) == (
            ["e"],
            [
                ("near duplicate of an earlier round: Jaccard 0.90 with sample a", "c"),
                ("near duplicate of an earlier round: Jaccard 0.85 with sample a", "d"),
            ],
        )
    third = run(curator, context(tmp_path, label="phase/0002"), one(said("f", edited(*range(0, 100, 9)))))
    assert third[1] == [("near duplicate of an earlier round: Jaccard 1.00 with sample e", "f")]
    assert run(NearDedup(across="round"), context(tmp_path, label="phase/0003"), better)[0] == ["c", "d", "e"], (
        "c and d are alike to a only"
    )


@pytest.mark.parametrize("shingles", ["word", "char"])
def test_copies_of_real_rows_are_memorised(tmp_path: Path, shingles: Any) -> None:
    real = (Example("r1", "", "something else altogether, said at some length"), Example("r2", "", TEXT))
    ctx = Context({}, NoPast(tmp_path, real), "phase/0000", 0, 0, lambda ctx, dialogues: iter(()))
    groups = one(said("own", "an answer of its own that nobody gave before"), said("copy", edited(99), value=1.0))
    assert run(NearDedup(shingles=shingles), ctx, groups) == (
        ["own"],
        [("memorised: Jaccard 0.98 with real row r2", "copy")],
    )
    assert run(NearDedup(shingles=shingles, against_real=False), ctx, groups)[1] == []


def jaccard(left: str, right: str, n: int) -> float:
    def sets(text: str) -> set[tuple[str, ...]]:
        spoken = text.split()
        return {tuple(spoken[i : i + n]) for i in range(len(spoken) - n + 1)} or {tuple(spoken)}

    a, b = sets(left), sets(right)
    return len(a & b) / len(a | b)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_greedy_rule_holds_over_exact_similarity(tmp_path: Path, data: st.DataObject) -> None:
    """With one-row bands no pair above the threshold is missed in practice: the outcome is that of comparing all pairs."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    texts: list[str] = []
    for _ in range(data.draw(st.integers(1, 8))):
        spoken = rng.choices("abcdefgh" if rng.random() < 0.3 else VOCABULARY, k=rng.randrange(1, 40))
        for _ in range(rng.randrange(1, 6)):
            texts.append(" ".join(spoken))
            spoken = [rng.choice(VOCABULARY) if rng.random() < 0.03 else word for word in spoken]
    rng.shuffle(texts)
    values = [rng.choice([0.0, 0.5, 1.0]) for _ in texts]
    expected: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: -values[i]):
        if all(jaccard(texts[i], texts[j], 2) < 0.3 for j in expected):
            expected.append(i)
    folder = tmp_path / str(rng.random())
    kept, dropped = run(
        NearDedup(threshold=0.3, n=2), context(folder), one(*(said(str(i), text, value=values[i]) for i, text in enumerate(texts)))
    )
    assert kept == [str(i) for i in sorted(expected)]
    for reason, item in dropped:
        keeper = reason.split()[-1]
        assert keeper in kept and jaccard(texts[int(item)], texts[int(keeper)], 2) >= 0.3 - 1e-9


def many(count: int, length: int) -> Iterator[Group]:
    rng = random.Random(5)
    for index in range(count):
        yield group(sample(" ".join(map(str, rng.choices(range(10**6), k=length))), index), prompt="p")


def test_memory_does_not_grow_with_the_texts_and_the_work_folder_goes(tmp_path: Path) -> None:
    def peak(length: int) -> int:
        tracemalloc.start()
        kept = sum(isinstance(item, Group) for item in NearDedup()(context(tmp_path / str(length)), many(2500, length)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert kept == 2500
        return found

    assert peak(200) < 1.3 * peak(50) + 16 * 2**20, "a batch of texts grows, the round does not"
    assert {path.name for path in tmp_path.rglob("near_dedup/*/*")} == {"round-phase-0000", "real"}


def test_an_abandoned_round_leaves_no_work_folder_and_no_index(tmp_path: Path) -> None:
    stream = NearDedup(against_real=False)(context(tmp_path), many(5, 10))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert list(tmp_path.rglob("near_dedup/*/*")) == []


def test_a_missed_planted_duplicate_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(shelf: Any, older: Any, scores: Any, threshold: float) -> Any:
        count = len(shelf)
        return near_dedup.Found(np.full(count, -1), np.full(count, -1), np.zeros(count))

    assert run(NearDedup(threshold=1.0), context(tmp_path), one(said("a", TEXT), said("b", TEXT)))[0] == ["a"]
    monkeypatch.setattr(near_dedup, "near_duplicates", blind)
    with pytest.raises(StageError, match="missed a planted duplicate"):
        run(NearDedup(), context(tmp_path), one(said("a", TEXT)))


def test_settings_that_mean_nothing_are_refused() -> None:
    for wrong in ({"threshold": 0.0}, {"threshold": 1.1}, {"n": 0}, {"shingles": "line"}):
        with pytest.raises(ConfigError, match="allowed"):
            NearDedup(**wrong)  # type: ignore[arg-type]


def test_a_subgroup_keeps_its_best_sample(tmp_path: Path) -> None:
    def of(subgroup: str | None, *samples: Sample) -> Group:
        return Group(Task("task", "prompt", subgroup=subgroup), samples)

    most = of("most", said("m", TEXT, value=1.0))
    few = of("few", said("f0", edited(50), value=0.2), said("f1", edited(51), value=0.4))
    kept, dropped = run(NearDedup(), context(tmp_path), most, few, of(None, said("none", edited(52))))
    assert kept == ["m", "f1"] and [item for _, item in dropped] == ["f0", "none"]
    assert run(NearDedup(), context(tmp_path, label="phase/0001"), few)[0] == [], "earlier rounds hold the subgroup already"
