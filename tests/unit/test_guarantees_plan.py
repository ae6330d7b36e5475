"""Plans that cannot keep the guarantees are refused at the start: nothing is asked, nothing is written, every breach is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from toys import ATTESTED, FREE, HELD_OUT, LEARN, MIX, PLAN, PROBES, REAL, TASKS, Judge, Says, model, phase, play, recipe

from outcross.curate.dedup import Dedup
from outcross.engine.guards import check_plan
from outcross.errors import DataError, GuardError
from outcross.evaluate.pass_rate import PassRate
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.recipe import Learn, Mixture, Recipe
from outcross.stages import Context, Model
from outcross.train.objectives import Imitate
from outcross.types import Array, Example, Message, Task
from outcross.verify.exact import Exact

GATED = Says("p", alpha=0.05)
LONG = "the quick brown fox jumps over the lazy dog while seven wise owls watch from above"


def refused(made: Recipe, root: Path, kind: type[Exception] = GuardError, models: dict[str, Model] | None = None, **options: Any) -> str:
    """The message of a plan that must be refused before anything is written or asked."""
    asked = model()
    asked.flush = lambda: pytest.fail("the model was asked")  # type: ignore[method-assign]
    with pytest.raises(kind) as caught:
        play(made, root / "run", models or {"policy": asked}, **options)
    assert not (root / "run").exists() or not list((root / "run").glob("*/*/*.parquet"))
    return str(caught.value)


# ── what a gated bench must hold ───────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "held", [kept for size in range(3) for kept in combinations(PROBES, size)], ids=lambda p: "+".join(x.kind for x in p)
)
def test_a_gated_bench_without_quality_diversity_or_fit_is_refused(held: tuple[Any, ...], tmp_path: Path) -> None:
    told = refused(recipe(gate=GATED, probes=held), tmp_path)
    for kind in {"quality", "diversity", "fit"} - {probe.kind for probe in held}:
        assert kind in told.split(";")[0]
    assert not (tmp_path / "run").exists()


def test_a_whole_bench_is_accepted_and_an_ungated_one_needs_no_probes_but_is_headed_so(tmp_path: Path) -> None:
    assert check_plan(recipe(gate=GATED), {"policy": model()}) == []
    assert check_plan(recipe(probes=()), {"policy": model()}) == ["ungated: phase train promotes without a test"]
    assert play(recipe(phase(rounds=1)), tmp_path).manifest["headings"] == ["ungated: phase train promotes without a test"]


def test_without_real_data_the_floor_must_be_waived_and_both_are_headed() -> None:
    models = {"policy": model()}
    with pytest.raises(GuardError, match=r"the bench has no real data; give `bench\.real`, or waive"):
        check_plan(recipe(real=None), models)
    found = check_plan(recipe(phase(mix=FREE), real=None, probes=PROBES[:2], gate=GATED), models)
    assert found == ["no real anchor: the bench holds no real data", "floor of real data waived in phase train: a test"]


def test_replacing_history_needs_unsafe_and_is_headed(tmp_path: Path) -> None:
    made = recipe(phase(mix=replace(FREE, history="replace")))
    assert "`unsafe: true`" in refused(made, tmp_path)
    assert "history replaced in phase train: earlier rounds are forgotten" in check_plan(made, {"policy": model()}, unsafe=True)


def test_every_breach_is_named_at_once(tmp_path: Path) -> None:
    told = refused(recipe(phase(mix=Mixture("replace"), rounds=0), gate=GATED, probes=(), real=None), tmp_path)
    assert told.count("\n  - ") == 4


# ── independence of what trains and what gates ─────────────────────────────────────────────────────────────────────────
def gated_by(verifier: Any, trained_on: Any, models: dict[str, Model]) -> list[str]:
    quality = PassRate(HELD_OUT, Draw(n=1), verifier)
    found = check_plan(recipe(phase(verify=(trained_on,)), probes=(quality, *PROBES[1:]), gate=GATED), models, unsafe=True)
    return [line for line in found if not line.startswith("unproven verifier")]  # see test_verifier_check.py


@pytest.mark.parametrize("ground", ["trained", "judged", "voted", "human", "guessed"])
def test_what_is_no_proof_may_teach_only_beside_another_test(ground: Any) -> None:
    models: dict[str, Model] = {"policy": model()}
    taught = Judge(ground=ground)
    with pytest.raises(GuardError, match=f"whose ground is '{ground}', and every probe of quality rests on the same"):
        gated_by(Judge(ground=ground), taught, models)
    assert gated_by(Exact(), taught, models) == []
    assert gated_by(Judge(label="another"), taught, models) == []


@pytest.mark.parametrize("ground", ["kernel", "executed", "exact"])
def test_what_is_proof_may_teach_and_gate_alike(ground: Any) -> None:
    assert gated_by(Judge(ground=ground), Judge(ground=ground), {"policy": model()}) == []


def test_two_judges_are_one_when_one_model_plays_both_and_the_measured_policy_does_not_count() -> None:
    policy, one, two = model(), Scripted(["yes"]), Scripted(["no"])
    taught, other = Judge(("judge",)), Judge(("referee",), label="another")
    with pytest.raises(GuardError, match="same verifier or judging model"):
        gated_by(other, taught, {"policy": policy, "judge": one, "referee": one})
    assert gated_by(other, taught, {"policy": policy, "judge": one, "referee": two}) == []
    assert gated_by(other, taught, {"policy": policy, "judge": policy, "referee": two}) == []
    assert gated_by(Exact(), Judge(("policy",)), {"policy": policy}) == []  # the probe draws from the policy it measures
    with pytest.raises(GuardError, match="same verifier or judging model"):
        gated_by(other, taught, {"policy": policy, "judge": policy, "referee": policy})


def test_trimming_and_comparing_peers_do_not_go_together() -> None:
    learn = {"policy": Learn(Imitate(best_of=1), PLAN)}
    with pytest.raises(GuardError, match="dedup trims samples off groups, and the objective Imitate compares"):
        check_plan(recipe(phase(learn=learn)), {"policy": model()})
    assert check_plan(recipe(phase(learn=learn, curate=()), gate=GATED), {"policy": model()}) == []
    assert Dedup().trims


# ── held-out items ─────────────────────────────────────────────────────────────────────────────────────────────────────
HELD = (*HELD_OUT, Task("long", LONG, "yes"), Task("chat", (Message("user", "who goes there"),), "me"))
PICTURE = Array("uint8", (2,), b"ab")


@pytest.mark.parametrize(
    ("stray", "why"),
    [
        (Task(HELD_OUT[0].id, "something else", "1"), "has a held-out identifier"),
        (Task("new", HELD_OUT[0].prompt, "1"), "equals a held-out prompt"),
        (Task("new", "Who  goes\nTHERE", "1"), "equals a held-out prompt"),
        (Task("new", "Tell me: " + LONG.upper().replace(" ", " - "), "1"), "shares the 13-gram"),
        (Task("new", PICTURE, "1"), "equals a held-out prompt"),
    ],
    ids=["identifier", "prompt", "layout", "13-gram", "array"],
)
def test_a_held_out_item_among_the_tasks_is_refused(stray: Task, why: str, tmp_path: Path) -> None:
    held_out = (*HELD, Task("picture", PICTURE, "1"))
    told = refused(recipe(tasks=(*TASKS, stray), held_out=held_out), tmp_path)
    assert why in told and repr(stray.id) in told
    fine = Task("fine", Array("uint8", (2,), b"cd")), Task("half", " ".join(LONG.split()[:12]))  # another array; twelve words in common
    assert play(recipe(phase(rounds=1), tasks=(*TASKS, *fine), held_out=held_out), tmp_path / "fine").rounds()


@pytest.mark.parametrize(
    ("prompt", "completion", "rejected"),
    [(HELD_OUT[0].prompt, "1", None), ("", f"As they say, {LONG}.", None), ("p", "c", LONG)],
    ids=["prompt", "completion", "rejected"],
)
def test_a_held_out_item_among_the_real_rows_is_refused(prompt: Any, completion: str, rejected: str | None, tmp_path: Path) -> None:
    stray = Example("stray", prompt, completion, rejected=rejected, origin=ATTESTED)
    assert "real row 'stray'" in refused(recipe(real=(*REAL, stray), held_out=HELD), tmp_path)


@dataclass(frozen=True)
class Smuggler:
    """A selector that brings a held-out item among the tasks."""

    def __call__(self, ctx: Context, tasks: Any, /) -> Iterator[Task]:
        yield from list(tasks)[:3]
        yield Task("innocent", HELD_OUT[3].prompt, "1")

    def at_most(self, tasks: int, /) -> int:
        return tasks + 1


def test_a_selector_cannot_bring_a_held_out_item_to_the_generator(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="the selector chose task 'innocent', which equals a held-out prompt"):
        play(recipe(phase(tasks=Smuggler())), tmp_path)
    assert not list(tmp_path.glob("train/0000/groups.parquet"))


def test_identifiers_are_unique_and_sets_are_not_empty(tmp_path: Path) -> None:
    assert "two tasks have the identifier '0+1'" in refused(recipe(tasks=(*TASKS, Task("0+1", "again"))), tmp_path, DataError)
    assert "two held-out items have the identifier '0+0'" in refused(recipe(held_out=(*HELD_OUT, HELD_OUT[0])), tmp_path, DataError)
    for name in ("tasks", "held_out", "real"):
        assert f"bench.{name} is empty" in refused(recipe(**{name: ()}), tmp_path, DataError)


@pytest.mark.parametrize("mix", [Mixture(real_floor=0.0), Mixture(floor="anchor", anchor=0.0)])
def test_a_floor_of_nothing_heads_the_record_as_a_waived_one_does(tmp_path: Path, mix: Mixture) -> None:
    headings = play(recipe(phase(rounds=1, mix=mix)), tmp_path).manifest["headings"]
    assert any(heading.startswith("no floor of real data in phase train: ") for heading in headings)


# ── origin ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_rows_of_unknown_origin_do_not_make_a_floor(tmp_path: Path) -> None:
    claimed = tuple(replace_origin(row, "real", "none") for row in REAL)
    assert "none of the 10 rows of bench.real is proved or attested" in refused(recipe(real=claimed), tmp_path)
    anchored = phase(mix=Mixture(floor="anchor", anchor=0.2))
    assert "none of the 10 rows of bench.real is proved or attested" in refused(recipe(anchored, real=claimed), tmp_path)
    mixed = (*REAL[:5], *(replace_origin(row, "unknown", "attested") for row in REAL[5:]))
    counted = play(recipe(phase(rounds=1), real=mixed), tmp_path / "mixed").rounds()[0].record["mixtures"]["policy"]
    assert counted["real_share"]["records"] >= 0.5 and counted["real_share"]["tokens"] >= 0.5
    known = {part["kind"]: part["records"] for part in counted["parts"]}
    assert counted["real_share"]["records"] == known["real"] / counted["records"]  # rows of unknown origin are on the synthetic side
    waived = play(recipe(phase(mix=FREE, rounds=1), real=claimed), tmp_path / "waived").rounds()[0]
    assert waived.record["mixtures"]["policy"]["real_share"] == {"records": 0.0, "tokens": 0.0}
    assert waived.record["mixtures"]["policy"]["real"] == 10  # rows of bench.real were seen, and none is known to be real


def replace_origin(row: Example, kind: Any, proof: Any) -> Example:
    return Example(row.id, row.prompt, row.completion, origin=type(row.origin)(kind, proof, "somewhere"))


# ── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["start", "../elsewhere", "a/b", "", "champion", "lock"])
def test_a_phase_cannot_write_outside_its_folder(name: str, tmp_path: Path) -> None:
    assert "a phase's name is the name of its folder" in refused(recipe(phase(name)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_must_mean_one_thing(tmp_path: Path) -> None:
    one = model()
    assert "two phases are called 'train'" in refused(recipe(phase(), phase()), tmp_path)
    assert "names files of the record" in refused(recipe(phase(learn={"a/b": LEARN})), tmp_path, models={"policy": one, "a/b": one})
    other = phase("second", probes=(replace(PROBES[0], generator=Draw(n=3)),))
    assert "another probe is called 'pass_rate' already" in refused(recipe(phase(), other), tmp_path)
    assert "2 probes are called 'pass_rate'" in refused(recipe(gate=GATED, probes=(*PROBES, PROBES[0])), tmp_path)
    assert "did you mean 'pass_rate'" in refused(recipe(phase(until=("passrate", 1.0))), tmp_path)


def test_roles_must_be_played_and_taught_by_models_that_can(tmp_path: Path) -> None:
    assert "asks the role 'judge'" in refused(recipe(phase(verify=(Judge(("judge",)),))), tmp_path)
    assert "teaches the role 'critic', and the run has only ['policy']" in refused(recipe(phase(learn={"critic": LEARN})), tmp_path)
    assert "whose model Scripted cannot be trained" in refused(recipe(), tmp_path, models={"policy": Scripted(["1"])})
    assert "mix.real_floor is 1.5" in refused(recipe(phase(mix=replace(MIX, real_floor=1.5))), tmp_path)
    one = model()
    both = {"policy": LEARN, "critic": replace(LEARN, plan=replace(PLAN, lr=0.1))}
    told = refused(recipe(phase(learn=both)), tmp_path, models={"policy": one, "critic": one})
    assert "'policy' and 'critic' are one model and are taught in one fit" in told
