"""What the report tells about judges, from the record of real runs with judges whose faults are known; and who judges in a run."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from judges import biased, shown, sigmoid, weighing
from scipy import optimize, stats
from toys import MIX, PROBES, model, phase, play, recipe

from outcross import estimates
from outcross.engine.store import RunDir
from outcross.generate.draw import Draw
from outcross.judgement import judgement_of
from outcross.models.scripted import Scripted
from outcross.report import judge_numbers as numbers
from outcross.report.agreement import alpha
from outcross.report.html import write_report
from outcross.report.judges import JudgeFound, read_judges
from outcross.report.judges_part import lines, title
from outcross.report.read import read_run
from outcross.stages import Context, Stage
from outcross.types import Completion, Ground, Group, Measurement, Request, Response
from outcross.verify.exact import Exact
from outcross.verify.judge_pairwise import Baseline, PairwiseJudge
from outcross.verify.judge_panel import Panel
from outcross.verify.judge_pointwise import PointwiseJudge

TEXTS = ["4", "12 or so", "about 11, I think", "the answer to this is 6, and I am quite sure of it"]


def judged(root: Path, *verify: Any, policy: Any = None, **models: Any) -> list[JudgeFound]:
    """The judges of a run of one round that only makes data."""
    made = recipe(phase(generate=Draw(n=4), verify=verify, learn={}, curate=(), rounds=1))
    found = read_run(play(made, root, {"policy": policy or Scripted(TEXTS, name="four"), **models}))
    return list(found.judges)


# ── biases ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_preference_for_the_first_place_is_measured_as_it_is(tmp_path: Path) -> None:
    (found,) = judged(tmp_path, Exact(), PairwiseJudge(), judge=biased(lambda text: 0.0, 2.0))
    assert found.turned is not None and found.first is not None
    assert (found.turned.mean, found.turned.items) == (1.0, found.pairs)
    assert found.first.mean == pytest.approx(sigmoid(2.0), abs=1e-6)
    (fair,) = judged(tmp_path / "fair", PairwiseJudge(), judge=biased(len, 0.0))
    assert fair.turned is not None and fair.turned.mean == 0.0 and fair.turned.high is not None and 0 < fair.turned.high < 0.2
    assert fair.first is not None and fair.first.mean == pytest.approx(0.5, abs=1e-6)
    assert fair.pairs == fair.samples // 4 * 6, "each pair counts once"


@pytest.mark.parametrize("slope", [0.0, 0.8, -0.5])
def test_a_preference_for_length_is_recovered(tmp_path: Path, slope: float) -> None:
    judge = biased(lambda text: slope * math.log2(len(text)), 0.0)
    (found,) = judged(tmp_path, PairwiseJudge(), judge=judge)
    assert found.length is not None and found.length.mean == pytest.approx(slope, abs=1e-3)


def test_the_win_rate_at_equal_length_takes_the_length_out(tmp_path: Path) -> None:
    """Better by 0.4 in log-odds, and longer, before a judge that likes length."""

    def quality(text: str) -> float:
        return 0.7 * math.log2(len(text)) + (0.0 if text == "base" else 0.4)

    (found,) = judged(tmp_path, PairwiseJudge(against=Baseline()), judge=biased(quality, 0.0), baseline=Scripted(["base"], name="base"))
    assert found.at_equal_length is not None and found.at_equal_length.mean == pytest.approx(sigmoid(0.4), abs=1e-3)
    assert found.own is None, "neither answer is the judge's own"


def test_preference_for_its_own_answers_is_measured_where_models_differ(tmp_path: Path) -> None:
    def answer(request: Request) -> Response:
        if not request.choices:
            return Response(tuple(Completion(TEXTS[index]) for index in range(request.n)))
        own = shown(request).get("answer A") in TEXTS
        return Response((Completion("", choice_log_probs=(math.log(0.8), math.log(0.2))[:: 1 if own else -1]),))

    itself = Scripted(answer, name="itself")
    (found,) = judged(tmp_path, PairwiseJudge(against=Baseline()), policy=itself, judge=itself, baseline=Scripted(["other"], name="other"))
    assert found.own is not None and found.own.mean == pytest.approx(0.8, abs=1e-6) and found.own.items == found.samples


def test_calibration_is_against_firm_verdicts_on_the_same_samples(tmp_path: Path) -> None:
    """A judge that gives every answer 10: its error is the share of wrong ones; one without an exact verifier beside it has no labels."""
    sure = weighing(lambda request: {"10": 1.0}, "sure")
    (found,) = judged(tmp_path, Exact(pattern=r"\d+"), PointwiseJudge(), judge=sure)
    assert found.calibration is not None
    (only,) = found.calibration.bins
    assert (only.items, only.said) == (found.samples, pytest.approx(1.0)) and 0 < only.right < 1
    assert found.calibration.error.mean == pytest.approx(1 - only.right, abs=1e-6)
    (unknown,) = judged(tmp_path / "unknown", PointwiseJudge(), judge=sure)
    assert unknown.calibration is None and unknown.accuracy is None


def test_pairs_of_which_one_is_right_tell_how_often_the_judge_prefers_it(tmp_path: Path) -> None:
    (found,) = judged(tmp_path, Exact(pattern=r"\d+"), PairwiseJudge(), judge=biased(lambda text: float(len(text) < 5), 0.0))
    assert found.accuracy is not None and found.accuracy.items < found.pairs and found.calibration is not None
    assert 0 < found.accuracy.mean < 1


def test_a_panel_shows_its_agreement_and_each_member(tmp_path: Path) -> None:
    panel = Panel((PairwiseJudge("one"), PairwiseJudge("two")), "fail")
    found = judged(tmp_path, panel, one=biased(len, 0.0), two=biased(len, 0.0))
    assert [item.verifier for item in found] == ["panel", "panel: pairwise_judge", "panel: pairwise_judge"]
    assert found[0].verdicts is not None and found[0].verdicts.mean == pytest.approx(1.0)
    against = judged(tmp_path / "against", panel, one=biased(len, 0.0), two=biased(lambda text: -len(text), 0.0))
    assert against[0].values is not None and against[0].values.mean < 0


def test_errors_are_counted_and_the_report_and_show_print_what_is_known(tmp_path: Path) -> None:
    judge = biased(len, 0.5)
    run = play(
        recipe(phase(verify=(Exact(), PairwiseJudge()), learn={}, curate=(), rounds=1)),
        tmp_path / "run",
        {"policy": model(), "judge": judge},
    )
    (found,) = read_run(run).judges
    assert "pairwise_judge asked 'judge'" in title(found) and "by log-probabilities" in title(found)
    printed = {name: (estimate, counted) for name, estimate, _, counted in lines(found)}
    assert printed["preference for the answer shown first (none: 50 %)"][1].endswith("pairs")
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Judges</h2>" in page and "pairs whose verdict changes with the order" in page
    plain = play(recipe(phase(learn={}, rounds=1)), tmp_path / "plain", {"policy": model()})
    assert read_run(plain).judges == ()
    write_report([plain], tmp_path / "plain.html")
    assert "<h2>Judges</h2>" not in (tmp_path / "plain.html").read_text()


def test_a_long_record_is_read_from_its_newest_end(tmp_path: Path) -> None:
    made = recipe(phase(generate=Draw(n=4), verify=(PairwiseJudge(),), learn={}, curate=(), rounds=2))
    read = read_run(play(made, tmp_path, {"policy": Scripted(TEXTS, name="four"), "judge": biased(len, 0.0)}))
    per_round = read.judges[0].samples // 2
    (few,) = read_judges(read.run, read.rounds, most=6)
    assert few.samples == 8 and few.pairs == 12, "whole tasks"
    (newest,) = read_judges(read.run, read.rounds, most=per_round)
    assert newest.samples == per_round


# ── estimates ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_share_over_tasks_of_one_size_has_the_interval_of_their_means() -> None:
    rng = random.Random(1)
    means = [rng.random() for _ in range(12)]
    values = [min(1.0, max(0.0, mean + shift)) for mean in means for shift in (-0.01, 0.0, 0.01)]
    tasks = [str(i // 3) for i in range(36)]
    found = estimates.share(values, tasks)
    each = [float(np.mean(values[i : i + 3])) for i in range(0, 36, 3)]
    low, high = stats.t.interval(0.95, 11, loc=np.mean(each), scale=stats.sem(each))
    assert found is not None and (found.low, found.high) == (pytest.approx(low), pytest.approx(high)) and found.items == 36
    assert estimates.share([], []) is None


def test_the_regression_is_the_maximum_of_the_likelihood_and_its_interval_holds() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        x = rng.normal(size=120)
        task = [str(i // 3) for i in range(120)]
        shared = np.repeat(rng.normal(scale=0.5, size=40), 3)
        p = 1 / (1 + np.exp(-(0.5 * x + shared)))
        label = (rng.random(120) < p).astype(float)
        found = estimates.logistic(list(x), list(label), task)
        assert found is not None and found.slope.low is not None and found.slope.high is not None
        inside += found.slope.low <= 0.485 <= found.slope.high  # marginal over the shared part
    assert 0.9 <= inside / 200 <= 0.995

    def loss(at: Any) -> float:
        z = at[0] + at[1] * x
        return float(np.sum(np.logaddexp(0, z) - label * z))

    best = optimize.minimize(loss, [0.0, 0.0], tol=1e-12).x
    assert found.slope.mean == pytest.approx(best[1], abs=1e-4) and found.at_zero.mean == pytest.approx(
        1 / (1 + np.exp(-best[0])), abs=1e-4
    )


def test_nothing_is_estimated_where_nothing_can_be() -> None:
    assert estimates.logistic([1.0] * 9, [0.5] * 9, list("abcabcabc")) is None
    assert estimates.logistic([-1.0, -2.0, 1.0, 2.0], [0.0, 0.0, 1.0, 1.0], list("abcd")) is None, "separated"
    assert estimates.logistic([0.0, 1.0], [0.2, 0.7], list("ab")) is None
    assert numbers.calibration([], [], [], (0.0, 1.0)) is None and numbers.agreement([[1.0], []], list("ab")) is None


def test_agreement_by_sums_is_krippendorffs_alpha() -> None:
    rng = random.Random(2)
    units = [[rng.random() for _ in range(rng.randrange(1, 5))] for _ in range(30)]
    found = numbers.agreement(units, [str(i // 2) for i in range(30)])
    assert found is not None and found.mean == pytest.approx(alpha(units, "interval")) and found.low is not None and found.low < found.mean
    verdicts = [[float(rng.random() < 0.6) for _ in range(3)] for _ in range(30)]
    again = numbers.agreement(verdicts, list(map(str, range(30))))
    assert again is not None and again.mean == pytest.approx(alpha(verdicts, "nominal"))


def test_calibration_is_the_mean_distance_over_bins() -> None:
    said, right = [0.1, 0.1, 0.9, 0.9], [0.0, 1.0, 1.0, 1.0]
    found = numbers.calibration(said, right, list("abcd"), (0.0, 0.5, 1.0))
    assert found is not None and [item.items for item in found.bins] == [2, 2]
    assert found.error.mean == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)


# ── who judges ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Ruled(Stage):
    """A probe that asks a judge and notes which model that was."""

    noted: ClassVar[list[tuple[str, str]]] = []
    kind: ClassVar[str] = "quality"
    ground: ClassVar[Ground] = "judged"
    margin: float = 0.5
    roles = ("policy", "judge")

    def __call__(self, ctx: Context, /) -> Measurement:
        self.noted.append((ctx.model("policy").id, ctx.model("judge").id))
        return Measurement(self.name, ("a", "b"), (0.5, 0.5))


@dataclass(frozen=True)
class Seen(Stage):
    """A judge among the verifiers that notes who judges."""

    noted: ClassVar[list[tuple[str, str]]] = []
    roles = ("judge",)
    ground: ClassVar[Ground] = "judged"

    @property
    def name(self) -> str:
        return "pointwise_judge"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        self.noted.append((ctx.round, ctx.model("judge").id))
        return PointwiseJudge(passes_at=0.0)(ctx, groups)


def test_a_policy_that_judges_itself_does_so_as_champion_and_probes_keep_the_first_one_as_their_ruler(tmp_path: Path) -> None:
    """`judge: policy`: each round is judged by the model that held when it began. A probe that asks the judge asks the first model
    throughout: a candidate may not be its own judge, nor be held against numbers that another judge gave."""
    itself = model()
    made = recipe(phase(verify=(Exact(), Seen()), mix=MIX, rounds=3), probes=(*PROBES, Ruled()))
    run: RunDir = play(made, tmp_path, {"policy": itself, "judge": itself}, unsafe=True)
    champions = [itself.id, *(turn.record["champion"]["policy"]["id"] for turn in run.rounds())]
    assert len(set(champions)) == 4, "every round promoted another model"
    assert [judge for _, judge in Seen.noted] == champions[:3]
    assert {judge for _, judge in Ruled.noted} == {itself.id} and {policy for policy, _ in Ruled.noted} == set(champions)
    judges = {
        judgement_of(score).judge for group in run.rounds()[2].groups() for s in group.samples for score in s.scores if judgement_of(score)
    }  # type: ignore[union-attr]
    assert judges == {champions[2]}
