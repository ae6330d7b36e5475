"""Recipes that learn from feedback, end to end through the engine at toy scale: guarded and as in their papers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from feedback import COMPARISONS, HELD_OUT_PAIRS, REAL, REWARD, SLOW, bench, compared, knowing, learnt, played, proven, track
from msgspec.structs import replace
from toys import record

from outcross.engine.examined import least
from outcross.engine.guards import check_bench, check_floor, check_plan
from outcross.engine.store import RunDir, suffix
from outcross.engine.what_if import stored
from outcross.errors import DataError, GuardError, StoreError
from outcross.evaluate.preference import PairAccuracy
from outcross.gate.non_inferior import NonInferior
from outcross.gate.open import Open
from outcross.models.tabular import Tabular
from outcross.models.tabular_reward import TabularReward
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.recipes.d_rlaif import d_rlaif
from outcross.recipes.iterative_dpo import iterative_dpo
from outcross.recipes.rlaif import rlaif
from outcross.recipes.rlhf import rlhf
from outcross.recipes.sppo import sppo
from outcross.stages import FitPlan, Model, Seen
from outcross.tasks.pairs import Pairs
from outcross.train.objectives import Prefer
from outcross.types import Example, Loss, Measurement, Origin, Sampling
from outcross.verify.judge_pointwise import PointwiseJudge

DRAW = Sampling(1.0, max_tokens=4)
STRONG = FitPlan(lr=3.0, epochs=4, batch=32, schedule="constant")
PEOPLE: dict[str, Any] = {"comparisons": COMPARISONS, "held_out_pairs": HELD_OUT_PAIRS, "reward_plan": REWARD, "draw": DRAW}
MADE: dict[str, Callable[..., Recipe]] = {
    "sppo": lambda of, mix: sppo(of, rounds=3, beta=0.2, plan=FitPlan(lr=0.05, epochs=4, batch=8, schedule="constant"), mix=mix),
    "iterative_dpo": lambda of, mix: iterative_dpo(of, rounds=3, beta=1.0, plan=SLOW, mix=mix),
    "d_rlaif": lambda of, mix: d_rlaif(of, rounds=3, n=8, plan=STRONG, mix=mix),
    "rlaif": lambda of, mix: rlaif(of, **PEOPLE, rounds=3, n=8, plan=STRONG, mix=mix),
    "rlhf": lambda of, mix: rlhf(of, **PEOPLE, rounds=3, n=8, plan=STRONG, mix=mix),
}


@dataclass(frozen=True)
class Dropped:
    """Rows that are no more."""

    def __iter__(self) -> Iterator[Example]:
        return iter(())


@pytest.mark.parametrize("mix", ["guarded", "paper"])
@pytest.mark.parametrize("name", MADE)
def test_a_method_raises_the_pass_rate_that_its_judge_never_sees(name: str, mix: str, tmp_path: Path) -> None:
    found = played(MADE[name](bench(), mix), tmp_path)
    assert all(turn.record["outcome"] == "promoted" for turn in found.rounds())
    rates = track(found, "pass_rate")
    assert rates[-1] > rates[0] + 0.1
    last = found.rounds()[-1].record["mixtures"]["policy"]
    headed = any("waived in phase" in line for line in found.manifest["headings"])
    assert last["floor"].startswith("waived") == (last["real"] == 0) == headed == (mix == "paper")


@pytest.mark.parametrize("name", ["sppo", "rlaif"])
def test_the_gate_decides_on_what_the_judge_never_sees_and_on_people_s_comparisons(name: str, tmp_path: Path) -> None:
    found = played(MADE[name](bench(gate=NonInferior(alpha=0.4, minimum_items=20)), "guarded"), tmp_path)
    for turn in found.rounds():
        assert turn.decision is not None and turn.decision.gated
        names = {check.probe for check in turn.decision.checks}
        assert names == ({"pair_accuracy"} if turn.phase == "reward" else {"pass_rate", "diversity_entropy", "real_loss"})
    first = found.rounds()[0]
    assert first.record["outcome"] == "promoted" and (first.record["fits"].keys() == {"reward"}) == (name == "rlaif")


def test_win_rates_of_earlier_rounds_are_not_learnt_again_and_pairs_are(tmp_path: Path) -> None:
    """A win rate is against the policy of its round."""
    seen = {
        name: played(MADE[name](bench(), "guarded"), tmp_path / name).rounds()[-1].record["mixtures"]["policy"]
        for name in ("sppo", "iterative_dpo")
    }
    assert seen["sppo"]["history"] == 0 < seen["iterative_dpo"]["history"]


# ── proofs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_judge_teaches_without_unsafe_once_a_proof_shows_that_it_helps(tmp_path: Path) -> None:
    made = d_rlaif(bench(), rounds=1, n=8, plan=STRONG)
    models: dict[str, Model] = {"policy": learnt(), "judge": knowing()}
    with pytest.raises(GuardError, match="nothing shows that selection by it beats no filter"):
        played(made, tmp_path / "refused", models, unsafe=False)
    proof = proven(PointwiseJudge(), models, models["policy"], tmp_path)
    found = played(made, tmp_path / "run", models, unsafe=False, proofs=(proof,))
    assert found.rounds()[0].promoted and not any("unproven" in line for line in found.manifest["headings"])


def test_a_reward_model_that_the_run_teaches_is_examined_by_the_run(tmp_path: Path) -> None:
    """No proof from outside can exist for it: held-out comparisons of people decide, before the policy learns."""
    made = MADE["rlhf"](bench(), "guarded")
    found = played(made, tmp_path / "run", unsafe=False)
    assert [turn.phase for turn in found.rounds()] == ["reward", "policy", "policy", "policy"] and not any(
        "unproven" in line for line in found.manifest["headings"]
    )
    assert any(
        "unproven verifier" in line for line in played(made, tmp_path / "unsafe").manifest["headings"]
    )  # nothing is held against it then


def test_the_policy_learns_nothing_from_a_reward_model_that_is_not_shown_to_beat_chance(tmp_path: Path) -> None:
    backwards = tuple(replace(pair, completion=pair.rejected, rejected=pair.completion) for pair in COMPARISONS)
    made = rlhf(bench(), **{**PEOPLE, "comparisons": backwards}, rounds=1, n=8, plan=STRONG)
    with pytest.raises(
        GuardError, match=r"the first model, since no other was promoted, is not shown to beat chance: pair_accuracy 0\.500 on 240 items"
    ):
        played(made, tmp_path / "refused", unsafe=False)
    ungated = dataclasses.replace(made, phases=(dataclasses.replace(made.phases[0], gate=Open()), made.phases[1]))
    with pytest.raises(GuardError, match=r"the model of reward/0000 is not shown to beat chance: pair_accuracy 0\.0"):
        played(ungated, tmp_path / "wrong", unsafe=False)
    assert [turn.phase for turn in RunDir(tmp_path / "wrong").rounds()] == ["reward"]
    without = rlhf(bench(), **{**PEOPLE, "held_out_pairs": None}, rounds=1, n=8, plan=STRONG)
    with pytest.raises(GuardError, match="refused before anything was spent"):
        played(without, tmp_path / "none", unsafe=False)


@pytest.mark.parametrize(
    ("values", "low"), [((1.0,) * 6, 0.607), ((1.0, math.nan, *(1.0,) * 5), 0.607), ((0.5,) * 12, 0.245), ((math.nan,), 0.0), ((), 0.0)]
)
def test_what_is_shown_of_a_model_rests_on_the_items_that_could_be_measured(values: tuple[float, ...], low: float) -> None:
    """0.05^(1/6) of six right ones (Clopper and Pearson, 1934)."""
    assert least(Measurement("p", tuple(map(str, range(len(values)))), values)) == pytest.approx(low, abs=1e-3)


# ── real rows of a role's own ──────────────────────────────────────────────────────────────────────────────────────────
def test_a_reward_model_learns_people_s_comparisons_and_the_policy_the_bench_s_rows(tmp_path: Path) -> None:
    found = played(MADE["rlaif"](bench(), "guarded"), tmp_path)
    people = {example.id for example in Pairs(COMPARISONS)}
    for turn in found.rounds():
        (role,) = turn.record["mixtures"]
        rows = pq.read_table(turn.folder / f"mixture{suffix(role)}.parquet").to_pylist()
        real = {row["id"] for row in rows if row["source"] == "real"}
        assert real and real <= (people if role == "reward" else {example.id for example in REAL})
        assert turn.record["mixtures"][role]["real_share"]["records"] >= 0.5 - 1e-9 or role == "policy"
    (reward,) = stored(found, "reward")
    _, dealt = reward.deal(Mixture(**{**reward.settings, "weights": (), "caps": ()}))
    reward.check(dealt)  # the record alone tells the mixture again
    with pytest.raises(StoreError, match="another mixture"):
        reward.check(reward.deal(Mixture(real_floor=0.8))[1])


def test_without_people_s_comparisons_a_reward_model_learns_none_of_the_bench_s_rows(tmp_path: Path) -> None:
    found = played(rlaif(bench(), reward_plan=REWARD, draw=DRAW, rounds=1, plan=STRONG), tmp_path)
    first = found.rounds()[0].record
    assert first["mixtures"]["reward"]["real"] == 0 < first["mixtures"]["reward"]["new"]
    assert any("labels alone" in line for line in found.manifest["headings"])


def own(real: Any, of: Bench | None = None, mix: Mixture = Mixture(), **more: Any) -> Recipe:
    made = Phase("reward", None, {"reward": Learn(Prefer(Loss("bt")), real=real)}, mix=mix, **{"probes": (), "gate": Open(), **more})
    return Recipe("own", "", of or bench(), (made,))


@pytest.mark.parametrize(
    ("real", "error", "told"),
    [
        (compared([(3, 1)], "held out"), GuardError, "Remove it from reward's own real data"),
        (
            (replace(COMPARISONS[0], origin=Origin("synthetic", source="somebody")),),
            GuardError,
            "none of the 1 rows of reward's own real data",
        ),
        (Dropped(), DataError, "reward's own real data is empty"),
    ],
)
def test_own_real_rows_are_held_to_what_the_bench_s_are(real: Any, error: type[Exception], told: str) -> None:
    made = own(real)
    with pytest.raises(error, match=told):
        check_floor(made, check_bench(made.bench))


def test_comparisons_that_a_probe_holds_out_are_not_learnt() -> None:
    made = own(COMPARISONS, probes=(PairAccuracy(COMPARISONS[:3]),))
    with pytest.raises(GuardError, match="the prompt of a comparison that a probe measures by"):
        check_floor(made, check_bench(made.bench))


def test_a_floor_needs_real_rows_of_the_role_and_no_others() -> None:
    models: dict[str, Model] = {"policy": learnt(), "reward": TabularReward()}
    check_plan(own(COMPARISONS, bench(real=None)), models)
    with pytest.raises(GuardError, match="the bench has no real data"):
        check_plan(own((), bench()), models)


def test_a_reward_model_s_gate_needs_quality_alone_and_asks_that_model() -> None:
    models: dict[str, Model] = {"policy": learnt(), "reward": TabularReward()}
    check_plan(own(COMPARISONS, probes=(PairAccuracy(HELD_OUT_PAIRS),), gate=NonInferior()), models)
    with pytest.raises(GuardError, match="none of its probes asks that role"):
        check_plan(own(COMPARISONS, probes=bench().probes[:1], gate=NonInferior()), models)
    with pytest.raises(GuardError, match="lacks a probe of quality"):
        check_plan(own(COMPARISONS, probes=bench().probes[1:], gate=NonInferior()), models)


def test_a_refused_reward_model_teaches_nobody(tmp_path: Path) -> None:
    found = played(
        rlaif(bench(), **{**PEOPLE, "held_out_pairs": HELD_OUT_PAIRS[:50]}, rounds=1, plan=STRONG), tmp_path
    )  # fewer than the gate needs
    assert [turn.record["outcome"] for turn in found.rounds()] == ["refused", "nothing learnt"]


# ── killed and resumed ─────────────────────────────────────────────────────────────────────────────────────────────────
class Mortal(Tabular):
    """A policy whose training breaks off in its third fit."""

    left: ClassVar[int] = 3

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Mortal:
        Mortal.left -= 1
        if not Mortal.left:
            raise KeyboardInterrupt
        return mortal(super().fit(examples, plan=plan, reference=reference, seed=seed, seen=seen))

    def load(self, folder: Path, /) -> Mortal:
        return mortal(super().load(folder))


def mortal(made: Tabular) -> Mortal:
    made.__class__ = Mortal
    assert isinstance(made, Mortal)
    return made


def test_two_phases_killed_in_the_second_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    made = MADE["rlaif"](bench(), "guarded")
    for name, left in (("whole", 100), ("killed", 3)):
        Mortal.left = left
        try:
            played(made, tmp_path / name, {"policy": mortal(learnt())}, name="run")
        except KeyboardInterrupt:
            assert len(RunDir(tmp_path / name).rounds()) == 3
            played(made, tmp_path / name, {"policy": mortal(learnt())}, name="run")
    assert Mortal.left < 0 and record(tmp_path / "whole") == record(tmp_path / "killed")
