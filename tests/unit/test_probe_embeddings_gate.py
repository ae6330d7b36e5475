"""Probes over vectors and of subgroups on models that answer, up to the gate."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers import context

from outcross.errors import ConfigError, StageError
from outcross.evaluate.coverage import Coverage, Statistic
from outcross.evaluate.mauve import Mauve
from outcross.evaluate.subgroups import SubgroupShares, WorstGroup, halves_of_groups, rates_by_group
from outcross.evaluate.vendi import Vendi, of_vectors
from outcross.gate.evidence import weigh
from outcross.generate.draw import Draw
from outcross.models.hashed_embedder import flat_embedder, hashed_embedder
from outcross.stages import Context, Model, Stage
from outcross.types import Array, Completion, Content, Example, Group, Measurement, Origin, Request, Response, Task
from outcross.verify.exact import Exact

ITEMS = 200
TASKS = tuple(Task(f"t{index}", f"question {index}") for index in range(ITEMS))
TOPICS = [[f"{topic}{word}" for word in range(9)] for topic in ("sea", "law", "art", "war", "tea", "sun", "box", "car", "dog", "ion")]


@dataclass
class Speaker:
    """Answers `question i` with what `say` gives for i; None fails."""

    say: Callable[[int], Content | None]
    asked: int = 0
    depth: int = 0
    id: str = "speaker"

    def close(self) -> None: ...
    def flush(self) -> None: ...

    def submit(self, request: Request, /) -> Future[Response]:
        self.asked += 1
        said, answer = self.say(int(str(request.prompt).split()[-1])), Future[Response]()
        answer.set_result(Response(error="timed out") if said is None else Response((Completion(said),) * request.n))
        return answer


def sentence(rng: random.Random, topics: int = 10, noise: int = 0) -> str:
    strange = [f"{rng.random()}"[2:8] for _ in range(noise)]
    return " ".join([*rng.choices(TOPICS[rng.randrange(topics)], k=10 - noise), *strange])


def texts(seed: int, topics: int = 10, noise: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [sentence(rng, topics, noise) for _ in range(ITEMS)]


def speaker(said: Sequence[Content | None]) -> Speaker:
    return Speaker(lambda index: said[index])


def real(said: Iterable[Content], **fields: Any) -> tuple[Example, ...]:
    return tuple(Example(f"r{i}", "", content, origin=Origin("real", "attested"), **fields) for i, content in enumerate(said))


def measure(probe: Any, said: Sequence[Content | None], folder: Path, embedder: Model | None = None) -> Measurement:
    found: Measurement = probe(context(folder, {"policy": speaker(said), "embedder": embedder or hashed_embedder()}))
    return found


def topic(content: Content) -> str | None:
    return str(content)[:3] if str(content)[:3].isalpha() else None


REAL = real(texts(0))
SAME, DROPPED, NOISY = texts(1), texts(2, topics=6), texts(3, noise=5)


def coverage(statistic: Statistic, **more: Any) -> Coverage:
    return Coverage(TASKS, Draw(n=1), statistic, REAL, **more)


def error(found: Measurement) -> float:
    return float(np.std(found.replicates or (), ddof=1))


@pytest.mark.parametrize("statistic", ["coverage", "recall", "density", "precision"])
def test_answers_of_the_real_law_are_as_good_as_real_and_lost_modes_and_noise_are_told_apart(statistic: Statistic, tmp_path: Path) -> None:
    probe = coverage(statistic)
    same, dropped, noisy = (measure(probe, said, tmp_path) for said in (SAME, DROPPED, NOISY))
    assert same.unit == f"{'density' if statistic == 'density' else 'share'} over real" and same.items == dropped.items == tuple(
        task.id for task in TASKS
    )
    assert abs(same.values[0]) < 3 * error(same)
    worse, harmless = (dropped, noisy) if statistic in ("coverage", "recall") else (noisy, dropped)
    if statistic != "coverage":  # noise that far from everything covers nothing either
        assert harmless.values[0] > -0.1
    assert weigh(worse, same, 0.05).low < -0.25
    assert weigh(same, worse, 0.05).low > 0, "and the other way round it is shown to be better"


@pytest.mark.parametrize(
    "probe", [Vendi(TASKS, Draw(n=1), REAL), Vendi(TASKS, Draw(n=1), REAL, embedder=""), Mauve(TASKS, Draw(n=1), REAL)]
)
def test_lost_modes_are_refused_and_the_same_law_is_not(probe: Any, tmp_path: Path) -> None:
    same, other, dropped = (measure(probe, said, tmp_path) for said in (SAME, texts(5), DROPPED))
    assert weigh(dropped, same, 0.05).low < -probe.margin < weigh(other, same, 0.05).estimate
    assert abs(same.values[0] - other.values[0]) < 4 * error(same)


def test_the_vendi_probe_is_the_logarithm_of_the_ratio_of_two_scores(tmp_path: Path) -> None:
    found = measure(Vendi(TASKS, Draw(n=1), REAL, order=2.0), DROPPED, tmp_path)
    rows = [np.array(list(hashed_embedder().embed(said))) for said in (DROPPED, [str(row.completion) for row in REAL])]  # type: ignore[attr-defined]
    every = np.ones((1, ITEMS), dtype=bool)
    assert found.values[0] == pytest.approx(of_vectors(rows[0], every, 2.0)[0] - of_vectors(rows[1], every, 2.0)[0], abs=1e-5)
    assert found.unit == "nats over real"


@pytest.mark.parametrize("kind", [Coverage, Vendi, Mauve])
def test_answers_that_are_arrays_are_compared_by_a_model_of_arrays(kind: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def arrays(size: int, law: float = 1.0) -> list[Content]:
        return [Array("<f8", (3,), (rng.normal(size=3) * [law, 1, 1]).tobytes()) for _ in range(size)]

    probe = kind(TASKS[:100], Draw(n=1), reference=real(arrays(100)))
    same, flat = (measure(probe, arrays(100, law), tmp_path, flat_embedder()) for law in (1.0, 0.001))
    assert flat.values[0] < same.values[0]
    with pytest.raises(ConfigError, match="flat_embedder"):
        measure(Vendi(TASKS[:100], Draw(n=1), real(arrays(100)), embedder=""), arrays(100), tmp_path)


@pytest.mark.parametrize("probe", [coverage("recall"), coverage("density"), Vendi(TASKS, Draw(n=1), REAL), Mauve(TASKS, Draw(n=1), REAL)])
def test_a_few_answers_may_fail_and_the_measurement_stays_paired(probe: Any, tmp_path: Path) -> None:
    whole = measure(probe, SAME, tmp_path)
    some = measure(probe, [None if index % 25 == 3 else said for index, said in enumerate(SAME)], tmp_path)
    assert some.items == whole.items and len(some.replicates or ()) == len(whole.replicates or ())
    assert math.isfinite(weigh(some, whole, 0.05).low) and abs(some.values[0] - whole.values[0]) < 0.12
    with pytest.raises(StageError, match="could not measure 20 of 200"):
        measure(probe, [None if index % 10 == 3 else said for index, said in enumerate(SAME)], tmp_path)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (coverage("coverage", k=190), "190 neighbours of 200 points"),
        (Coverage(TASKS, Draw(n=1)), "has 0; give its tasks answers"),
        (Coverage(TASKS, Draw(n=1), reference=REAL[:150]), "compares 200 answers with real ones and has 150"),
        (coverage("recall", embedder="policy"), "does not embed"),
        (Vendi(TASKS, Draw(n=1), REAL, order=0.0), "order is 0.0"),
        (Vendi(TASKS * 11, Draw(n=1), REAL * 11, embedder=""), "at most 2,000"),
        (Mauve(TASKS, Draw(n=1), REAL, buckets=1), "into 1 cells"),
        (SubgroupShares(TASKS, Draw(n=1), REAL, topic, least=500), "expected 500 times"),
        (WorstGroup(TASKS, Draw(n=1), Exact()), "no subgroup has 20 tasks"),
    ],
)
def test_bad_input_fails_before_anything_is_asked(probe: Any, message: str, tmp_path: Path) -> None:
    model = speaker(SAME)
    with pytest.raises(ConfigError, match=message):
        probe(context(tmp_path, {"policy": model, "embedder": hashed_embedder()}))
    assert model.asked == 0


def test_names_roles_and_kinds_tell_the_probes_of_a_bench_apart() -> None:
    probes = [
        coverage("coverage"),
        coverage("density", label="images"),
        Vendi(TASKS, Draw()),
        Vendi(TASKS, Draw(), embedder="", label="words"),
    ]
    assert [probe.name for probe in probes] == ["coverage", "density_images", "vendi", "vendi_words"]
    assert [probe.roles for probe in probes] == [("policy", "embedder")] * 3 + [("policy",)]
    assert [probe.kind for probe in probes] == ["diversity", "fit", "diversity", "diversity"]
    assert dict(probes[0].calls(7)) == {"policy": 7}


# ── subgroups ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def spoken(shares: dict[str, int]) -> list[str]:
    return [f"{name} {index}" for name, count in shares.items() for index in range(count)]


def test_the_share_of_the_group_that_fared_worst_is_held_against_its_real_share(tmp_path: Path) -> None:
    probe = SubgroupShares(TASKS, Draw(n=1), real(spoken({"sea": 500, "law": 400, "art": 100})), topic)
    found = measure(probe, spoken({"sea": 120, "law": 75, "art": 5}), tmp_path)
    assert found.values == (pytest.approx(5 / 200 / 0.1 - 1),) and found.unit == "share over real"
    assert measure(probe, spoken({"sea": 120, "law": 80}), tmp_path).values == (-1.0,)
    assert measure(probe, spoken({"sea": 100, "law": 80, "art": 20}), tmp_path).values == (pytest.approx(0.0),)
    assert measure(probe, spoken({"sea": 50, "law": 40, "art": 10, "123": 100}), tmp_path).values == (pytest.approx(0.0),), (
        "no group: no count"
    )
    assert measure(probe, spoken({"sea": 50, "law": 40, "art": 10, "new": 100}), tmp_path).values == (pytest.approx(-0.5),), (
        "a new group: counts"
    )


def test_a_group_too_rare_to_be_measured_is_not_looked_at_and_labels_of_real_rows_are_not_mixed_with_it(tmp_path: Path) -> None:
    """A label that `group` never gives would make every answer's group look lost."""
    rows = (*real(spoken({"sea": 970}), subgroup="water"), *real(spoken({"art": 30})))
    found = measure(SubgroupShares(TASKS, Draw(n=1), rows, topic), spoken({"sea": 200}), tmp_path)
    assert found.values[0] == pytest.approx(1 / 0.97 - 1)


