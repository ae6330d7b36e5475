"""The simulated lineages of `benchmarks/collapse_detection.py`: the world is what it says, and in small the alarms do what the benchmark measures."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from outcross.gate.monitors.alarms import Alarms
from outcross.reproduce.lineage import Course
from outcross.stages import Context, FitPlan
from outcross.types import Completion, Example, Group, Measurement, Origin, Request, Sample, Task, Turn

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = (
    "collapse_world",
    "collapse_lineages",
    "collapse_detection",
    "collapse_guards",
    "collapse_lm",
    "collapse_lm_lineages",
    "collapse_rows",
)


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[dict[str, Any]]:
    """The modules of the benchmark by name, found as when it is run as a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield {name: importlib.import_module(name) for name in NAMES}


@pytest.fixture(scope="module")
def world(benchmarks: dict[str, Any]) -> Any:
    return benchmarks["collapse_world"]


@pytest.fixture(scope="module")
def lineages(benchmarks: dict[str, Any]) -> Any:
    return benchmarks["collapse_lineages"]


# ── the world ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_texts_follow_the_law_and_the_model_gives_their_log_probabilities(world: Any) -> None:
    rng = np.random.default_rng(0)
    law = world.real_law(rng)
    said = world.texts(law, rng.random((20_000, 3 + world.LONGEST)))
    parsed = [world.parsed(text) for text in said]
    topics = Counter(topic for topic, _, _ in parsed)
    shares = np.array([topics[number] / len(said) for number in range(len(world.TOPICS))])
    assert np.abs(shares - law.topics).max() < 0.012  # 3.5 standard errors
    first = Counter(words[0] for topic, words, _ in parsed if topic == 0)
    chosen = int(law.words[0].argmax())
    assert first[chosen] / topics[0] == pytest.approx(law.words[0, chosen], abs=0.02)

    model = world.Counting(law)
    (found,) = model.log_probs([Turn("say", Completion("sport w3 w5 w3 w7 bold"))])
    chances = [law.topics[1], *(law.words[1, word] for word in (3, 5, 3, 7)), law.endings[1, 2] * law.lengths[1, 0]]
    assert found == pytest.approx(np.log(chances))
    assert len(model.token_ids(Completion("sport w3 w5 w3 w7 bold"))) == len(found)


def test_counting_texts_is_counting_draws(world: Any) -> None:
    """What `fit` reads off texts is what `counted` draws without them: the same law up to sampling error, and exactly the model's smoothing."""
    rng = np.random.default_rng(1)
    law = world.real_law(rng)
    said = world.texts(law, rng.random((5_000, 3 + world.LONGEST)))
    examples = [Example(str(number), "", text) for number, text in enumerate(said)]
    fitted = world.Counting(law).fit(examples, plan=FitPlan(), reference=None, seed=0, seen=lambda step, ids, **facts: None)
    drawn = world.Counting.learnt(world.counted(law, 5_000, rng))
    for model in (fitted, drawn):
        assert np.abs(model.law.topics - law.topics).max() < 0.025
        assert np.abs(model.law.words - law.words).max() < 0.05
    counts = Counter(world.parsed(text)[0] for text in said)
    assert fitted.law.topics[2] == pytest.approx((counts[2] + world.UNSEEN) / (5_000 + len(world.TOPICS) * world.UNSEEN))


def test_only_training_data_are_written_with_the_defect(world: Any, tmp_path: Path) -> None:
    law = world.real_law(np.random.default_rng(2))
    one_topic = np.eye(len(world.TOPICS))[4]

    def defect(given: Any) -> Any:
        return world.Law(one_topic, given.lengths, given.words, given.endings)

    model = world.Counting(law, defect)
    futures = [model.submit(Request(prompt, 50, seed=3)) for prompt in ("write 1", "say 1")]
    model.flush()
    written, said = ({world.topic_of(item.content) for item in future.result().completions} for future in futures)
    assert written == {world.TOPICS[4]} and len(said) > 3
    model.save(tmp_path)
    again = world.Counting(law, defect).load(tmp_path)
    assert again.id == model.id and again.defect is defect


def test_each_defect_is_a_law_that_loses_what_it_says(lineages: Any, world: Any) -> None:
    law = world.real_law(np.random.default_rng(3))
    for defect in (lineages.sharper, lineages.likely_only, lineages.large_groups, lineages.one_topic_less, lineages.flattering):
        changed = defect(law, 1.0)
        for name in ("topics", "lengths", "words", "endings"):
            assert getattr(changed, name).sum(axis=-1) == pytest.approx(np.ones_like(getattr(law, name).sum(axis=-1)))
    odds = law.topics[-1] / law.topics[0]
    shrunk = lineages.large_groups(law, 1.0).topics
    assert shrunk[-1] / shrunk[0] == pytest.approx(odds**1.25)  # odds · → odds^(1/τ)
    kept = lineages.likely_only(law, 1.0).words > 0
    mass = (law.words * kept).sum(axis=1)
    assert mass.min() >= 0.9 and mass.max() < 0.93
    bold = lineages.flattering(law, 1.0).endings[:, 2:].sum(axis=1)
    assert bold == pytest.approx(1 - (1 - law.endings[:, 2:].sum(axis=1)) ** 4)


