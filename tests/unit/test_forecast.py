"""Forecasts: bounds counted by hand, and extrapolations whose intervals hold what they promise."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from toys import LEARN, phase, recipe

from outcross.engine.expect import expected
from outcross.engine.forecast import TEMPLATE_TOKENS, Load, forecast
from outcross.engine.guards import check_bench
from outcross.engine.preview import Pace, Preview, Used, pace, plan_of, previewed
from outcross.engine.store import RunDir, write_json
from outcross.evaluate.pass_rate import PassRate
from outcross.generate.draw import Draw
from outcross.models.http_endpoint import Price
from outcross.recipe import Recipe, Release
from outcross.select import Sample
from outcross.stages import Stage
from outcross.types import Sampling, Task
from outcross.verify.exact import Exact

ASKED = tuple(Task(f"t{i}", "x" * (10 + i % 5), "1") for i in range(200))  # 10 to 14 bytes, 12 on average
HELD = tuple(Task(f"h{i}", f"held out {i:03d}", "1") for i in range(50))  # 12 bytes each


@dataclass
class Answers:
    """A model that is never asked: an id, a price, slots."""

    id: str = "m"
    price: Price = Price()
    in_flight: int | None = None
    depth: int = 0

    def close(self) -> None: ...


class Endpoint(Answers):
    in_flight = 8


def data(**more: Any) -> Recipe:
    """A plan that draws twice over all tasks and trains nothing."""
    fields = {"generate": Draw(n=3, sampling=Sampling(max_tokens=20), template="Q: {prompt}"), "learn": {}, "rounds": 2}
    return recipe(phase("made", **{**fields, **more}), tasks=ASKED, held_out=HELD)


def bound(made: Recipe, **models: Answers) -> Any:
    return forecast(made, models, check_bench(made.bench))


# ── at most ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_bound_by_hand() -> None:
    found = bound(data(), policy=Answers(price=Price(2, 10)))
    said = len("policypolicy") + len("Q: {prompt}")  # every text among the stage's settings
    prompts = 2 * (200 * 12 + 200 * (TEMPLATE_TOKENS + said))
    assert found.roles == {"policy": Load(400, prompts, 400 * 3 * 20)}
    assert found.money == pytest.approx((prompts * 2 + 24_000 * 10) / 1e6)


def test_an_endpoint_may_ignore_n_until_a_preview_has_seen_that_it_does_not() -> None:
    made, models = data(), {"policy": Endpoint(in_flight=8)}
    facts = check_bench(made.bench)
    careful, known = forecast(made, models, facts).total, forecast(made, models, facts, ("policy",)).total
    assert (careful.calls, careful.prompt_tokens) == (3 * known.calls, 3 * known.prompt_tokens) == (1200, 3 * known.prompt_tokens)
    assert careful.completion_tokens == known.completion_tokens


def test_a_selector_bounds_the_tasks_and_the_longest_prompt_stands_for_those_it_may_choose() -> None:
    all_of_them, some = bound(data(), policy=Answers()).total, bound(data(tasks=Sample(50)), policy=Answers()).total
    assert some.calls == all_of_them.calls / 4
    assert some.prompt_tokens - all_of_them.prompt_tokens / 4 == pytest.approx(2 * 50 * (14 - 12))


@dataclass(frozen=True)
class Asks(Stage):
    """A verifier that asks a judge `times` times a task."""

    times: int = 1
    sampling: Sampling = Sampling(max_tokens=8)
    ground = "judged"
    roles = ("judge",)

    def calls(self, tasks: int, /) -> Mapping[str, int]:
        return {"judge": self.times * tasks}

    def __call__(self, ctx: Any, groups: Iterable[Any], /) -> Any:
        return iter(groups)


def test_a_judge_may_read_every_answer_and_its_own_earlier_ones() -> None:
    found = bound(data(verify=(Asks(2),), rounds=1), policy=Answers(), judge=Answers("j", Price(1, 1)))
    answers = 3 * 20
    assert found.roles["judge"] == Load(400, 2 * 200 * 12 + 400 * TEMPLATE_TOKENS + 200 * (2 * answers + 8), 400 * 8)
    assert found.money == pytest.approx((found.roles["judge"].prompt_tokens + 3200) / 1e6)  # what has a price


def test_probes_are_asked_at_the_start_too_and_nobody_gave_a_price() -> None:
    made = recipe(
        phase(learn={"policy": LEARN}, rounds=2, generate=None), tasks=ASKED, held_out=HELD, probes=(PassRate(HELD, Draw(n=2), Exact()),)
    )
    found = bound(made, policy=Answers())
    assert found.roles["policy"].calls == 3 * 50 and found.roles["policy"].completion_tokens == 3 * 50 * 2 * 256
    assert found.money is None


def test_what_tests_a_release_is_counted_for_each_round_s_rows_and_for_those_before_them() -> None:
    @dataclass(frozen=True)
    class Free:
        alpha: float = 0.0

    made = data(rounds=3, release=Release((Asks(),), Free()))
    found = bound(made, policy=Answers(), judge=Answers("j"))
    assert found.roles["judge"].calls == 3 * 2 * 200
    assert found.roles["judge"].prompt_tokens == 6 * (200 * 12 + 200 * (TEMPLATE_TOKENS + 3 * 20))


# ── expected ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def seen(made: Recipe, models: Mapping[str, Any], used: Iterable[Used], tasks: int, **fields: Any) -> Preview:
    plan = plan_of(previewed(made), models)
    given = {"pace": {}, "counts": (), "asked": tasks, "spent": 0.0, **fields}
    return Preview(time="", phase="made", round="made/0000", seed=0, plan=plan, recipe="", tasks=tasks, used=tuple(used), **given)


def drawn(task: int, written: int, read: int = 30, price: Price = Price()) -> Used:
    return Used(f"t{task}", 0, "policy", 1, 3, read, written, price.of(read, written).money)


def look(made: Recipe, models: Mapping[str, Any], preview: Preview, folder: Path = Path("nowhere")) -> Any:
    return expected(made, models, check_bench(made.bench), preview, RunDir(folder))


def test_an_extrapolation_by_hand_and_its_interval_is_students() -> None:
    written, price = [30, 42, 36, 60], Price(2, 10)
    models = {"policy": Answers(price=price)}
    found = look(data(), models, seen(data(), models, [drawn(i, tokens, price=price) for i, tokens in enumerate(written)], 4))
    assert found.requests.expected == 400 and (found.requests.low, found.requests.high) == (400, 400)
    assert found.completion_tokens.expected == pytest.approx(400 * sum(written) / 4)
    low, high = stats.t.interval(0.95, 3, sum(written) / 4, stats.sem(written))
    assert (found.completion_tokens.low, found.completion_tokens.high) == pytest.approx((400 * low, 400 * high))
    assert found.money.expected == pytest.approx((400 * 30 * 2 + 400 * 42 * 10) / 1e6)
    assert found.seconds is None  # nothing was measured


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """300 runs over tasks of log-normal length, each forecast from 20 of its tasks. 95 % is Student's promise for normal values."""
    rng, held, models = random.Random(5), 0, {"policy": Answers()}
    made, runs = data(rounds=1), 300
    facts = check_bench(made.bench)
    for _ in range(runs):
        lengths = [round(rng.lognormvariate(4, 0.5)) for _ in ASKED]
        preview = seen(made, models, [drawn(i, lengths[i]) for i in rng.sample(range(len(ASKED)), 20)], 20)
        found = expected(made, models, facts, preview, RunDir(Path("nowhere"))).completion_tokens
        held += found.low <= sum(lengths) <= found.high
    assert 0.91 <= held / runs <= 0.99


