"""Between two stages nothing is lost, doubled, reordered or altered, and nothing held out comes along: whatever a stage does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toys import ATTESTED, FREE, HELD_OUT, PLAN, TASKS, Bent, Judge, Says, model, outcomes, phase, play, recipe

from outcross.curate.dedup import Dedup
from outcross.engine.conserve import Counter
from outcross.engine.tables import rows_of
from outcross.errors import GuardError, OutcrossError, StageError
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.recipe import Learn
from outcross.stages import Context, Stage
from outcross.text import HeldOutIndex
from outcross.train.objectives import Imitate
from outcross.types import Completion, Drop, Example, Group, Sample, Score, Task, Turn
from outcross.verify.exact import Exact

change = msgspec.structs.replace
LONG = "the quick brown fox jumps over the lazy dog while seven wise owls watch from above"


def stopped(root: Path, kind: type[OutcrossError] = StageError, **fields: Any) -> str:
    """The message of a run that a stage stops; no model was made of what it gave."""
    with pytest.raises(kind) as caught:
        play(recipe(phase(**fields)), root)
    assert not list(root.glob("train/*/model")) and not list(root.glob("train/*/round.json"))
    assert not list(root.glob("**/*.tmp"))
    return str(caught.value)


def other_text(sample: Sample) -> Sample:
    return change(sample, turns=(Turn(sample.turns[0].prompt, Completion("99")),))


@dataclass(frozen=True)
class EditOne:
    """Change the first answered sample of the third group."""

    edit: Callable[[Sample], Sample]

    def __call__(self, items: list[Any]) -> list[Any]:
        third = items[2]
        return [*items[:2], change(third, samples=(self.edit(third.samples[0]), *third.samples[1:])), *items[3:]]


def lose(items: list[Any]) -> list[Any]:
    return [*items[:2], *items[3:]]


def lose_last(items: list[Any]) -> list[Any]:
    return items[:-1]


def double(items: list[Any]) -> list[Any]:
    return [*items[:3], items[2], *items[3:]]


def swap(items: list[Any]) -> list[Any]:
    return [items[1], items[0], *items[2:]]


def lose_a_sample(items: list[Any]) -> list[Any]:
    return [change(item, samples=item.samples[1:]) if i == 2 else item for i, item in enumerate(items)]


def double_a_sample(items: list[Any]) -> list[Any]:
    return [change(item, samples=(*item.samples, item.samples[0])) if i == 2 else item for i, item in enumerate(items)]


def other_task(items: list[Any]) -> list[Any]:
    return [change(item, task=change(item.task, answer="0")) if i == 2 else item for i, item in enumerate(items)]


def unscored(sample: Sample) -> Sample:
    return change(sample, scores=())


def unversioned(sample: Sample) -> Sample:
    return change(sample, scores=tuple(change(score, version="") for score in sample.scores))


def forged(sample: Sample) -> Sample:
    return change(sample, origin=ATTESTED)


def explode(items: list[Any]) -> list[Any]:
    raise ZeroDivisionError("by nothing")


# ── each kind of stage, each kind of damage ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("how", [lose, lose_last, double, swap, double_a_sample, explode], ids=lambda how: how.__name__)
def test_a_generator_gives_one_group_a_task_in_order(how: Any, tmp_path: Path) -> None:
    assert "generate draw" in stopped(tmp_path, generate=Bent(how, Draw(n=6)))


BAD_VERIFIERS = {
    **{how.__name__: how for how in (lose, lose_last, double, swap, lose_a_sample, double_a_sample, other_task, explode)},
    **{edit.__name__: EditOne(edit) for edit in (other_text, unscored, unversioned, forged)},
}


@pytest.mark.parametrize("how", BAD_VERIFIERS.values(), ids=BAD_VERIFIERS)
def test_a_verifier_only_adds_scores(how: Any, tmp_path: Path) -> None:
    told = stopped(tmp_path, verify=(Bent(how, Exact()),))
    ways = ("changed or out of order", "was lost", "without a score of 'exact'", "has no version", "raised ZeroDivisionError")
    assert told.startswith("verify exact") and any(way in told for way in ways)


def test_a_verifier_keeps_the_scores_of_those_before_it(tmp_path: Path) -> None:
    def forget(items: list[Any]) -> list[Any]:
        return [change(item, samples=tuple(change(s, scores=s.scores[-1:]) for s in item.samples)) for item in items]

    told = stopped(tmp_path, verify=(Exact(), Bent(forget, Judge(ground="exact"))))
    assert "verify judge" in told and "only add scores" in told


def test_a_verifier_does_not_score_a_failed_request(tmp_path: Path) -> None:
    def score_all(items: list[Any]) -> list[Any]:
        found = Score("exact", "1", "pass", 1.0)
        return [change(item, samples=tuple(change(s, scores=(found,)) if s.error else s for s in item.samples)) for item in items]

    def script(request: Any) -> Any:
        return "1" if request.prompt != TASKS[1].prompt else ()  # an empty list of texts: the script raises

    made = recipe(phase(learn={}, verify=(Bent(score_all, Exact()),)))
    with pytest.raises(StageError, match="only add scores"):
        play(made, tmp_path, {"policy": Scripted(script, name="one fails")})


BAD_CURATORS = {
    **{how.__name__: how for how in (lose, lose_last, double, lose_a_sample, double_a_sample, other_task, explode)},
    **{edit.__name__: EditOne(edit) for edit in (other_text, unscored, forged)},
}


@pytest.mark.parametrize("how", BAD_CURATORS.values(), ids=BAD_CURATORS)
def test_a_curator_lets_each_sample_out_once_as_it_came(how: Any, tmp_path: Path) -> None:
    told = stopped(tmp_path, curate=(Bent(how),))
    ways = ("left twice or never came in", "never came out", "came back changed", "raised ZeroDivisionError")
    assert told.startswith("curate bent") and any(way in told for way in ways)


def test_a_curator_may_reorder_split_and_drop(tmp_path: Path) -> None:
    def whole(items: list[Any]) -> list[Any]:
        first, *rest = reversed(items)
        one = Group(first.task, first.samples[:1])
        return [*rest, one, Drop(Group(first.task, first.samples[1:]), "bent", "spare: one is enough")]

    turn = play(recipe(phase(curate=(Bent(whole),), rounds=1)), tmp_path).rounds()[0]
    counts = next(line for line in turn.record["counts"] if line["name"] == "bent")
    assert (counts["in"], counts["dropped"], counts["detail"]) == (6 * len(TASKS), 5, {"spare": 5})
    assert [(row["curator"], row["reason"]) for row in rows_of(turn.folder / "drops.parquet")] == [("bent", "spare: one is enough")] * 5


def no_parents(items: list[Any]) -> list[Any]:
    return [change(item, origin=change(item.origin, parents=())) for item in items]


def strange_parents(items: list[Any]) -> list[Any]:
    return [change(item, origin=change(item.origin, parents=("f" * 32,))) for item in items]


@pytest.mark.parametrize("how", [no_parents, strange_parents, explode], ids=lambda how: how.__name__)
def test_an_objective_says_which_samples_its_examples_came_from(how: Any, tmp_path: Path) -> None:
    assert "learn imitate:policy" in stopped(tmp_path, learn={"policy": Learn(Bent(how, Imitate()), PLAN)})


def test_an_objective_cannot_learn_from_failed_requests_or_what_is_held_out(tmp_path: Path) -> None:
    def ask_held_out(items: list[Any]) -> list[Any]:
        return [change(items[0], prompt=HELD_OUT[2].prompt), *items[1:]]

    def say_held_out(items: list[Any]) -> list[Any]:
        return [*items[:3], change(items[3], completion=f" {HELD_OUT[2].prompt}\n")]

    for number, how in enumerate((ask_held_out, say_held_out)):
        told = stopped(tmp_path / str(number), GuardError, learn={"policy": Learn(Bent(how, Imitate()), PLAN)})
        assert "equals a held-out prompt; nothing held out may be learnt" in told


@dataclass(frozen=True)
class FromFailures(Stage):
    """An objective that makes an example of every sample, answered or not."""

    uses_peers: bool = False

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Example]:
        for group in groups:
            for sample in group.samples:
                yield Example(sample.id, group.task.prompt, "1", origin=change(sample.origin, parents=(sample.id,)))


def test_failed_requests_are_counted_and_never_learnt_from(tmp_path: Path) -> None:
    failing = {task.prompt for task in TASKS[:4]}
    models = {"policy": model(), "writer": Scripted(lambda request: str(eval(str(request.prompt).rstrip("="))), failing, name="adds")}
    fields: dict[str, Any] = {"generate": Draw(n=1, role="writer"), "rounds": 1}
    counts = play(recipe(phase(**fields)), tmp_path / "fine", models).rounds()[0].record["counts"]
    assert [line["failed"] for line in counts] == [4, 4, 0, 0, 4]
    with pytest.raises(StageError, match="examples were made of failed requests"):
        play(recipe(phase(**fields, learn={"policy": Learn(FromFailures(), PLAN)})), tmp_path / "bad", models)


def test_a_counter_that_does_not_add_up_stops_the_round() -> None:
    Counter("curate", "any", into=6, kept=3, dropped=2, failed=1).close()
    with pytest.raises(StageError, match=r"6 came in, 3 kept \+ 1 dropped \+ 1 failed came out"):
        Counter("curate", "any", into=6, kept=3, dropped=1, failed=1).close()


# ── counts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_in_is_kept_dropped_and_failed_at_every_stage_and_the_tables_hold_as_many(tmp_path: Path) -> None:
    for turn in play(recipe(), tmp_path).rounds():
        lines = turn.record["counts"]
        assert [line["stage"] for line in lines] == ["generate", "verify", "curate", "curate", "learn"]
        for line in lines:
            assert line["in"] == line["kept"] + line["dropped"] + line["failed"]
        kept = [line["in"] - line["dropped"] for line in lines]
        assert all(line["in"] == before for line, before in zip(lines[1:], kept, strict=False))
        groups, drops, examples = (sum(1 for _ in rows_of(turn.folder / f"{name}.parquet")) for name in ("groups", "drops", "examples"))
        assert (groups, drops, examples) == (lines[-1]["in"], lines[2]["dropped"] + lines[3]["dropped"], lines[-1]["kept"])
        assert groups + drops == 6 * len(TASKS)


# ── decontamination ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_answers_that_repeat_a_held_out_item_are_set_aside_even_if_a_recipe_forgets(tmp_path: Path) -> None:
    said = {task.prompt: "1" for task in TASKS}
    said[TASKS[0].prompt] = f"  {HELD_OUT[1].prompt} "
    said[TASKS[1].prompt] = f"Once, {LONG.upper()}!"
    said[TASKS[2].prompt] = " ".join(LONG.split()[:12])
    made = recipe(phase(generate=Draw(n=1), learn={}, verify=(), curate=(), rounds=1), held_out=(*HELD_OUT, Task("long", LONG, "yes")))
    turn = play(made, tmp_path, {"policy": Scripted(said)}).rounds()[0]
    dropped = {row["task_id"]: row["reason"] for row in rows_of(turn.folder / "drops.parquet")}
    assert dropped.keys() == {TASKS[0].id, TASKS[1].id}
    assert dropped[TASKS[0].id] == "held out: equals a held-out prompt"
    assert "held out: shares the 13-gram “the quick brown" in dropped[TASKS[1].id]
    kept = {row["task_id"] for row in rows_of(turn.folder / "groups.parquet")}
    assert kept == {task.id for task in TASKS[2:]}
    assert turn.record["counts"][1]["detail"] == {"held out": 2}


def test_a_generator_that_makes_its_own_tasks_of_held_out_items_teaches_nothing_of_them(tmp_path: Path) -> None:
    def stolen(items: list[Any]) -> list[Any]:
        return [change(items[0], task=change(items[0].task, prompt=HELD_OUT[0].prompt)), *items[1:]]

    turn = play(recipe(phase(generate=Bent(stolen, Draw(n=6)), verify=(), learn={}, rounds=1)), tmp_path).rounds()[0]
    assert {row["task_id"] for row in rows_of(turn.folder / "drops.parquet") if row["curator"] == "decontaminate"} == {TASKS[0].id}


def test_thirteen_words_in_common_are_too_many_and_twelve_are_not() -> None:
    index = HeldOutIndex([LONG])
    words = LONG.split()
    assert index.match(" ".join(["so", *words[1:14], "then"])) is not None
    assert index.match(" ".join(["so", *words[1:13], "then"])) is None


# ── a round is all or nothing ──────────────────────────────────────────────────────────────────────────────────────────
def test_a_stage_that_fails_in_the_second_round_leaves_the_first_as_it_was_and_can_be_repaired(tmp_path: Path) -> None:
    class Broken(Exception):
        pass

    calls = []

    def sometimes(items: list[Any]) -> list[Any]:
        calls.append(1)
        if len(calls) == 2:
            raise Broken("the sandbox is gone")
        return items

    with pytest.raises(StageError, match=r"curate bent raised Broken: the sandbox is gone\. What was complete is kept"):
        play(recipe(phase(curate=(Bent(_Calls(sometimes)), Dedup()))), tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "train/0000/round.json").exists() and not (tmp_path / "train/0001/groups.parquet").exists()
    found = play(recipe(phase(curate=(Bent(_Calls(sometimes)), Dedup()))), tmp_path)  # type: ignore[arg-type]
    assert outcomes(found) == ["promoted", "promoted"]


@dataclass(frozen=True)
class _Calls:
    """A callable with an identity of its own, since a function that captures has none."""

    function: Any

    def identity(self) -> str:
        return "calls"

    def __call__(self, items: list[Any]) -> list[Any]:
        return list(self.function(items))


def test_a_probe_or_gate_that_fails_promotes_nothing(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Fails(Says):
        def __call__(self, comparison: Any, margins: Any, /) -> Any:
            raise ZeroDivisionError("no items")

    @dataclass(frozen=True)
    class Nods(Says):
        def __call__(self, comparison: Any, margins: Any, /) -> Any:
            return True

    for name, gate, told in (("fails", Fails(), "the gate raised ZeroDivisionError"), ("nods", Nods(), "is no Decision")):
        with pytest.raises(StageError, match=told):
            play(recipe(phase(mix=FREE), gate=gate), tmp_path / name)
        assert (tmp_path / name / "champion").readlink() == Path("start/model")
        assert not (tmp_path / name / "train/0000/round.json").exists()
