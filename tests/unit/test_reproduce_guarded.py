"""The guards on trial: text lineages through the whole engine, and how lineages are read that are refused, stopped or rolled back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_reproduce_text import data  # noqa: F401
from test_rollback import watched
from toys import model, phase, recipe

from outcross.engine.store import RunDir
from outcross.engine.watch import Silent
from outcross.errors import GuardError
from outcross.recipe import Mixture, Recipe
from outcross.reproduce import text
from outcross.reproduce.guarded import GUARD_CLAIMS, WIKI, GuardedLineage, Varied, prevented
from outcross.reproduce.lineage import Course, Place, live, stopped
from outcross.stages import Context, Model, Role
from outcross.types import Completion, Group, Measurement, Origin, Sample, Task, Turn

SMALL = dataclasses.replace(text.WIKI_REPLACE, rows=24, held_out=4, rounds=2)


# ── lineages that are judged ───────────────────────────────────────────────────────────────────────────────────────────
def test_what_the_gate_refuses_never_holds(data: Path, tmp_path: Path) -> None:  # noqa: F811
    """Of four items the gate can show nothing, so that the first model holds; without a gate the same rounds are promoted and differ from it."""
    place = Place(data, tmp_path, 3)
    guarded, floored = (live(GuardedLineage(SMALL, judged, 4), place, Silent())["real_loss"] for judged in (True, False))
    assert len(guarded.measured) == len(floored.measured) == 3
    assert len(set(guarded.means)) == 1 and guarded.means[0] == floored.means[0]
    assert len(set(floored.means)) == 3
    turns = RunDir(tmp_path / GuardedLineage(SMALL).name).rounds()
    assert [turn.record["outcome"] for turn in turns] == ["refused", "refused"]
    assert "moved" in turns[0].record  # the alarms looked at it


def test_the_guarded_lineage_learns_mostly_real_rows_in_as_many_steps(data: Path, tmp_path: Path) -> None:  # noqa: F811
    floored = GuardedLineage(SMALL, False, 4)
    live(floored, Place(data, tmp_path, 3), Silent())
    turn = RunDir(tmp_path / floored.name).rounds()[-1]
    mixed = turn.record["mixtures"]["policy"]
    assert mixed["real_share"]["records"] >= 0.7 and mixed["real_share"]["tokens"] >= 0.7
    assert mixed["records"] == SMALL.rows and mixed["new"] > 0 and mixed["history"] > 0


@dataclasses.dataclass(frozen=True)
class Toy:
    """A lineage of toy models whose probe falls by their generation alone."""

    made: Recipe
    name: str = "toy"
    about: str = ""
    files: tuple[str, ...] = ()
    seconds: float = 1.0

    def plan(self, place: Place, /) -> tuple[Recipe, Mapping[Role, Model]]:
        return self.made, {"policy": model()}


def test_a_lineage_that_an_alarm_rolls_back_ends_with_the_model_that_holds(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path, 3)
    lived = live(Toy(watched(0.9, 0.9, 0.75, 0.3, rounds=4)), place, Silent())["by_depth"]
    assert stopped(tmp_path / "toy")
    assert lived.means == pytest.approx(
        [0.9, 0.9, 0.75, 0.9]
    )  # the third generation is undone, and so is the second, which raised a warning
    again = live(Toy(watched(0.9, 0.9, 0.75, 0.3, rounds=4)), place, Silent())["by_depth"]
    assert again.means == pytest.approx(lived.means)


def test_a_plan_that_is_refused_is_no_end_of_a_lineage(tmp_path: Path) -> None:
    bad = Toy(recipe(phase(mix=Mixture(real_floor=2.0))))
    with pytest.raises(GuardError, match="refused before anything was spent"):
        live(bad, Place(tmp_path, tmp_path, 3), Silent())


# ── what is read of them ───────────────────────────────────────────────────────────────────────────────────────────────
def test_the_check_passes_what_says_no_three_words_twice() -> None:
    texts = {"a b c d e": "pass", "a b c x a b c": "fail", "a a a a": "fail", "a b": "fail", "a b a b": "pass"}
    samples = tuple(Sample(said, (Turn("p", Completion(said, finished=False)),), Origin("synthetic")) for said in texts)
    (group,) = Varied()(Context({}, None, "r", 0, 0, None), [Group(Task("t", "p"), samples)])  # type: ignore[arg-type]
    assert [sample.verdict for sample in group.samples] == list(texts.values())


def test_what_is_prevented_is_the_rise_without_guards_less_the_rise_with_them() -> None:
    def course(values: list[list[float]]) -> Course:
        items = tuple(map(str, range(len(values[0]))))
        return Course(tuple(Measurement("real_loss", items[: len(row)], tuple(row), higher_is_better=False, unit="nats") for row in values))

    bare = dataclasses.replace(SMALL, held_out=2)
    guarded = GuardedLineage(bare, held_out=3)
    lived = {bare.name: {"real_loss": course([[1.0, 2.0], [2.0, 4.0]])}, guarded.name: {"real_loss": course([[1, 1, 1], [1.5, 1.5, 9]])}}
    found, error = prevented(bare, guarded)(lived)
    assert found == pytest.approx(((1.0 - 0.5) + (2.0 - 0.5)) / 2)  # over the two items that both have
    assert error == pytest.approx(math.sqrt(0.5) / math.sqrt(2))


def test_claims_are_directions_and_pair_a_lineage_with_the_same_under_guards() -> None:
    assert {claim.kind for claim in GUARD_CLAIMS} == {"direction"} and len({claim.name for claim in GUARD_CLAIMS}) == len(GUARD_CLAIMS)
    for claim in GUARD_CLAIMS[:4]:
        bare, guarded = claim.lineages
        assert isinstance(guarded, GuardedLineage) and guarded.bare == bare and guarded.name == f"{bare.name}-guarded"
    assert WIKI.files == text.WIKI_REPLACE.files
