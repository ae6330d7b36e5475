"""The record as a person wants it: the verdict sentence of every kind of ending, rounds, costs, disk use."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from records import FOUR, Builder, Level, Turnout

from outcross.engine.store import RunDir, write_json
from outcross.errors import StoreError
from outcross.estimates import Estimate
from outcross.report.intervals import mean_interval, paired
from outcross.report.read import disk_use, read_costs, summary
from outcross.report.tracks import Track
from outcross.report.verdict import Tally, sentence
from outcross.types import Measurement

GOOD = Turnout("promoted", Level(0.68, 2.30))
BAD = Turnout("refused", Level(0.20, 3.00))
EMPTY = Turnout("nothing learnt")
DATA = Turnout("data only")


def verdict(folder: Path, *turnouts: Turnout, planned: int | None = None, gated: bool = True, until: object = None) -> str:
    run = Builder(folder / "run", turnouts, planned=len(turnouts) if planned is None else planned, gated=gated, until=until).write()
    return summary(run).verdict.replace("\u00a0", " ")


def test_promoted_rounds_say_what_changed_and_what_did_not(tmp_path: Path) -> None:
    said = verdict(tmp_path, *FOUR)
    assert said == (
        "Promoted 2 of 4 rounds (1 refused, 1 learnt nothing); pass rate 43.5 % → 69.8 %, "
        "real loss 2.32 → 2.31 nats per token (no change shown, within its margin of 0.050), diversity entropy not below real (0.020 → 0.030 nats over real)."
    )


def test_a_worse_probe_is_called_worse(tmp_path: Path) -> None:
    said = verdict(tmp_path, Turnout("promoted", Level(0.68, 2.90, -0.6)))
    assert "Promoted 1 of 1 round; pass rate 43.5 % → 69.8 %, real loss worse, 2.32 → 2.9" in said
    assert "diversity entropy worse, 0.020 → −0.600" in said


def track(first: float, now: float, change: Estimate | None, *, unit: str = "share", higher: bool = True) -> Track:
    level = [Estimate(mean, mean - 0.01, mean + 0.01, 400) for mean in (first, now)]
    return Track("pass_rate", "quality", unit, higher, 0.05, level[0], level[1], change, ())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (track(0.4, 0.6, Estimate(0.2, 0.1, 0.3, 400)), "better"),
        (track(0.4, 0.6, Estimate(0.2, 0.1, 0.3, 400), higher=False), "worse"),
        (track(0.6, 0.4, Estimate(-0.2, -0.3, -0.1, 400), higher=False), "better"),
        (track(0.4, 0.42, Estimate(0.02, 0.01, 0.03, 400)), "better"),  # shown, although smaller than the margin
        (track(0.4, 0.38, Estimate(-0.02, -0.03, -0.01, 400)), "worse within margin"),
        (track(0.4, 0.36, Estimate(-0.04, -0.06, -0.02, 400)), "worse"),  # perhaps beyond the margin
        (track(0.4, 0.41, Estimate(0.01, -0.01, 0.03, 400)), "within margin"),
        (track(0.4, 0.4, Estimate(0.0, 0.0, 0.0, 400)), "unchanged"),
        (track(0.4, 0.42, Estimate(0.02, -0.06, 0.10, 400)), "unclear"),
        (track(0.4, 0.4, None), "unchanged"),
        (track(0.4, 0.5, None), "unclear"),
        # 0 is as good as real answers: falling from 0.6 to 0.1 over real is no loss, falling below it is
        (track(0.6, 0.1, Estimate(-0.5, -0.6, -0.4, 400), unit="nats over real"), "not below real"),
        (track(0.6, -0.2, Estimate(-0.8, -0.9, -0.7, 400), unit="nats over real"), "worse"),
        (track(-0.6, -0.2, Estimate(0.4, 0.3, 0.5, 400), unit="nats over real"), "better"),
        # a distance from real data is to be small
        (track(1.6, 9.0, Estimate(7.4, 7.0, 7.8, 400), unit="chi-squared over real", higher=False), "worse"),
        (track(1.6, 0.2, Estimate(-1.4, -1.6, -1.2, 400), unit="chi-squared over real", higher=False), "better"),
    ],
)
def test_a_finding_says_no_more_than_was_shown(found: Track, expected: str) -> None:
    assert found.verdict == expected


def test_the_margin_lies_on_the_worse_side_of_the_first_champion() -> None:
    assert track(0.4, 0.4, None).limit == pytest.approx(0.35) and track(2.3, 2.3, None, higher=False).limit == pytest.approx(2.35)
    assert [track(first, 0.0, None, unit="nats over real").limit for first in (0.6, -0.6)] == pytest.approx([-0.05, -0.65])


def test_a_change_too_wide_to_tell_is_not_called_unchanged() -> None:
    said = sentence(Tally(planned=1, promoted=1), [track(0.4, 0.42, Estimate(0.02, -0.06, 0.10, 400))])
    assert said.replace("\u00a0", " ") == "Promoted 1 of 1 round; pass rate 40.0 % → 42.0 % (no change shown, 95 % −6.0 to +10.0)."


@pytest.mark.parametrize(
    ("found", "said"),
    [
        # what was once called "worst group unchanged": a change of which no interval is known
        (track(0.133, 0.298, None), "pass rate 13.3 % → 29.8 % (the interval of the change is not known)"),
        (track(0.133, 0.298, Estimate(0.165, 0.10, 0.23, 60)), "pass rate 13.3 % → 29.8 %"),
        # what was once called "real loss unchanged": shown to be better by less than a wide margin
        (track(1.22, 0.84, Estimate(-0.38, -0.4, -0.36, 60), unit="nats", higher=False), "pass rate 1.22 → 0.840 nats"),
        (
            track(0.4, 0.41, Estimate(0.01, -0.01, 0.03, 400)),
            "pass rate 40.0 % → 41.0 % (no change shown, within its margin of 5.0 points)",
        ),
        (track(0.4, 0.38, Estimate(-0.02, -0.03, -0.01, 400)), "pass rate worse by less than its margin of 5.0 points, 40.0 % → 38.0 %"),
        (track(0.4, 0.4, Estimate(0.0, 0.0, 0.0, 400)), "pass rate unchanged at 40.0 %"),
        (
            Track("spread", "diversity", "nats over real", True, 0.05, Estimate(0.1, 0, 0.2, 9), Estimate(0, -0.2, 0.2, 9), None, ()),
            "spread 0.100 → 0.000 nats over real (not shown to be as varied as real, 95 % −0.200 to +0.200)",
        ),
    ],
)
def test_the_sentence_names_a_change_and_never_calls_it_unchanged(found: Track, said: str) -> None:
    assert sentence(Tally(planned=1, promoted=1), [found]).replace("\u00a0", " ") == f"Promoted 1 of 1 round; {said}."


@pytest.mark.parametrize(
    ("turnouts", "planned", "expected"),
    [
        (
            (BAD, BAD),
            2,
            "Promoted none of 2 rounds (2 refused); the first model still holds: pass rate 43.5 %, real loss 2.32 nats per token",
        ),
        ((BAD, EMPTY), 2, "Promoted none of 2 rounds (1 refused, 1 learnt nothing); the first model still holds"),
        ((EMPTY, EMPTY), 2, "Nothing to learn in any of 2 rounds; the first model still holds"),
        ((EMPTY,), 1, "Nothing to learn in the only round; the first model still holds"),
        ((DATA, DATA), 2, "Data only: 2 rounds made 31 kept samples, and no model was trained."),
        ((DATA, GOOD), 2, "Promoted 1 of 1 training round (1 data only); pass rate 43.5 % → 69.8 %"),
        ((), 4, "Unfinished: none of 4 planned rounds is complete yet."),
        ((GOOD, BAD), 4, "Unfinished, 2 of 4 rounds complete: promoted 1 of 2 rounds (1 refused); pass rate"),
    ],
)
def test_every_other_ending_has_its_sentence(tmp_path: Path, turnouts: tuple[Turnout, ...], planned: int, expected: str) -> None:
    assert verdict(tmp_path, *turnouts, planned=planned).startswith(expected)


def test_an_ungated_run_is_headed_so_once(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run", (GOOD, BAD), planned=2, gated=False).write()
    assert summary(run).verdict.startswith("Ungated: 1 of 2 rounds replaced the model unchecked (1 refused); pass rate")
    assert summary(run).headings == ("ungated",)
    headed = Builder(tmp_path / "headed", (GOOD,), gated=False, headings=("ungated: phase train promotes without a test",)).write()
    assert len(summary(headed).headings) == 1


def test_a_phase_that_reached_its_goal_early_is_finished(tmp_path: Path) -> None:
    assert verdict(tmp_path, GOOD, planned=4, until=["pass_rate", {"float": (0.6).hex()}]).startswith("Promoted 1 of 1 round;")
    assert verdict(tmp_path / "not", GOOD, planned=4, until=["pass_rate", {"float": (0.9).hex()}]).startswith("Unfinished")
    assert verdict(tmp_path / "loss", GOOD, planned=4, until=["real_loss", {"float": (2.5).hex()}]).startswith("Promoted")


def test_rounds_hold_the_numbers_of_the_record(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run").write()
    found = summary(run)
    assert [row.outcome for row in found.rounds] == ["promoted", "refused", "nothing learnt", "promoted"]
    for row, item in zip(found.rounds, run.rounds()):
        counts = {count["name"]: count for count in item.record["counts"]}
        assert (row.made, row.passed, row.kept) == (24, counts["exact"]["detail"]["pass"], counts["dedup"]["kept"])
        assert row.means == {name: value["candidate"] for name, value in item.record["measurements"].items()}
    assert found.rounds[1].reason == "real_loss is not shown to be non-inferior"
    assert found.taught == tuple(row.label for row in found.rounds)


def test_tracks_follow_the_champion_and_pair_its_change_by_items(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run").write()
    track = next(found for found in summary(run).tracks if found.probe == "pass_rate")
    first, last = Level(0.41).measurements()["pass_rate"], Level(0.68, 2.30, 0.03).measurements()["pass_rate"]
    differences = [b - a for a, b in zip(first.values, last.values)]
    mean = sum(differences) / len(differences)
    half = 1.966 * math.sqrt(sum((d - mean) ** 2 for d in differences) / 399 / 400)
    assert track.change is not None and track.change.mean == pytest.approx(mean)
    assert (track.change.low, track.change.high) == (pytest.approx(mean - half, abs=1e-4), pytest.approx(mean + half, abs=1e-4))
    held = [round(value.mean, 4) for value in track.held(summary(run).taught)]
    assert held == [0.435, 0.5575, 0.5575, 0.5575, 0.6975]
    assert [track.kind for track in summary(run).tracks] == ["quality", "fit", "diversity"]


def test_pairing_needs_common_items_and_equal_replicates() -> None:
    a = Measurement("p", ("x", "y", "z"), (1.0, 0.0, 1.0))
    b = Measurement("p", ("z", "y", "w"), (0.0, 0.0, 1.0))
    found = paired(a, b)
    assert found is not None and (found.mean, found.items) == (0.5, 2)
    assert paired(a, Measurement("p", ("q",), (1.0,))) is None
    shifted = tuple(value / 100 for value in range(101))
    one, two = Measurement("s", ("x",), (0.9,), tuple(v + 0.5 for v in shifted)), Measurement("s", ("x",), (0.4,), shifted)
    constant = paired(one, two)
    assert constant is not None and (constant.low, constant.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert paired(one, Measurement("s", ("x",), (0.4,), shifted[:50])) is None


def test_intervals_of_one_item_and_of_replicates() -> None:
    assert mean_interval(Measurement("p", ("x",), (0.4,))).low is None
    found = mean_interval(Measurement("p", ("x",), (0.5,), tuple(value / 1000 for value in range(1001))))
    assert (found.low, found.high) == (pytest.approx(0.025), pytest.approx(0.975))
    # Student's t with 9 degrees of freedom: 2.262
    found = mean_interval(Measurement("p", tuple(map(str, range(10))), tuple(float(value) for value in range(10))))
    assert found.high == pytest.approx(4.5 + 2.2622 * 3.02765 / math.sqrt(10), abs=1e-3)


def test_costs_add_up_over_attempts_and_pass_over_a_torn_line(tmp_path: Path) -> None:
    found = read_costs(Builder(tmp_path / "run").write())
    assert found.attempts == 2 and len(found.steps) == 16
    assert found.total.seconds == pytest.approx(4 * 50.0) and found.total.prompt_tokens == 4 * 4100
    assert found.total.completion_tokens == 4 * 2300 and found.total.rss_mb == 815.5


def test_disk_use_adds_up_to_the_bytes_on_disk(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run").write()
    (run.root / "responses.db").write_bytes(b"j" * 700)
    (run.root / "logs" / "attempt_1").mkdir(parents=True)
    (run.root / "logs" / "attempt_1" / "run.log").write_bytes(b"l" * 300)
    run.point("policy", run.root / "train/0003/model")
    used = disk_use(run)
    assert used["models"] == 4 * 5000 and used["journal"] == 700
    assert used["logs"] == 300 + (run.root / "metrics.jsonl").stat().st_size
    assert sum(used.values()) == sum(
        path.stat().st_size for path in run.root.rglob("*") if path.is_file() and not path.is_symlink() and "champion" not in path.parts
    )


def test_a_folder_that_is_no_run_and_a_damaged_record_say_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"manifest\.json does not exist"):
        summary(RunDir(tmp_path))
    run = Builder(tmp_path / "run", FOUR[:1]).write()
    record = json.loads((run.root / "train/0000/round.json").read_text())
    del record["outcome"]
    write_json(run.root / "train/0000/round.json", record)
    with pytest.raises(StoreError, match=r"round.json is damaged \(.*outcome"):
        summary(RunDir(run.root))
