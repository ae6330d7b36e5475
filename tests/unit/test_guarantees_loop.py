"""What a run promotes, what it learns from, where it stops and how it goes on."""

from __future__ import annotations

import ast
import contextlib
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from toys import (
    FREE,
    HELD_OUT,
    LEARN,
    MIX,
    PLAN,
    REAL,
    AnyLoss,
    Judge,
    Says,
    model,
    outcomes,
    phase,
    play,
    recipe,
    with_loss,
)

import outcross
from outcross.engine.budget import Budget
from outcross.engine.recall import recall
from outcross.engine.store import RoundDir, RunDir
from outcross.engine.tables import rows_of
from outcross.errors import BudgetReached, ConfigError, StageError, StoreError
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.recipe import Learn
from outcross.types import Comparison, Decision
from outcross.verify.exact import Exact

SOURCE = Path(outcross.__file__).parent


def mixture(turn: RoundDir) -> list[dict[str, Any]]:
    return list(rows_of(turn.folder / "mixture.parquet"))


# ── promotion ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_model_becomes_the_champion_by_a_recorded_decision_and_not_otherwise(tmp_path: Path) -> None:
    found = play(recipe(phase(rounds=4), gate=Says("rppr")), tmp_path)
    assert outcomes(found) == ["refused", "promoted", "promoted", "refused"]
    assert [turn.decision and turn.decision.reason for turn in found.rounds()] == ["round 0", "round 1", "round 2", "round 3"]
    assert (tmp_path / "champion").readlink() == Path("train/0002/model")
    starts = [turn.record["fits"]["policy"]["start"] for turn in found.rounds()]
    made = [turn.record["fits"]["policy"]["model"] for turn in found.rounds()]
    assert starts == [model().id, model().id, made[1], made[2]]
    assert model().load(tmp_path / "champion").id == made[2] == found.rounds()[2].record["champion"]["policy"]["id"]


def test_only_the_loop_moves_the_champion() -> None:
    movers = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "point":
                movers.add(path.relative_to(SOURCE).as_posix())
    assert movers == {"engine/loop.py"}


def test_a_champion_that_is_not_what_was_promoted_is_refused(tmp_path: Path) -> None:
    made = recipe(phase(rounds=1))
    play(made, tmp_path)
    shutil.rmtree(tmp_path / "train/0000/model")
    shutil.copytree(tmp_path / "start/model", tmp_path / "train/0000/model")
    with pytest.raises(StoreError, match=r"train/0000/model holds the model tabular:\w+, and the record of train/0000 promoted tabular:"):
        play(made, tmp_path)
    (tmp_path / "train/0000/round.json").unlink()
    with pytest.raises(StoreError, match=r"train/0000/model holds the model tabular:\w+, and tabular:\w+ was fitted there"):
        play(made, tmp_path)


@dataclass(frozen=True)
class Notes(Says):
    """Refuses nothing and hands what it was given to `seen`."""

    seen: Any = None

    def __call__(self, comparison: Comparison, margins: Any, /) -> Decision:
        self.seen.told.append(comparison)
        return Decision(True, "noted", "notes", alpha_spent=0.01, gated=False)


class Seen:
    def __init__(self) -> None:
        self.told: list[Comparison] = []

    def identity(self) -> str:
        return "seen"


