"""What follows from alarms, in real runs: a higher floor, a stop, a rollback; each survives being killed and resumed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from test_cli import call
from toys import FREE, HELD_OUT, LEARN, PROBES, model, outcomes, phase, play, recipe, record

from outcross.cli.mix import mixture_of
from outcross.config.runfile import load
from outcross.engine.alarms import alarms_of
from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir, read_json
from outcross.engine.tables import rows_of
from outcross.engine.watch import Silent
from outcross.engine.what_if import stored
from outcross.errors import GuardError
from outcross.gate.monitors.alarms import Alarms, Rung
from outcross.recipe import Recipe, canonical
from outcross.report.html import write_report
from outcross.report.read import read_run, summary
from outcross.stages import Context, Role, Stage
from outcross.types import Decision, Ground, Measurement

LADDER = (Rung("note"), Rung("warn", 1.0), Rung("raise_real", 2.0), Rung("stop", 3.0), Rung("roll_back", 5.0))


@dataclass(frozen=True)
class ByDepth(Stage):
    """A probe of 100 items of which a model's generation alone decides how many are right."""

    levels: tuple[float, ...]
    margin: float = 0.1
    kind: ClassVar[Literal["quality"]] = "quality"
    ground: ClassVar[Ground] = "exact"
    roles: ClassVar[tuple[Role, ...]] = ("policy",)

    def __call__(self, ctx: Context, /) -> Measurement:
        right = round(100 * self.levels[min(ctx.model("policy").depth, len(self.levels) - 1)])
        items = (*(task.id for task in HELD_OUT), *(f"more{i}" for i in range(100 - len(HELD_OUT))))
        wrong = 10 + (90 - right)  # those at the end are wrong from the beginning, and those at the front fall
        return Measurement(self.name, items, tuple(float(wrong - 10 <= i < 90) for i in range(100)), unit="share")


def watched(*levels: float, rounds: int = 3, **more: Any) -> Recipe:
    fields = {"ladder": LADDER, "probes": (ByDepth(levels),), **more}
    return recipe(phase(rounds=rounds), alarms=Alarms(**fields))


def through(made: Recipe, root: Path, **options: Any) -> RunDir:
    """Play, and resume as often as alarms stop it."""
    for _ in range(6):
        with suppress(GuardError):
            return play(made, root, **options)
    raise AssertionError("it stops for ever")


def test_a_healthy_run_has_an_empty_list_and_is_otherwise_as_without_alarms(tmp_path: Path) -> None:
    found = play(watched(0.9), tmp_path / "a")
    plain = play(recipe(phase(rounds=3)), tmp_path / "b")
    assert [turn.record["moved"] for turn in found.rounds()] == [[], [], []]
    assert outcomes(found) == outcomes(plain)
    assert all("moved" not in turn.record for turn in plain.rounds())
    assert [turn.record["champion"] for turn in found.rounds()] == [turn.record["champion"] for turn in plain.rounds()]


def test_a_probe_that_the_gate_does_not_guard_is_measured_tested_and_shown(tmp_path: Path) -> None:
    found = play(watched(0.9, 0.75), tmp_path)
    turn = found.rounds()[0]
    (alarm,) = alarms_of(turn)
    assert alarm.probe == "by_depth" and alarm.action == "warn" and alarm.change == pytest.approx(-0.15)
    assert alarm.items == ("0+0", "0+4", "1+3") and alarm.rows == ("0+0=", "0+4=", "1+3=")  # held-out sums, by their texts
    assert turn.record["measurements"]["by_depth"]["candidate"] == pytest.approx(0.75)
    assert outcomes(found) == ["promoted"] * 3  # a warning is no refusal
    assert any(line.startswith("alarm in train/0000 (warn): by_depth fell by 15.0 points") for line in summary(found).headings)
    assert {track.probe for track in summary(found).tracks} >= {"by_depth", *(probe.name for probe in PROBES)}