def test_a_group_that_is_lost_is_refused_and_chance_alone_is_not(tmp_path: Path) -> None:
    probe = SubgroupShares(TASKS, Draw(n=1), REAL, topic)
    champion, same, lost = (measure(probe, texts(seed, topics), tmp_path) for seed, topics in ((1, 10), (5, 10), (6, 9)))
    assert lost.values == (-1.0,) and weigh(lost, champion, 0.05).low < -probe.margin
    assert weigh(same, champion, 0.05).estimate > -probe.margin


GROUPED = tuple(
    Task(f"g{index}", f"question {index}", "right", subgroup=("many", "many", "many", "few")[index % 4]) for index in range(ITEMS)
)


def right(share_of_many: int, share_of_few: int) -> list[Content | None]:
    """Answers with so many in ten right, by group."""
    return ["right" if (index // 4) % 10 < (share_of_few if index % 4 == 3 else share_of_many) else "wrong" for index in range(ITEMS)]


def test_the_worst_group_is_measured_and_a_gain_elsewhere_does_not_hide_its_loss(tmp_path: Path) -> None:
    probe = WorstGroup(GROUPED, Draw(n=2), Exact())
    before, after = measure(probe, right(7, 7), tmp_path), measure(probe, right(10, 4), tmp_path)
    assert before.values == (pytest.approx(0.7),) and after.values == (pytest.approx(0.4),)
    verdict = weigh(after, before, 0.05)
    assert verdict.estimate == pytest.approx(-0.3) and verdict.low < -probe.margin
    assert weigh(before, before, 0.05).low == 0.0 and before.items == tuple(task.id for task in GROUPED)


def test_its_error_is_that_of_the_smaller_group(tmp_path: Path) -> None:
    rng = random.Random(0)
    said = ["right" if rng.random() < (0.4 if index % 4 == 3 else 0.95) else "wrong" for index in range(ITEMS)]
    found = measure(WorstGroup(GROUPED, Draw(n=1), Exact()), said, tmp_path)
    (share,) = found.values
    assert error(found) == pytest.approx(math.sqrt(share * (1 - share) / 50), rel=0.2)


def test_groups_too_small_and_tasks_of_none_are_left_out_and_items_without_a_verdict_count_for_nothing(tmp_path: Path) -> None:
    more = (*GROUPED, *(Task(f"x{index}", f"question {index}", "never", subgroup="tiny" if index % 2 else None) for index in range(20)))
    assert measure(WorstGroup(more, Draw(n=1), Exact()), right(9, 6), tmp_path).values == (pytest.approx(0.6),)
    some = [None if index in (3, 7) else said for index, said in enumerate(right(9, 6))]
    assert measure(WorstGroup(GROUPED, Draw(n=1), Exact()), some, tmp_path).values == (pytest.approx(28 / 48),)
    with pytest.raises(StageError, match="could not measure 50 of 200"):
        measure(WorstGroup(GROUPED, Draw(n=1), Exact()), [None if index % 4 == 3 else "right" for index in range(ITEMS)], tmp_path)


def test_each_half_holds_half_of_each_group_and_rates_are_those_inside_it() -> None:
    items, groups = [f"i{index}" for index in range(60)], ["a" if index % 3 else "b" for index in range(60)]
    halves = halves_of_groups(items, groups, 9)
    first = np.array([group == "a" for group in groups])
    assert halves[0].all() and set(halves[1:, first].sum(axis=1)) == {20} and set(halves[1:, ~first].sum(axis=1)) == {10}
    values = [float(index % 5 == 0) if index != 6 else math.nan for index in range(60)]
    rates = rates_by_group(values, groups, halves)
    for row, half in enumerate(halves):
        inside = [values[index] for index in np.flatnonzero(half & ~first) if index != 6]
        assert rates["b"][row] == pytest.approx(np.mean(inside))


def test_of_a_reference_only_as_many_rows_as_tasks_are_read(tmp_path: Path) -> None:
    class Endless:
        def __iter__(self) -> Iterator[Example]:
            while True:
                yield from REAL

    found = Mauve(TASKS, Draw(n=1), Endless())(context(tmp_path, {"policy": speaker(SAME), "embedder": hashed_embedder()}))
    assert 0 < found.values[0] <= 1


@dataclass(frozen=True)
class Shuffled(Stage):
    """A generator that gives the groups in another order, or only some of them."""

    keep: int = ITEMS
    roles: ClassVar[tuple[str, ...]] = ("policy",)

    def calls(self, tasks: int, /) -> dict[str, int]:
        return {"policy": tasks}

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        yield from reversed(list(Draw(n=1)(ctx, tasks))[-self.keep :])


def test_answers_are_counted_for_the_group_of_their_task_in_whatever_order_they_come(tmp_path: Path) -> None:
    found = measure(WorstGroup(GROUPED, Shuffled(), Exact()), right(9, 4), tmp_path)
    assert found == measure(WorstGroup(GROUPED, Draw(n=1), Exact()), right(9, 4), tmp_path)
    with pytest.raises(StageError, match="200 tasks were asked and 150 came back"):
        measure(WorstGroup(GROUPED, Shuffled(150), Exact()), right(9, 4), tmp_path)