def test_a_gate_compares_with_the_champion_of_now_and_the_first_on_the_same_items(tmp_path: Path) -> None:
    """Also where a later phase has probes of its own, which no champion was measured by when it was promoted."""
    seen = Seen()
    own = RealLoss(REAL[:6], label="own")
    made = recipe(phase(rounds=2), phase("second", probes=(own,), rounds=2), gate=Notes(alpha=0.0, seen=seen))
    found = play(made, tmp_path)
    one, two, three, four = seen.told
    assert one.champion == one.first and two.champion == one.candidate and two.first == one.first
    assert four.champion == three.candidate and four.first == three.first
    late = model().load(tmp_path / "train/0001/model")  # the champion when the second phase began
    again = play(recipe(phase("alone", probes=(own,), rounds=1), gate=Says("r")), tmp_path / "alone", {"policy": late})
    first = play(recipe(phase("alone", probes=(own,), rounds=1), gate=Says("r")), tmp_path / "first")
    expected = [pq.read_table(run.start / "measurements.parquet")["values"][0].as_py() for run in (again, first)]
    assert [list(three.champion["real_loss_own"].values), list(three.first["real_loss_own"].values)] == expected
    assert expected[0] != expected[1]
    assert [told.alpha_left for told in seen.told] == [0.0] * 4 and [told.round for told in seen.told] == [0, 1, 2, 3]
    assert {told.rounds for told in seen.told} == {4} and found.rounds()[2].record["measurements"].keys() == {"real_loss_own"}


def test_alpha_that_was_spent_is_not_there_any_more(tmp_path: Path) -> None:
    seen = Seen()
    play(recipe(phase(rounds=3), gate=Notes(alpha=0.025, seen=seen)), tmp_path)
    assert [told.alpha_left for told in seen.told] == pytest.approx([0.025, 0.015, 0.005])


def test_a_probe_names_its_measurement(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="probe another gave a measurement called"):
        play(recipe(probes=(_Renamed(HELD_OUT, Draw(n=1), Exact()),)), tmp_path)


@dataclass(frozen=True)
class _Renamed(PassRate):
    @property
    def name(self) -> str:
        return "another"

    def __call__(self, ctx: Any, /) -> Any:
        return replace_probe(super().__call__(ctx))


def replace_probe(found: Any) -> Any:
    return type(found)("pass_rate", found.items, found.values)


# ── nothing learnt ─────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("mix", [MIX, FREE, replace(MIX, budget=20)], ids=["floor", "waived", "budget"])
def test_a_round_with_nothing_to_learn_promotes_nothing(mix: Any, tmp_path: Path) -> None:
    """Also where there would be real rows to fit."""
    wrong = Scripted(["99"])
    found = play(recipe(phase(generate=Draw(n=2, role="writer"), mix=mix)), tmp_path, {"policy": model(), "writer": wrong})
    assert outcomes(found) == ["nothing learnt", "nothing learnt"]
    for turn in found.rounds():
        assert turn.record["decision"] is None and turn.record["fits"] == {} and turn.record["champion"] == {}
        assert not (turn.folder / "model").exists() and not turn.promoted
    assert (tmp_path / "champion").readlink() == Path("start/model")


# ── what is learnt from ────────────────────────────────────────────────────────────────────────────────────────────────
def test_history_holds_promoted_rounds_and_never_refused_ones(tmp_path: Path) -> None:
    first, second, third = play(recipe(phase(rounds=3, mix=FREE), gate=Says("prp")), tmp_path).rounds()
    ids = [{row["id"] for row in rows_of(turn.folder / "examples.parquet")} for turn in (first, second, third)]
    assert all(ids)
    found: Counter[str] = Counter()
    for row in mixture(third):
        found[row["source"]] += 1
        assert row["id"] in {"new": ids[2], "history": ids[0], "real": {row.id for row in REAL}}[row["source"]]
        assert row["id"] not in ids[1]
    assert found == {"new": len(ids[2]), "history": len(ids[0]), "real": len(REAL)}


def test_a_stage_begins_where_the_last_promoted_round_left_off(tmp_path: Path) -> None:
    """What a refused round kept is not called a duplicate in the next: it was never learnt."""
    first, second, third = play(recipe(phase(rounds=3), gate=Says("prp")), tmp_path).rounds()
    sizes = [sorted(path.name for path in (turn.folder / "state" / "dedup").iterdir()) for turn in (first, second, third)]
    assert sizes == [["train-0000.u64"], ["train-0000.u64", "train-0001.u64"], ["train-0000.u64", "train-0002.u64"]]


