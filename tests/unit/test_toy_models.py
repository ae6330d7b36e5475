"""The toy models learn exactly what their closed forms say, and answer the same whatever they are batched with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from outcross.errors import FingerprintError, ModelError
from outcross.models.categorical import Categorical
from outcross.models.local import FLOOR
from outcross.models.scripted import Scripted
from outcross.models.tabular import Tabular
from outcross.stages import Completes, CountsTokens, FitPlan, LogProbs, Trainable
from outcross.tasks.answers import Answers
from outcross.tasks.arithmetic import Arithmetic
from outcross.types import Completion, Example, Loss, Origin, Request, Response, Sampling, Task, Turn

STEADY = FitPlan(lr=1.0, epochs=5, batch=16, schedule="constant", warmup=0.0)


def ignore(step: int, ids: object) -> None:
    pass


def ask(model: Completes, *requests: Request) -> list[Response]:
    futures = [model.submit(request) for request in requests]
    model.flush()
    return [future.result(timeout=0) for future in futures]


def said(model: Completes, request: Request) -> list[object]:
    return [completion.content for completion in ask(model, request)[0].completions]


def rows(pairs: dict[str, str], depth: int = 0) -> list[Example]:
    return [Example(f"e{i}", prompt, answer, origin=Origin("real", depth=depth)) for i, (prompt, answer) in enumerate(pairs.items())]


def sums(numbers: range) -> dict[str, str]:
    return {f"{a}+{b}=": str(a + b) for a in numbers for b in range(10)}


# ── categorical ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_categorical_refits_exact_weighted_frequencies() -> None:
    examples = [Example("1", "", "a", weight=2.0), Example("2", "", "b"), Example("3", "", "a")]
    fitted = Categorical({"a": 1, "b": 1, "c": 1}).fit(examples, plan=STEADY, reference=None, seed=0, seen=ignore)
    assert fitted.symbols == ("a", "b", "c")
    assert fitted.probs.tolist() == [0.75, 0.25, 0.0]
    assert list(fitted.log_probs([Turn("", Completion("a")), Turn("", Completion("c"))])) == [(math.log(0.75),), (FLOOR,)]


def generations(weights: dict[str, float], size: int, count: int, seed: int) -> list[Categorical]:
    """The discrete collapse chain: draw `size` symbols, refit, repeat."""
    chain = [Categorical(weights)]
    for step in range(count):
        drawn = said(chain[-1], Request("", size, seed=seed * 1009 + step))
        examples = [Example(str(i), "", str(text)) for i, text in enumerate(drawn)]
        chain.append(chain[-1].fit(examples, plan=STEADY, reference=None, seed=0, seen=ignore))
    return chain


def test_a_rare_symbol_vanishes_in_one_generation_with_the_probability_of_the_closed_form() -> None:
    q, size, replicates = 0.02, 50, 2000
    lost = sum(generations({"rare": q, "common": 1 - q}, size, 1, seed)[1].probs[0] == 0 for seed in range(replicates))
    expected = (1 - q) ** size  # 0.364
    assert abs(lost / replicates - expected) < 4 * math.sqrt(expected * (1 - expected) / replicates)


def test_expected_heterozygosity_decays_by_one_part_in_m_a_generation() -> None:
    size, count, replicates = 20, 8, 800
    start = dict.fromkeys("abcd", 0.25)
    found = np.array([[1 - float((model.probs**2).sum()) for model in generations(start, size, count, seed)] for seed in range(replicates)])
    expected = 0.75 * (1 - 1 / size) ** np.arange(count + 1)
    error = found.std(axis=0) / math.sqrt(replicates)
    assert (np.abs(found.mean(axis=0) - expected) <= 4 * error + 1e-12).all()


def test_a_point_mass_is_absorbing() -> None:
    chain = generations({"a": 1.0, "b": 0.0}, 10, 3, seed=1)
    assert [model.probs.tolist() for model in chain] == [[1.0, 0.0]] * 4


def test_categorical_refuses_what_it_cannot_fit() -> None:
    model = Categorical({"a": 1})
    with pytest.raises(ModelError, match="at least one"):
        model.fit([], plan=STEADY, reference=None, seed=0, seen=ignore)
    with pytest.raises(ModelError, match="'dpo'"):
        model.fit([Example("1", "", "a", Loss("dpo"))], plan=STEADY, reference=None, seed=0, seen=ignore)
    with pytest.raises(ModelError, match="positive sum"):
        Categorical({"a": 0})


# ── tabular ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_tabular_learns_its_examples_and_generalises_to_prompts_it_never_saw() -> None:
    train, unseen = list(Arithmetic(2, n=1200)), list(Arithmetic(2, n=1200, split="held_out"))
    plan = FitPlan(lr=5.0, epochs=5, batch=64)
    model = Tabular().fit(Answers(train), plan=plan, reference=None, seed=0, seen=ignore)

    def rate(tasks: list[Task]) -> float:
        answers = ask(model, *(Request(task.prompt, 1, Sampling(0.0)) for task in tasks))
        return sum(r.completions[0].content == task.answer for r, task in zip(answers, tasks)) / len(tasks)

    assert rate(train) > 0.95
    assert rate(unseen) > 0.15  # of 179 answers; guessing gets 0.01 at best


def test_one_step_of_tabular_is_the_exact_gradient_of_the_likelihood() -> None:
    """Moving W by lr·g must change the loss by −lr·|g|² to first order; checked against log-probabilities alone."""
    start = Tabular(["x", "y", "zz"], window=2)
    rate = 1e-4
    one = FitPlan(lr=rate, epochs=1, batch=1, schedule="constant", warmup=0.0)
    moved = start.fit(rows({"ab": "y"}), plan=one, reference=None, seed=0, seen=ignore)
    before, after = (next(iter(model.log_probs([Turn("ab", Completion("y"))])))[0] for model in (start, moved))
    # the prompt has 5 features (bias, whole, a, b, a&b); x and y have 3 columns each (whole, first, last) and zz 5, all different
    slope, columns = np.array([1 / 3, 1 / 3 - 1, 1 / 3]), np.array([3, 3, 5])
    assert after - before == pytest.approx(rate * 5 * float((slope**2 * columns).sum()), rel=1e-3)


def test_answers_do_not_depend_on_what_they_are_batched_with() -> None:
    model = Tabular([str(i) for i in range(19)]).fit(rows(sums(range(5))), plan=STEADY, reference=None, seed=0, seen=ignore)
    requests = [Request(prompt, 3, seed=i) for i, prompt in enumerate(sums(range(10)))]
    together = ask(model, *requests)
    assert together == [ask(model, request)[0] for request in requests]
    assert together != ask(model, *(Request(r.prompt, 3, seed=r.seed + 1) for r in requests))


def test_drawn_frequencies_follow_the_log_probabilities_and_the_temperature() -> None:
    model = Tabular(["a", "b", "c"]).fit(rows({"p": "a", "q": "b"}), plan=STEADY, reference=None, seed=0, seen=ignore)
    log_probs = np.array([model_log_prob[0] for model_log_prob in model.log_probs(Turn("p", Completion(x)) for x in "abc")])
    assert np.exp(log_probs).sum() == pytest.approx(1.0)
    size = 20_000
    for temperature in (1.0, 0.5):
        expected = np.exp(log_probs / temperature) / np.exp(log_probs / temperature).sum()
        texts = said(model, Request("p", size, Sampling(temperature), seed=7))
        found = np.array([texts.count(symbol) / size for symbol in "abc"])
        assert (np.abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / size)).all()
    assert set(said(model, Request("p", 200, Sampling(top_k=1)))) == {"a"} == set(said(model, Request("p", 5, Sampling(0.0))))
    assert set(said(model, Request("p", 200, Sampling(top_p=float(np.exp(log_probs.max())) - 1e-6)))) == {"a"}


def test_choices_are_answered_with_log_probabilities() -> None:
    model = Tabular(["a", "b"])
    (response,) = ask(model, Request("p", choices=("b", "other")))
    assert response.completions[0].choice_log_probs == (pytest.approx(math.log(0.5)), FLOOR)


def test_the_order_of_examples_is_told_step_by_step_and_depends_on_the_seed() -> None:
    examples = rows(sums(range(4)))  # 40 examples

    def order(seed: int) -> list[list[str]]:
        steps: list[list[str]] = []
        Tabular().fit(
            examples,
            plan=FitPlan(lr=0.1, epochs=1.5, batch=16),
            reference=None,
            seed=seed,
            seen=lambda _, ids, **facts: steps.append(list(ids)),
        )
        return steps

    found = order(0)
    assert [len(step) for step in found] == [16, 16, 16, 12]
    flat = [identifier for step in found for identifier in step]
    assert set(flat[:40]) == {example.id for example in examples}
    assert found == order(0) != order(1)


def test_weights_scale_the_gradient_and_zero_teaches_nothing() -> None:
    def after(weight: float, rate: float) -> float:
        example = Example("1", "p", "b", weight=weight)
        plan = FitPlan(lr=rate, epochs=1, batch=1, schedule="constant", warmup=0.0)
        model = Tabular(["a", "b"]).fit([example], plan=plan, reference=None, seed=0, seen=ignore)
        return next(iter(model.log_probs([Turn("p", Completion("b"))])))[0]

    assert after(0.0, 1.0) == pytest.approx(math.log(0.5))
    assert after(2.0, 0.1) == after(1.0, 0.2) > after(1.0, 0.1)


def test_tabular_adds_answers_that_its_examples_show_and_keeps_the_old_model_as_it_was() -> None:
    old = Tabular(["a"])
    identity = old.id
    new = old.fit(rows({"p": "b"}), plan=STEADY, reference=None, seed=0, seen=ignore)
    assert new.answers == ("a", "b") and said(new, Request("p", 1, Sampling(0.0))) == ["b"]
    assert old.answers == ("a",) and old.id == identity != new.id


def test_tabular_says_what_it_cannot_do() -> None:
    assert "knows no answer" in ask(Tabular(), Request("p"))[0].error
    assert "schema" in ask(Tabular(["a"]), Request("p", schema="{}"))[0].error
    with pytest.raises(ModelError, match=r"loss .dpo. and no rejected answer"):
        Tabular(["a"]).fit([Example("1", "p", "a", Loss("dpo"))], plan=STEADY, reference=None, seed=0, seen=ignore)


# ── both ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
MAKERS: list[Callable[[], Tabular | Categorical]] = [lambda: Tabular(["a", "b"], window=3), lambda: Categorical({"a": 1, "b": 2})]


@pytest.mark.parametrize("make", MAKERS, ids=["tabular", "categorical"])
def test_a_saved_model_is_the_same_bytes_each_time_and_loads_as_the_same_model(
    make: Callable[[], Tabular | Categorical], tmp_path: Path
) -> None:
    examples = rows({"p": "a", "q": "c"}, depth=3)
    models = [make().fit(examples, plan=STEADY, reference=None, seed=5, seen=ignore) for _ in range(2)]
    for index, model in enumerate(models):
        model.save(tmp_path / str(index))
    files = [{path.name: path.read_bytes() for path in (tmp_path / str(index)).iterdir()} for index in range(2)]
    assert files[0] == files[1]
    loaded = make().load(tmp_path / "0")
    assert loaded.id == models[0].id == models[1].id and loaded.depth == 3
    request = Request("p", 20, seed=3)
    assert ask(loaded, request) == ask(models[0], request)
    with pytest.raises(ModelError, match="save"):
        make().load(tmp_path / "nothing")


@pytest.mark.parametrize("make", MAKERS, ids=["tabular", "categorical"])
def test_toy_models_offer_every_capability_that_training_asks_for(make: Callable[[], Tabular | Categorical]) -> None:
    model = make()
    for capability in (Completes, LogProbs, Trainable, CountsTokens):
        assert isinstance(model, capability)
    assert model.depth == 0
    assert model.fit(rows({"p": "a"}, depth=2), plan=STEADY, reference=None, seed=0, seen=ignore).depth == 2
    assert model.fresh(0).depth == 0


# ── scripted ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_scripted_answers_by_mapping_list_or_function() -> None:
    mapped = Scripted({"p": "one", "q": ["x", "y"]})
    assert said(mapped, Request("p", 2)) == ["one", "one"]
    assert said(mapped, Request("q", 3, seed=1)) == ["y", "x", "y"]
    assert "no answer to 'r'" in ask(mapped, Request("r"))[0].error
    assert said(Scripted(["a", "b"]), Request("anything", 2)) == ["a", "b"]
    assert said(Scripted(shout), Request("hey")) == ["HEY"]
    assert mapped.requests == 3


def shout(request: Request) -> str:
    assert isinstance(request.prompt, str)
    return request.prompt.upper()


def stumble(request: Request) -> Response:
    if request.prompt == "raise":
        raise RuntimeError("the script broke")
    return Response(error="busy")


def test_scripted_fails_where_it_is_told_to() -> None:
    assert ask(Scripted(["a"], failing={"p"}), Request("p"), Request("q"))[0].error == "scripted to fail"
    model = Scripted(stumble)
    futures = [model.submit(Request(prompt)) for prompt in ("raise", "other")]
    model.flush()
    assert isinstance(futures[0].exception(), RuntimeError)
    assert futures[1].result().error == "busy"


def test_scripted_is_named_by_its_script() -> None:
    assert Scripted({"p": "a"}).id == Scripted({"p": "a"}).id != Scripted({"p": "b"}).id
    assert Scripted(shout).id != Scripted(stumble).id
    with pytest.raises(FingerprintError):
        Scripted(lambda request: "x")
    assert Scripted(lambda request: "x", name="mine").id == "scripted:mine"