def test_it_looks_at_refused_rounds_too(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class No(Stage):
        alpha: float = 0.0

        def __call__(self, comparison: Any, margins: Any, /) -> Decision:
            return Decision(False, "no", self.name, gated=False)

    made = recipe(phase(rounds=2), alarms=Alarms(ladder=LADDER, probes=(ByDepth((0.9, 0.7)),)), gate=No())
    found = play(made, tmp_path)
    assert outcomes(found) == ["refused"] * 2
    assert [alarms_of(turn)[0].rounds for turn in found.rounds()] == [1, 2]


def test_the_floor_of_real_data_rises_in_the_rounds_that_follow_and_no_higher_than_its_limit(tmp_path: Path) -> None:
    found = play(watched(0.9, 0.65, rounds=4, step=0.15, most=0.75), tmp_path)
    required = [turn.record["mixtures"]["policy"]["required"] for turn in found.rounds()]
    assert required == pytest.approx([0.5, 0.65, 0.75, 0.75])
    shares = [turn.record["mixtures"]["policy"]["real_share"]["tokens"] for turn in found.rounds()]
    assert all(share >= floor - 1e-9 for share, floor in zip(shares, required, strict=True))


def test_where_the_floor_was_waived_there_is_nothing_to_raise(tmp_path: Path) -> None:
    made = recipe(phase(rounds=2, mix=FREE), alarms=Alarms(ladder=LADDER, probes=(ByDepth((0.9, 0.65)),)))
    (alarm,) = alarms_of(play(made, tmp_path).rounds()[0])
    assert alarm.action == "warn" and alarm.reason.endswith("there is no floor of real data to raise")


def test_it_stops_after_a_complete_record_promotes_nothing_and_goes_on_when_resumed(tmp_path: Path) -> None:
    made = watched(0.9, 0.9, 0.55)
    with pytest.raises(GuardError, match=r"alarm: by_depth fell by 35\.0 points .* `outcross resume .*` goes on"):
        play(made, tmp_path / "a")
    stopped = RunDir(tmp_path / "a")
    assert outcomes(stopped) == ["promoted", "refused"]
    decision = stopped.rounds()[1].decision
    assert decision is not None and decision.reason.startswith("alarm: by_depth fell") and "The gate said: round 1" in decision.reason
    through(made, tmp_path / "a")
    through(made, tmp_path / "b")
    assert record(tmp_path / "a") == record(tmp_path / "b")
    assert outcomes(stopped) == ["promoted", "refused", "refused"]


# ── rollback ───────────────────────────────────────────────────────────────────────────────────────────────────────────
BAD = (0.9, 0.9, 0.75, 0.2)  # good, warned of, ruined


def test_it_rolls_back_to_the_last_champion_that_raised_no_warning(tmp_path: Path) -> None:
    made = watched(*BAD, rounds=5)
    with pytest.raises(GuardError, match="rolled back to train/0000, without train/0001"):
        play(made, tmp_path)
    found = RunDir(tmp_path)
    turns = found.rounds()
    assert [turn.record["outcome"] for turn in turns] == ["promoted", "promoted", "refused"]
    assert turns[2].record["rolled_back"] == {"to": "train/0000", "rounds": ["train/0001"]}
    assert [turn.promoted for turn in turns] == [True, False, False]
    assert found.champion() == (tmp_path / "train/0000/model").resolve()
    made_there = {row["id"] for name in ("groups", "drops", "examples") for row in rows_of(turns[1].folder / f"{name}.parquet")}
    assert found.tombstones() == made_there and len(made_there) > 0

    with suppress(GuardError):
        play(made, tmp_path)
    later = found.rounds()[3]
    fit = later.record["fits"]["policy"]
    assert fit["start"] == turns[0].record["champion"]["policy"]["id"]
    learnt_from = {part["round"] for part in later.record["mixtures"]["policy"]["parts"]}
    assert "train/0001" not in learnt_from and "train/0000" in learnt_from
    assert later.record["mixtures"]["policy"]["required"] > 0.5  # each rung includes those before it


def test_without_a_good_champion_the_first_model_holds_again(tmp_path: Path) -> None:
    made = watched(0.9, 0.75, 0.2, rounds=4)
    with pytest.raises(GuardError, match="rolled back to start"):
        play(made, tmp_path)
    found = RunDir(tmp_path)
    assert found.champion() == (tmp_path / "start/model").resolve()
    with suppress(GuardError):
        play(made, tmp_path)
    assert found.rounds()[2].record["fits"]["policy"]["start"] == found.manifest["models"]["policy"]["id"]


def test_the_last_good_champion_outlives_the_pruning_of_models(tmp_path: Path) -> None:
    with pytest.raises(GuardError):
        play(watched(*BAD, rounds=4), tmp_path, keep_models="champion")
    found = RunDir(tmp_path)
    assert found.champion() == (tmp_path / "train/0000/model").resolve() and (tmp_path / "train/0000/model").is_dir()


class Killed(Silent):
    """Killed when the record of the round is complete, and before anything follows from it."""

    def __init__(self, label: str) -> None:
        self.label = label

    def decided(self, round: str, outcome: str, decision: Decision | None, /) -> None:
        if round == self.label:
            raise KeyboardInterrupt


@pytest.mark.parametrize("label", ["train/0001", "train/0002", "train/0003"])
def test_a_run_that_is_killed_around_a_rollback_ends_as_one_that_is_not(tmp_path: Path, label: str) -> None:
    made = watched(*BAD, rounds=4)
    for _ in range(6):
        with suppress(GuardError, KeyboardInterrupt):
            run(made, {"policy": model()}, tmp_path / "a", seed=3, watch=Killed(label), options=Options())
    through(made, tmp_path / "b")
    assert record(tmp_path / "a") == record(tmp_path / "b")
    assert read_json(tmp_path / "a/train/0001/rolled_back.json") == {"by": "train/0002"}


def test_the_report_tells_of_it(tmp_path: Path) -> None:
    found = through(watched(*BAD, rounds=3), tmp_path)
    reading = read_run(found)
    assert [item.outcome for item in reading.rounds] == ["promoted", "rolled back", "refused"]
    assert "rolled back in train/0002 to train/0000: train/0001 undone" in reading.summary.headings
    assert reading.summary.tally.promoted == 1 and reading.summary.tally.refused == 2
    write_report([found], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Alarms: what is shown to be worse" in text and "The champion returned to train/0000" in text


def test_alarms_are_part_of_a_recipe_s_identity_and_none_are_none_of_it() -> None:
    assert "alarms" not in canonical(recipe().bench) and "alarms" in canonical(watched(0.9).bench)


def test_a_run_file_names_alarms_their_ladder_and_further_probes(tmp_path: Path) -> None:
    assert call("init", str(tmp_path))[0] == 0
    path = tmp_path / "run.yaml"
    plain = load(path).recipe.make()
    assert plain.bench.alarms is None
    text = path.read_text(encoding="utf-8")
    probe = "{use: diversity, statistic: distinct, margin: 0.05, label: wild, generator: {use: draw, n: 1}}"
    more = (
        f"  alarms: {{use: alarms, alpha: 0.01, ladder: [{{action: note}}, {{action: stop, margins: 2, rounds: 2}}], probes: [{probe}]}}\n"
    )
    path.write_text(text.replace("bench:\n", f"bench:\n{more}"), encoding="utf-8")
    found = load(path).recipe.make().bench.alarms
    assert isinstance(found, Alarms) and found.alpha == 0.01 and found.ladder == (Rung("note"), Rung("stop", 2.0, 2))
    assert [item.name for item in found.probes] == ["diversity_distinct_wild"]
    path.write_text(text.replace("bench:\n", "bench:\n  alarms: alarms\n"), encoding="utf-8")
    assert load(path).recipe.make().bench.alarms == Alarms()


def test_mixtures_of_before_a_rollback_are_made_again_as_they_were(tmp_path: Path) -> None:
    found = through(watched(*BAD, rounds=5), tmp_path)
    assert any(turn.undone for turn in found.rounds())
    made = list(stored(found))
    assert len(made) == 5
    for item in made:
        item.check(item.deal(mixture_of(item))[1])


def test_the_models_that_a_rollback_goes_back_to_stay_on_disk_for_every_role(tmp_path: Path) -> None:
    """The last good round taught the judge; the policy of that time is an older one, and both are what is gone back to."""
    judge = phase("b", learn={"judge": LEARN}, rounds=1)
    probe = ByDepth((0.9, 0.9, 0.9, 0.75, 0.2))
    made = recipe(phase("a", rounds=2), judge, phase("c", rounds=2), alarms=Alarms(ladder=LADDER, probes=(probe,)))
    models = {"policy": model(), "judge": model()}
    with pytest.raises(GuardError, match=r"rolled back to b/0000, without c/0000"):
        play(made, tmp_path, models, keep_models="champion")
    found = RunDir(tmp_path)
    assert found.champion() == (tmp_path / "a/0001/model").resolve() and (tmp_path / "a/0001/model").is_dir()
    assert [path.parent.name for path in sorted(tmp_path.glob("a/*/model"))] == ["0001"]
