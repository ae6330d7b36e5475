"""Probes of what answers look like: closed forms, a reference implementation, and toy models that answer for real."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import NoPast, context
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.errors import ConfigError, StageError
from outcross.evaluate.answer_modes import AnswerModes, differ, effective
from outcross.evaluate.diversity import Diversity
from outcross.evaluate.length_drift import LengthDrift
from outcross.evaluate.lexical import SelfBleu, compression, type_token_curve, zipf_exponent
from outcross.evaluate.memorisation import Memorisation
from outcross.evaluate.statistics import half_samples
from outcross.evaluate.text_statistic import TextStatistic, compressed, self_bleu, vocabulary, zipf
from outcross.gate.evidence import weigh
from outcross.generate.draw import Draw
from outcross.models.categorical import Categorical
from outcross.models.tabular import Tabular
from outcross.stages import Context, FitPlan, Model
from outcross.types import Example, Measurement, Origin, Response, Task

REAL = Origin("real", "attested", "made up")


def on(folder: Path, model: Model, real: Sequence[Example] = ()) -> Context:
    return Context({"policy": model}, NoPast(folder, real), "probe", 0, 7, context(folder).runner)


# ── statistics ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.6])
def test_zipfs_exponent_is_found_exactly_in_exact_counts_and_nearly_in_samples(exponent: float) -> None:
    shares = np.arange(1, 301) ** -exponent
    exact = np.round(shares / shares.sum() * 10**12).astype(np.int64)
    assert zipf_exponent(exact) == pytest.approx(exponent, abs=1e-6)
    sampled = np.random.default_rng(0).multinomial(50_000, shares / shares.sum())
    assert zipf_exponent(sampled, 300) == pytest.approx(exponent, abs=0.03)


def test_zipfs_exponent_has_ends() -> None:
    assert zipf_exponent(np.full(50, 7)) == 0.0
    assert zipf_exponent(np.array([9])) == zipf_exponent(np.array([9]), 40) == 20.0


def test_the_type_token_curve_of_uniform_draws_is_the_expected_one() -> None:
    counts = np.full(100, 50)
    hypergeometric = [100 * (1 - math.comb(4950, size) / math.comb(5000, size)) for size in (1, 20, 200)]
    assert type_token_curve(counts, [1, 20, 200]) == pytest.approx(hypergeometric)
    assert type_token_curve(counts, [200])[0] == pytest.approx(100 * (1 - 0.99**200), rel=0.01)
    assert type_token_curve(np.array([3, 1]), [4, 100]) == pytest.approx([2, 2])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=12))
def test_the_type_token_curve_rises_to_the_vocabulary_and_bends_down(counts: list[int]) -> None:
    curve = type_token_curve(np.array(counts), range(sum(counts) + 1))
    steps = np.diff(curve)
    assert curve[0] == pytest.approx(0, abs=1e-9) and curve[-1] == pytest.approx(len(counts))
    assert (steps > -1e-9).all() and (np.diff(steps) < 1e-9).all()


def test_noise_does_not_compress_and_repetition_does() -> None:
    noise = random.Random(0).randbytes(20_000)
    assert compression(noise) == pytest.approx(1.0, abs=0.01) and compression(b"a" * 20_000) < 0.005
    assert compression(noise[:10_000] * 2) == pytest.approx(0.5, abs=0.01)


def texts(seed: int, count: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [rng.choices("abcdefg", (9, 5, 3, 2, 1, 1, 1), k=rng.randrange(1, 12)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_self_bleu_is_sacrebleus(seed: int) -> None:
    bleu = pytest.importorskip("sacrebleu.metrics", reason="pip install sacrebleu to hold self-BLEU against it").BLEU(
        tokenize="none", smooth_method="floor", smooth_value=0.1, effective_order=True
    )
    given_ = texts(seed, 25)
    joined = [" ".join(text) for text in given_]
    for chosen in (np.ones(25, bool), np.arange(25) % 2 == 0):
        kept = [text for text, keep in zip(joined, chosen, strict=True) if keep]
        expected = [bleu.sentence_score(text, kept[:place] + kept[place + 1 :]).score / 100 for place, text in enumerate(kept)]
        assert SelfBleu(given_)(chosen) == pytest.approx(np.mean(expected), abs=1e-9)


def test_self_bleu_is_one_for_equal_texts_and_zero_for_texts_without_a_common_word() -> None:
    assert SelfBleu([["a", "b", "c", "d", "e"]] * 4)(np.ones(4, bool)) == pytest.approx(1.0)
    assert SelfBleu([["a", "b"], ["c", "d"]])(np.ones(2, bool)) == SelfBleu([["a"]])(np.ones(1, bool)) == 0.0


@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_equally_frequent_answers_are_k_modes(k: int) -> None:
    answers = [str(number) for number in range(k)] * 6
    assert effective(answers) == pytest.approx(k)
    rng = random.Random(k)
    assert np.mean([differ(rng.choices(range(k), k=3)) for _ in range(20_000)]) == pytest.approx(1 - 1 / k, abs=0.012)  # type: ignore[arg-type]


# ── probes on toy models ───────────────────────────────────────────────────────────────────────────────────────────────
WORDS = [f"{random.Random(number).randrange(10**6):06d}" for number in range(400)]


def say(words: int, count: int, seed: int = 3) -> list[str]:
    """Texts of one language, whose words are as frequent as Zipf's law has it."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, [1 / (number + 1) for number in range(400)], k=words)) for _ in range(count)]