@pytest.mark.parametrize(("loss", "kept"), [("pg", False), ("nll", True)])
def test_policy_gradient_examples_never_enter_history(loss: str, kept: bool, tmp_path: Path) -> None:
    taught = {"policy": Learn(with_loss(loss), PLAN)}
    made = recipe(phase(rounds=2, learn=taught, mix=FREE))
    first, second = play(made, tmp_path, {"policy": AnyLoss([str(i) for i in range(13)])}).rounds()
    assert {example.loss.name for example in first.examples()} == {loss}
    assert {row["source"] for row in mixture(first)} == {"new", "real"}
    assert ("history" in {row["source"] for row in mixture(second)}) == kept


@pytest.mark.parametrize("floor", [0.3, 0.5, 0.7, 0.9])
def test_the_optimiser_sees_the_floor_of_real_rows_by_records_and_by_tokens(floor: float, tmp_path: Path) -> None:
    """Counted again from what was written: mixture.parquet, order.parquet and the examples themselves."""
    known = model()
    tokens = {row.id: known.count_tokens(row.prompt) + known.count_tokens(row.completion) for row in REAL}
    for turn in play(recipe(phase(rounds=3, mix=replace(MIX, real_floor=floor))), tmp_path).rounds():
        tokens |= {row["id"]: row["n_tokens"] for row in rows_of(turn.folder / "examples.parquet")}
        rows = mixture(turn)
        for sizes in (dict.fromkeys(tokens, 1), tokens):
            seen = [(row["source"] == "real", row["repeats"] * row["weight"] * sizes[row["id"]]) for row in rows]
            assert sum(size for is_real, size in seen if is_real) >= floor * sum(size for _, size in seen) > 0
        assert max(row["repeats"] for row in rows if row["source"] == "real") <= MIX.real_epochs
        offered = Counter({row["id"]: 2 * row["repeats"] for row in rows})  # two epochs
        assert Counter(row["id"] for row in rows_of(turn.folder / "order.parquet")) == offered
        share = turn.record["mixtures"]["policy"]["real_share"]
        assert share["records"] >= floor and share["tokens"] == pytest.approx(floor, abs=0.05)  # the shorter rows bind


# ── recall ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def two_verifiers() -> Any:
    """The second phase is checked by `judge` too, and the next learns its rows from history; `built` learns none of them and starts
    from the model that did, `fresh` from the first model."""
    alone: dict[str, Any] = {"mix": replace(FREE, history="replace"), "rounds": 1}
    return recipe(
        phase("before", rounds=1),
        phase("judged", verify=(Exact(), Judge(ground="exact")), rounds=1),
        phase("after", rounds=1),
        phase("built", **alone),
        phase("fresh", learn={"policy": replace(LEARN, start="first")}, **alone),
    )


def test_recall_names_exactly_what_a_verifier_touched(tmp_path: Path) -> None:
    found = play(two_verifiers(), tmp_path, unsafe=True)
    judged = found.rounds()[1]
    samples = {row["id"] for name in ("groups", "drops") for row in rows_of(judged.folder / f"{name}.parquet") if row["scores"]}
    examples = {row["id"] for row in rows_of(judged.folder / "examples.parquet")}
    told = recall(found, "judge")
    assert (set(told.samples), set(told.examples), told.rounds) == (samples, examples, ("judged/0000",))
    assert told.models == ("judged/0000/model", "after/0000/model", "built/0000/model")
    seen = [{row["id"] for row in rows_of(turn.folder / "order.parquet")} & examples for turn in found.rounds()]
    assert list(map(bool, seen)) == [False, True, True, False, False]
    every = recall(found, "exact")
    assert every.rounds == ("before/0000", "judged/0000", "after/0000", "built/0000", "fresh/0000") and len(every.models) == 5
    assert recall(found, "judge", before="1").samples == () and recall(found, "judge", before="2") == told
    assert not (tmp_path / "tombstones").exists()
    with pytest.raises(ConfigError, match="never used the verifier 'judg'; did you mean 'judge'"):
        recall(found, "judg")