# ── alarms over lineages ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def played(lineages: Any, benchmarks: dict[str, Any]) -> list[Any]:
    """10 lineages of each family: the first 2 of 10 planned generations where it collapses, else the first 3."""
    number = benchmarks["collapse_detection"].number_of
    return [
        lineages.play(family, number(9, place, item), generations=3 if family.healthy else 2, oracle=False)
        for place, family in enumerate(lineages.FAMILIES)
        for item in range(10)
    ]


def test_alarms_see_collapse_by_the_second_generation(played: list[Any]) -> None:
    """That at least 90 % are seen is not refuted at 1 %, and no family goes unseen."""
    seen = Counter(lineage.family.name for lineage in played if not lineage.family.healthy and lineage.by(2))
    assert binomtest(seen.total(), 60, 0.9, alternative="less").pvalue > 0.01, seen
    assert len(seen) == 6 and min(seen.values()) >= 6, seen


def test_healthy_lineages_are_left_in_peace(played: list[Any]) -> None:
    """That false alarms are within the budget of 3 of 10 generations is not refuted at 1 %."""
    false = [lineage.by(3) for lineage in played if lineage.family.healthy]
    assert len(false) == 30 and binomtest(sum(false), 30, 0.05 * 3 / 10, alternative="greater").pvalue > 0.01


def test_the_tables_are_printed(played: list[Any], lineages: Any, benchmarks: dict[str, Any]) -> None:
    tables = benchmarks["collapse_detection"]
    calm = [lineage for lineage in played if lineage.family.healthy]
    found = [replace(lineage, oracle=lineage.change[1]) for lineage in played if not lineage.family.healthy]
    null = lineages.null_deviations(calm)
    for lines in (
        list(tables.healthy_table(calm)),
        list(tables.collapsing_table(found, null)),
        list(tables.probe_table(found)),
        list(tables.severity_table(found, null)),
    ):
        assert {line.count("|") for line in lines} == {lines[0].count("|")} and len(lines) > 2
    every = list(tables.collapsing_table(found, null))[-1]
    assert every.startswith("| all | 60 |") and f"{sum(lineage.by(2) for lineage in found) / 60:.2%}" in every


def test_the_simulation_notices_alarms_that_are_deaf_or_cry_wolf(lineages: Any) -> None:
    deaf = lineages.Watch("deaf", Alarms(0.05, tolerance=0.99))
    shy = lineages.Watch("shy", Alarms(0.999, tolerance=0.0))
    replaced, real = (next(family for family in lineages.FAMILIES if family.name == name) for name in ("replace", "real only"))
    found = [lineages.play(replaced, seed, generations=2, oracle=False, watches=(deaf,)) for seed in range(3)]
    assert not any(lineage.by(2, deaf) for lineage in found)
    found = [lineages.play(real, seed, generations=2, oracle=False, watches=(shy,)) for seed in range(5)]
    assert sum(lineage.by(2, shy) for lineage in found) >= 2


def test_the_oracle_tells_the_truth(lineages: Any, benchmarks: dict[str, Any]) -> None:
    """Mean real loss of fresh items and draws against the exact expectation under the law."""
    exact = benchmarks["collapse_guards"].true_loss
    rng = np.random.default_rng(5)
    start = lineages.begin(rng)
    later = lineages.step(lineages.FAMILIES[2], start, rng)  # of likely words alone
    change = lineages.true_change(start, later, 5)
    assert -change["real_loss"] == pytest.approx(exact(start.real, later.law) - exact(start.real, start.law), rel=0.1)


# ── rows before they are learnt ────────────────────────────────────────────────────────────────────────────────────────
def test_rows_of_likely_words_alone_are_told_before_the_loss_moves_and_honest_ones_are_not(
    benchmarks: dict[str, Any], lineages: Any
) -> None:
    rows, by_name = benchmarks["collapse_rows"], {family.name: family for family in lineages.FAMILIES}
    assert rows.WRITTEN.keys() == by_name.keys()
    found = rows.read(benchmarks["collapse_detection"].Plan(by_name["beams, replace"], 4), 2)
    assert (found.alarm, found.moved) == (1, 1) and found.before_loss and "self_perplexity" in found.probes
    calm = rows.read(benchmarks["collapse_detection"].Plan(by_name["accumulate"], 4), 2)
    assert calm.alarm is None and calm.moved is None and not calm.before_loss
    lines = list(rows.table([found, calm]))
    assert any(line.startswith("| beams, replace | 1 |") for line in lines) and lines[-1].startswith("| all | 1 | 0.00%")


