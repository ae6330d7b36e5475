"""The claim at the end of a run: on fresh items, once, without the winner's curse."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import HELD_OUT, TASKS, Says, outcomes, phase, play, recipe, record

from outcross.engine.store import read_measurements
from outcross.errors import GuardError
from outcross.evaluate.pass_rate import PassRate
from outcross.generate.draw import Draw
from outcross.recipe import canonical
from outcross.report.intervals import paired
from outcross.report.read import summary
from outcross.types import Task
from outcross.verify.exact import Exact

FRESH = tuple(Task(f"{a}+{b}", f"{a}+{b}=", str(a + b)) for a in range(7, 10) for b in range(4))
FINAL = (PassRate(FRESH, Draw(n=8), Exact()),)


def test_first_and_last_champion_are_measured_once_on_items_that_no_gate_saw(tmp_path: Path) -> None:
    made = recipe(phase(rounds=2), final=FINAL)
    found = play(made, tmp_path / "a")
    first, last = (read_measurements(tmp_path / "a/final" / f"measurements{of}.parquet")["pass_rate"] for of in (".first", ""))
    assert set(first.items) == set(last.items) == {task.id for task in FRESH}
    change = paired(last, first)
    assert change is not None and change.low is not None
    verdict = summary(found).verdict.replace("\u00a0", " ")
    assert f"On fresh items, which no gate saw: pass rate {100 * first.mean:.1f} % → {100 * last.mean:.1f} %" in verdict
    assert verdict.endswith(" on 12 items.") and ", 95 % " in verdict
    before = record(tmp_path / "a")
    assert record(play(made, tmp_path / "a").root) == before == record(play(made, tmp_path / "b").root)


def test_without_a_promotion_the_claim_is_that_nothing_changed(tmp_path: Path) -> None:
    found = play(recipe(phase(rounds=1), final=FINAL, gate=Says("r")), tmp_path)
    assert outcomes(found) == ["refused"]
    assert "(0.0 points, 95 % 0.0 to 0.0)" in summary(found).verdict.replace("\u00a0", " ").replace("+", "")


@pytest.mark.parametrize(
    ("items", "message"),
    [(HELD_OUT, r"of bench\.final has a held-out identifier.*no gate sees"), (TASKS, r"task '.*' has a held-out identifier")],
)
def test_items_that_were_used_before_are_not_fresh(tmp_path: Path, items: tuple[Task, ...], message: str) -> None:
    with pytest.raises(GuardError, match=message):
        play(recipe(final=(PassRate(items, Draw(), Exact()),)), tmp_path)


def test_without_it_a_bench_is_what_it_was() -> None:
    assert "final" not in canonical(recipe().bench)
