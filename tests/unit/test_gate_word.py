"""The gate keeps its word over whole lineages, and a collapse that hardly costs accuracy is refused."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binomtest
from toys import FREE, Judge, phase, play, recipe

from outcross.evaluate.diversity import Diversity
from outcross.evaluate.pass_rate import PassRate
from outcross.gate.non_inferior import NonInferior
from outcross.gate.paired import lower_bound
from outcross.generate.draw import Draw
from outcross.models.tabular import Tabular
from outcross.recipe import Learn
from outcross.stages import Context, FitPlan
from outcross.train.objectives import Imitate
from outcross.types import Example, Group, Score, Task
from outcross.verify.each import with_score
from outcross.verify.exact import Exact

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gate.py"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """`benchmarks/gate.py`, whose simulation is tested here in small."""
    spec = importlib.util.spec_from_file_location("gate_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("kind", ["pass or fail", "continuous", "replicates"])
def test_a_champion_is_hardly_ever_worse_than_the_margin(bench: Any, kind: str) -> None:
    """67 lineages of each kind, 200 in all: a share of at most 5 % is not refuted at 1 %, and the gate is no wall either."""
    rng = np.random.default_rng(0)
    found = [bench.lineage(rng, bench.SORTS[kind], NonInferior(0.05)) for _ in range(67)]
    broken = sum(item[0] for item in found)
    assert binomtest(broken, 67, 0.05, alternative="greater").pvalue > 0.01
    assert sum(item[1] for item in found) > 20


def test_the_simulation_notices_a_gate_that_does_not_keep_its_word(bench: Any) -> None:
    rng = np.random.default_rng(1)
    broken = sum(bench.worst_lineage(rng, bench.SORTS["pass or fail"], NonInferior(0.9)) for _ in range(30))
    assert binomtest(broken, 30, 0.05, alternative="greater").pvalue < 0.01


def test_for_pairs_of_pass_and_fail_the_bound_is_tango_s_score_interval() -> None:
    """McNemar's test with a margin is Tango's score test (Statistics in Medicine 17, 1998): its closed form, solved for the margin."""
    from scipy.stats import t

    gained, lost, items, alpha = 12, 20, 500, 0.0125
    differences = np.repeat([1.0, -1.0, 0.0], [gained, lost, items - gained - lost])
    critical = float(t.isf(alpha, items - 1))

    def score(change: float) -> float:
        a, b = 2 * items, -gained - lost + (2 * items - gained + lost) * change
        c = -lost * change * (1 - change)
        loses = (np.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        return float((gained - lost - items * change) / np.sqrt(items * (2 * loses + change * (1 - change))) - critical)

    tango = float(brentq(score, -0.5, (gained - lost) / items - 1e-9))
    student = differences.mean() - critical * differences.std(ddof=1) / np.sqrt(items)
    assert lower_bound(differences, alpha, -1.0) == pytest.approx(min(tango, float(student)), abs=1e-9)


# ── collapse ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class LikesOnes(Judge):
    """A judge that passes one answer, whatever was asked."""

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            said = [(item, item.text == "1") for item in group.samples]
            scores = [(item, Score(self.name, self.version, "pass" if one else "fail", float(one))) for item, one in said]
            yield Group(group.task, tuple(with_score(item, score) for item, score in scores))


def parities(numbers: range) -> tuple[Task, ...]:
    return tuple(Task(f"{i}", f"{i:04d}", str(i % 2)) for i in numbers)


HELD_OUT, TASKS = parities(range(1200)), parities(range(2000, 2300))


def barely_right() -> Tabular:
    """A policy of two answers that is right a little more often than by chance."""
    examples = [Example(task.id, task.prompt, str(task.answer)) for task in TASKS]
    plan = FitPlan(lr=0.82, epochs=1, batch=300, schedule="constant", warmup=0.0)
    return Tabular(["0", "1"], window=1, memory=0.0).fit(examples, plan=plan, reference=None, seed=0, seen=lambda step, ids, **facts: None)


def test_a_policy_that_collapses_to_one_answer_is_refused_though_its_pass_rate_hardly_falls(tmp_path: Path) -> None:
    probes = (PassRate(HELD_OUT, Draw(), Exact(), margin=0.12), Diversity(HELD_OUT, Draw(), margin=0.1))
    learn = {"policy": Learn(Imitate(), FitPlan(lr=1.0, epochs=20, batch=64))}
    train = phase(generate=Draw(n=4), verify=(LikesOnes(),), curate=(), learn=learn, mix=FREE, rounds=1)
    made = recipe(train, tasks=TASKS, held_out=HELD_OUT, real=None, probes=probes, gate=NonInferior())
    found = play(made, tmp_path, {"policy": barely_right()}, unsafe=True)
    (turn,) = found.rounds()
    measured = turn.record["measurements"]
    assert measured["pass_rate"]["first"] == pytest.approx(0.56, abs=0.02) and measured["pass_rate"]["candidate"] == pytest.approx(
        0.5, abs=0.01
    )
    decision = turn.decision
    assert decision is not None and not decision.promote
    by_probe = {check.probe: check.passed for check in decision.checks}
    assert by_probe == {"pass_rate": True, "diversity_entropy": False}  # accuracy alone would have let it through
    assert decision.reason.startswith("refused: diversity_entropy") and found.champion() == (tmp_path / "start/model").resolve()