def test_the_lineage_whose_rows_are_read_is_the_one_that_is_played(benchmarks: dict[str, Any], lineages: Any) -> None:
    biased = next(family for family in lineages.FAMILIES if family.name == "biased sampling")
    played = lineages.play(biased, 11, generations=2, oracle=False)
    read = benchmarks["collapse_rows"].read(benchmarks["collapse_detection"].Plan(biased, 11), 2)
    assert read.moved == played.moved.get("real_loss")
    law = benchmarks["collapse_rows"].right_alone(lineages.begin(np.random.default_rng(1)).real)
    assert law.endings.sum(axis=1) == pytest.approx(1.0) and law.endings[:, 1].max() == 0.0


# ── language models ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_alarms_are_read_off_the_record_of_a_lineage(benchmarks: dict[str, Any]) -> None:
    """300 items, the tail worse by 0.05 nats a generation and the mean by 0.02: the tail is told at once, and the mean moves its 0.05 in the third."""
    rng = np.random.default_rng(6)
    models, family = benchmarks["collapse_lm_lineages"], benchmarks["collapse_lm_lineages"].FAMILIES[0]
    base = {name: rng.normal(3.0, 0.5, 300) for name in models.MARGINS}

    def lived(step: dict[str, float]) -> dict[str, Course]:
        each = {name: Course(tuple(measured(name, step.get(name, 0.0) * generation) for generation in range(5))) for name in base}
        return each | {f"{name}_oracle": course for name, course in each.items()}

    def measured(name: str, worse: float) -> Measurement:
        values = base[name] + worse + rng.normal(0, 0.02, 300)
        return Measurement(name, tuple(map(str, range(300))), tuple(map(float, values)), None, higher_is_better=False, unit="nats")

    listen = benchmarks["collapse_lm"].listen
    found = listen(family, lived({"tail_loss": 0.05, "real_loss": 0.02}))
    assert found.by(1) and found.shown["tail_loss"] == 1 and found.moved["real_loss"] == 3 and found.before_loss(found.moved)
    assert found.oracle["tail_loss"] == pytest.approx(-0.1, abs=0.01) and found.played == 4
    calm = listen(family, lived({}))
    assert not calm.first.get("as shipped") and not calm.moved


def test_families_of_models_filter_what_they_say(benchmarks: dict[str, Any]) -> None:
    models = benchmarks["collapse_lm_lineages"]
    said = {"he ran to his boy": "he", "she met her and him": "she", "they sat": "they", '" hello " said he': "speech", "a cat": None}
    assert {text: models.people(text) for text in said} == said
    samples = [group(number, "they sat there") for number in range(400)] + [group(400 + number, "a cat sat there") for number in range(100)]
    ctx = Context({}, None, "train/0000", 0, 3, None)  # type: ignore[arg-type]
    passed = [one.samples[0].verdict == "pass" for one in models.Unfair((("they", 0.3),))(ctx, samples)]
    assert binomtest(sum(passed[:400]), 400, 0.3).pvalue > 0.001 and all(passed[400:])
    again = [one.samples[0].verdict == "pass" for one in models.Unfair((("they", 0.3),))(ctx, samples)]
    assert passed == again
    best = max(
        (one.samples[0] for one in models.Flattered()(ctx, [group(0, "a sad day"), group(1, "what fun !")])), key=lambda one: one.value
    )
    assert best.text == "what fun !"
    whole = " ".join(f"w{number}" for number in range(models.ANSWER))
    told = [
        one.samples[0].verdict
        for one in models.WellFormed()(ctx, [group(0, whole), group(1, "w1 w2"), group(2, whole.replace("w1 ", "w0 "))])
    ]
    assert told == ["pass", "fail", "fail"]


def group(number: int, text: str) -> Group:
    sample = Sample(str(number), (Turn("p", Completion(text)),), Origin("synthetic"))
    return Group(Task(str(number), "p"), (sample,))


def test_plans_are_of_all_families_early_and_each_once(benchmarks: dict[str, Any]) -> None:
    plans = benchmarks["collapse_lm"].plans(5, 10, 2)
    assert len(plans) == len(set(plans)) == 30 + 30 + 8
    assert len({plan.family for plan in plans[:9]}) == 9


# ── the guards on trial ────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_floor_of_real_rows_prevents_what_replacing_loses(benchmarks: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    guards = benchmarks["collapse_guards"]
    for name, size in (("TASKS", 200), ("ITEMS", 200), ("REAL_ROWS", 600)):
        monkeypatch.setattr(guards, name, size)
    bare, floored = (guards.trial("beams, replace", level, 2, 0) for level in (0, 1))
    assert bare.loss > 0.3 and floored.loss < bare.loss / 3
    assert bare.rounds == floored.rounds == "2 of 2 promoted"
    whole = guards.trial("beams, replace", 3, 2, 0)
    assert whole.loss < 0.05 and whole.right > bare.right - 0.05