def test_one_task_gives_no_interval_and_says_so() -> None:
    models = {"policy": Answers()}
    found = look(data(), models, seen(data(), models, [drawn(0, 30)], 1))
    assert found.completion_tokens.expected == 12_000 and found.completion_tokens.low is None
    assert any("one task says nothing about the spread" in note for note in found.notes)


def test_tasks_that_asked_nothing_count_as_zero() -> None:
    models = {"policy": Answers()}
    found = look(data(), models, seen(data(), models, [drawn(0, 30)], 3))
    assert found.requests.expected == pytest.approx(400 / 3)
    assert found.completion_tokens.low == 30  # at least what the preview took


def test_probes_are_counted_with_the_tokens_that_the_preview_saw() -> None:
    made = recipe(
        phase("made", generate=Draw(n=3), learn={"policy": LEARN}, rounds=2, verify=()),
        tasks=ASKED,
        held_out=HELD,
        probes=(PassRate(HELD, Draw(n=1), Exact()),),
    )
    models = {"policy": Answers()}
    found = look(made, models, seen(made, models, [drawn(i, 30) for i in range(4)], 4))
    assert found.requests.expected == 2 * 200 + 3 * 50
    assert found.completion_tokens.expected == pytest.approx(2 * 200 * 30 + 3 * 50 * 10)  # one completion instead of three
    assert any("later rounds are taken to answer as the first does" in note for note in found.notes)