TEXTS = say(8, 300)
MORE = say(8, 20_000, 5)  # so many that few are drawn twice
ASKED = tuple(Task(f"t{i}", f"say something about {i}", text) for i, text in enumerate(TEXTS))
STATISTICS = [TextStatistic(ASKED, Draw(n=1), name, replicates=60) for name in ("vocabulary", "zipf", "self_bleu", "compression")]


@pytest.mark.parametrize("probe", STATISTICS, ids=lambda probe: probe.name)
def test_a_text_statistic_is_near_zero_for_answers_like_the_real_ones_and_falls_with_collapse(probe: TextStatistic, tmp_path: Path) -> None:
    """The dropped mode is what the gate sees: it refuses the collapsed policy, and passes a healthy one with the margin of its noise."""
    healthy, again, few = (
        probe(on(tmp_path, Categorical(weights)))
        for weights in (dict.fromkeys(MORE, 1.0), dict.fromkeys(MORE[::-1], 1.0), dict.fromkeys(TEXTS[:4], 1.0))
    )
    assert healthy.replicates is not None and sum(healthy.replicates) / 60 == pytest.approx(healthy.values[0])
    spread = float(np.std(healthy.replicates))
    assert abs(healthy.values[0]) < 4 * spread and few.values[0] < healthy.values[0] - 5 * spread
    assert few.values[0] < -0.1 and weigh(few, healthy, 0.025).low < -0.1
    assert weigh(again, healthy, 0.025).low > -6 * spread and healthy.unit.endswith(" over real")


@pytest.mark.parametrize("statistic", [vocabulary, zipf, self_bleu, compressed], ids=lambda statistic: statistic.__name__)
def test_real_against_real_is_about_zero_and_as_far_from_it_as_the_replicates_say(statistic: Callable[..., Any]) -> None:
    """The null calibration: two sets of texts of one language, again and again."""
    subsets = half_samples([str(i) for i in range(100)], 30)
    found = [statistic(say(8, 100, 2 * pair + 100), say(8, 100, 2 * pair + 101), subsets) for pair in range(40)]
    values = np.array([each[0] for each in found])
    spread = math.sqrt(np.mean([each[1:].var(ddof=1) for each in found]))
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(40)
    assert 0.7 * values.std() < spread < 2.0 * values.std(), (spread, values.std())


@pytest.mark.parametrize("probe", STATISTICS[:2] + STATISTICS[3:], ids=lambda probe: probe.name)
def test_longer_answers_from_the_same_language_are_not_richer_or_poorer(probe: TextStatistic, tmp_path: Path) -> None:
    """Four times as many words of one distribution have more different words, a longer tail and compress better."""
    tasks = tuple(Task(f"t{i}", "say", text) for i, text in enumerate(say(8, 200)))
    long = type(probe)(tasks, Draw(n=1), probe.statistic, replicates=40)(on(tmp_path, Categorical(dict.fromkeys(say(32, 3000, 4), 1.0))))
    assert long.replicates is not None
    assert abs(long.values[0]) < max(0.05, 4 * float(np.std(long.replicates)))


def test_text_statistics_leave_out_items_without_an_answer(tmp_path: Path) -> None:
    class Mute(Categorical):
        """Fails on prompts that end in 77, or in 7."""

        ending = "77"

        def flush(self) -> None:
            for request, future in self._pending.take():
                fails = str(request.prompt).endswith(self.ending)
                future.set_result(Response(error="busy") if fails else self._answer(request))

    class Muter(Mute):
        ending = "7"

    found = STATISTICS[0](on(tmp_path, Mute(dict.fromkeys(TEXTS, 1.0))))
    assert len(found.items) == 300 and abs(found.values[0]) < 0.5
    with pytest.raises(StageError, match="could not measure 30 of 300"):
        STATISTICS[0](on(tmp_path, Muter(dict.fromkeys(TEXTS, 1.0))))