def test_every_score_carries_its_verifiers_version(tmp_path: Path) -> None:
    verify = (Exact(), Judge(ground="exact", version="2.1"))
    (turn,) = play(recipe(phase(verify=verify, rounds=1)), tmp_path).rounds()
    assert turn.record["verifiers"] == {"exact": {"version": "1", "ground": "exact"}, "judge": {"version": "2.1", "ground": "exact"}}
    for row in rows_of(turn.folder / "groups.parquet"):
        assert [(score["verifier"], score["version"]) for score in row["scores"]] == [("exact", "1"), ("judge", "2.1")]


def stop_after(made: Any, root: Path, done: str, **options: Any) -> RunDir:
    """Run until the file `done` is there, and stop soon after."""
    for requests in range(60, 2000, 20):
        shutil.rmtree(root, ignore_errors=True)
        with contextlib.suppress(BudgetReached):
            play(made, root, budget=Budget(requests=requests), **options)
        if (root / done).exists():
            return RunDir(root)
    raise AssertionError(done)


def test_tombstoned_rows_are_in_no_later_mixture(tmp_path: Path) -> None:
    made = recipe(phase(rounds=2, mix=FREE))
    plain = mixture(play(made, tmp_path / "plain").rounds()[1])
    stopped = stop_after(made, tmp_path / "run", "train/0000/round.json")
    first = stopped.rounds()[0]
    buried = sorted(example.id for example in first.examples())[::2]
    parents = {example.origin.parents[0] for example in first.examples() if example.id in buried}
    stopped.bury(sorted(parents), {"review": "wrong"})
    rows = mixture(play(made, tmp_path / "run").rounds()[1])
    ids = {row["id"] for row in rows if row["source"] == "history"}
    assert ids and ids == {row["id"] for row in plain if row["source"] == "history"} - set(buried)
    assert [row["id"] for row in rows_of(first.folder / "examples.parquet") if row["id"] in buried] != []  # stored all the same


def test_records_tombstoned_between_mixing_and_fitting_are_not_fitted(tmp_path: Path) -> None:
    """A run that was stopped there writes its mixture anew, so that the record says what the optimiser saw."""
    made = recipe(phase(rounds=2, mix=FREE))
    found = play(made, tmp_path)
    second = found.rounds()[1]
    for name in ("round.json", "measurements.parquet", "order.parquet", "steps/fit.json"):  # as a run killed before the fit leaves it
        (second.folder / name).unlink()
    shutil.rmtree(second.folder / "model")
    gone = next(found.rounds()[0].examples()).id
    RunDir(tmp_path).bury([gone], {"review": "wrong"})
    second = play(made, tmp_path).rounds()[1]
    assert gone not in {row["id"] for row in mixture(second)} | {row["id"] for row in rows_of(second.folder / "order.parquet")}
    assert {row["id"] for row in mixture(second)} == {row["id"] for row in rows_of(second.folder / "order.parquet")}
    assert second.record["mixtures"]["policy"]["tombstones"] == 1


def test_what_is_buried_is_no_past_either(tmp_path: Path) -> None:
    from outcross.engine.past import Recorded

    found = play(recipe(phase(rounds=1)), tmp_path)
    past = Recorded(found, tuple(found.rounds()), (), tmp_path)
    task = next(past.groups()).task.id
    sample = next(group for group in past.groups() if group.task.id == task).samples[0].id
    before = len(past.outcomes(task))
    found.bury([sample], {"review": "wrong"})
    past = Recorded(found, tuple(found.rounds()), (), tmp_path)
    assert sample not in {item.id for group in past.groups() for item in group.samples}
    assert len(past.outcomes(task)) == before - 1