def test_roles_that_the_preview_did_not_ask_and_models_without_a_price_are_named() -> None:
    made = data(verify=(Asks(),))
    models = {"policy": Answers(price=Price(1, 1)), "judge": Answers("j")}
    found = look(made, models, seen(made, models, [drawn(0, 30, price=Price(1, 1)), drawn(1, 30, price=Price(1, 1))], 2))
    assert any("what judge is asked is not counted" in note for note in found.notes)
    asked = [drawn(0, 30), drawn(1, 30), Used("t0", 1, "judge", 1, 1, 9, 2, 0.0)]
    assert any("money leaves out judge: no price given" in note for note in look(made, models, seen(made, models, asked, 2)).notes)


def test_a_server_that_ignores_n_is_expected_to_be_asked_n_times() -> None:
    models = {"policy": Endpoint(in_flight=8)}
    split = [Used(f"t{i}", 0, "policy", 1, 3, 90, 30, 0.0) for i in range(4)]
    assert look(data(), models, seen(data(), models, split, 4, one_by_one=("policy",))).requests.expected == 1200


# ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_pace_counts_what_a_slot_served_and_not_the_queue_for_it() -> None:
    waiting = [(0.0, float(end), 10) for end in range(1, 9)]  # eight at once; two slots; each takes 2 s... one after the other
    assert pace(waiting, None) == Pace(8, 80, 36.0, 8.0)
    assert pace(waiting, 2) == Pace(8, 80, 2 * 7.0 + 1.0, 8.0)
    apart = [(0.0, 1.0, 10), (5.0, 6.0, 10)]
    assert pace(apart, 2) == Pace(2, 20, 2.0, 2.0)


def test_an_endpoint_is_forecast_between_all_its_slots_and_the_preview_s_own_pace() -> None:
    models = {"policy": Endpoint(in_flight=8)}
    measured = {"policy": Pace(4, 120, service=8.0, busy=2.0)}  # 2 s a request, four under way at once
    found = look(data(), models, seen(data(), models, [drawn(i, 30) for i in range(4)], 4, pace=measured)).seconds
    assert (found.expected, found.high) == pytest.approx((400 * 2 / 8, 400 * 2 / 4))


def test_a_local_model_is_forecast_by_its_tokens_a_second() -> None:
    models = {"policy": Answers()}
    measured = {"policy": Pace(4, 120, service=8.0, busy=2.0)}
    found = look(data(), models, seen(data(), models, [drawn(i, 30) for i in range(4)], 4, pace=measured)).seconds
    assert found.expected == found.high == pytest.approx(400 * 30 / 60)


def test_finished_rounds_go_before_the_preview_and_training_is_then_counted(tmp_path: Path) -> None:
    made = recipe(phase("made", learn={"policy": LEARN}, rounds=4, generate=Draw(n=3), verify=()), tasks=ASKED, held_out=HELD, probes=())
    models = {"policy": Answers()}
    preview = seen(made, models, [drawn(i, 30) for i in range(4)], 4, pace={"policy": Pace(4, 120, 8.0, 2.0)})
    before = look(made, models, preview, tmp_path)
    assert any("the time to train" in note for note in before.notes)
    write_json(tmp_path / "manifest.json", {"format": 1, "phases": [{"name": "made", "rounds": 4}]})
    lines = [("made/0000", 10.0), ("made/0000", 5.0), ("made/0001", 25.0), ("made/0002", 99.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"round": "{label}", "seconds": {time}}}\n' for label, time in lines))
    for number in range(2):
        (tmp_path / "made" / f"{number:04d}").mkdir(parents=True)
        write_json(tmp_path / "made" / f"{number:04d}" / "round.json", {})
    found = look(made, models, preview, tmp_path)
    assert (found.seconds.expected, found.seconds.low, found.seconds.high) == (4 * 20.0, 4 * 15.0, 4 * 25.0)
    assert not any("the time to train" in note for note in found.notes)