def length(folder: Path, drift: str, answer: str) -> Measurement:
    tasks = tuple(Task(f"t{i}", "say", "abc") for i in range(50))
    return LengthDrift(tasks, Draw(n=2), drift, replicates=20)(on(folder, Categorical({answer: 1.0})))  # type: ignore[arg-type]


def test_length_is_in_doublings_and_each_probe_minds_one_side(tmp_path: Path) -> None:
    assert length(tmp_path, "longer", "a" * 15).values == pytest.approx((-2.0,))
    assert length(tmp_path, "shorter", "a" * 15).values == pytest.approx((2.0,))
    assert length(tmp_path, "shorter", "a").values == pytest.approx((-1.0,)) and length(tmp_path, "longer", "xyz").values == (0.0,)
    words = LengthDrift((Task("t", "say", "one two three"),) * 1, Draw(n=1), counted="words", replicates=2)
    assert words(on(tmp_path, Categorical({"one 2 3 four five six seven": 1.0}))).values == pytest.approx((-1.0,))


def test_one_answer_to_each_prompt_is_a_lost_mode_though_the_pool_is_as_varied_as_ever(tmp_path: Path) -> None:
    """The planted drop moves the probe of modes, and not the pooled entropy or the length."""
    answers = [f"{i}{i}" for i in range(10, 18)]
    tasks = tuple(Task(f"t{i}", f"case {i}:", answers[i % 8]) for i in range(80))
    rows = [Example(f"e{i}", task.prompt, answers[i % 8], origin=REAL) for i, task in enumerate(tasks)]
    varied = Tabular(answers)
    plan = FitPlan(lr=4.0, epochs=80, batch=80, schedule="constant", warmup=0)
    stuck = varied.fit(rows, plan=plan, reference=None, seed=0, seen=lambda step, ids, **facts: None)
    probes = (AnswerModes(tasks, Draw(n=6)), Diversity(tasks, Draw(n=6), replicates=40), LengthDrift(tasks, Draw(n=6), replicates=40))
    before, after = ([probe(on(tmp_path, model)) for probe in probes] for model in (varied, stuck))
    assert before[0].mean == pytest.approx(7 / 8, abs=0.03) and after[0].mean < 0.1
    assert after[1].values[0] > before[1].values[0] - 0.02 and after[2].values == before[2].values
    assert weigh(after[0], before[0], 0.025).low < -0.7 and weigh(after[1], before[1], 0.025).low > -0.1


def test_modes_stop_counting_at_enough_and_need_two_answers(tmp_path: Path) -> None:
    model = Categorical(dict.fromkeys("abcd", 1.0))
    modes = AnswerModes(ASKED[:50], Draw(n=40), "effective", enough=2.0)(on(tmp_path, model))
    assert set(modes.values) == {2.0} and modes.unit == "answers"
    assert AnswerModes(ASKED[:50], Draw(n=400), "effective")(on(tmp_path, model)).mean == pytest.approx(4.0, abs=0.05)
    with pytest.raises(ConfigError, match="n of 2 or more"):
        AnswerModes(ASKED, Draw(n=1))


def test_memorisation_is_the_share_of_answers_with_a_long_span_of_a_training_row(tmp_path: Path) -> None:
    rng = random.Random(5)
    told = [f"w{rng.randrange(500)}" for _ in range(60)]
    row = Example("row", "Write:", " ".join(told), origin=REAL)
    others = [Example(f"o{i}", "Write:", " ".join(f"x{rng.randrange(500)}" for _ in range(60)), origin=REAL) for i in range(20)]
    probe = Memorisation(ASKED[:20], Draw(n=8), span=12)

    def share(answer: str) -> float:
        return probe(on(tmp_path, Categorical({answer: 1.0, "I would rather not say": 1.0}), [*others, row])).mean

    for start in range(0, 12):
        assert share(f"So: {', '.join(told[start : start + 12]).upper()}. The end") == pytest.approx(0.5, abs=0.1), start
        assert share(f"so {' '.join(told[start : start + 11])} the end") == 0.0, "one word less is no copy"
    assert share(" ".join([*told[:11], "other", *told[12:23]])) == 0.0
    found = probe(on(tmp_path, Categorical({"x": 1.0}), [row]))
    assert found.unit == "share" and not found.higher_is_better and found.items == tuple(task.id for task in ASKED[:20])
    with pytest.raises(ConfigError, match="there are none"):
        probe(on(tmp_path, Categorical({"x": 1.0})))
    with pytest.raises(ConfigError, match="span is 1"):
        Memorisation(ASKED, Draw(n=1), span=1)
