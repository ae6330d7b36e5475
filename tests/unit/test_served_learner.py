"""Models that are trained here and answer through a server: whose weights answer when, whose memory is free when, and new weights
without a restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from served_tools import PROGRAM, lives, runs
from tiny_lm import SUMS, fit, tiny, weights
from toys import Says, recipe

from outcross.engine.loop import run
from outcross.engine.store import RunDir
from outcross.errors import ConfigError, ModelError
from outcross.models.categorical import Categorical
from outcross.models.served import ServedLearner, served
from outcross.models.tabular import Tabular
from outcross.models.torch_lm import Lora, TorchLM
from outcross.stages import Completes, CountsTokens, FitPlan, LogProbs, Model, Trainable
from outcross.train.adapter import read_adapter, stacked
from outcross.types import Completion, Example, Request, Sampling, Turn

ANSWERS = [str(i) for i in range(13)]
GREEDY = Sampling(temperature=0.0, max_tokens=6)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTCROSS_CACHE", str(tmp_path / "cache"))


@contextmanager
def serving(model: Model, tmp_path: Path, more: str = "", **settings: Any) -> Iterator[ServedLearner]:
    made = served(PROGRAM, model=model, options=f"--lives {tmp_path / 'lives'} {more}", **settings)
    assert isinstance(made, ServedLearner)
    with closing(made):
        yield made


def taught(model: ServedLearner, *texts: str) -> ServedLearner:
    examples = [Example(f"e{i}", "p", text) for i, text in enumerate(texts)]
    return model.fit(examples, plan=FitPlan(), reference=None, seed=0, seen=lambda step, ids, **facts: None)


def said(model: ServedLearner, prompt: str = "p", **more: Any) -> str:
    response = model.submit(Request(prompt, **more)).result(60)
    return response.error or str(response.completions[0].content)


def test_a_learner_trains_as_its_model_and_answers_through_the_server(tmp_path: Path) -> None:
    with serving(Categorical({"a": 1.0, "b": 0.0}), tmp_path) as first:
        assert all(isinstance(first, kind) for kind in (Completes, LogProbs, CountsTokens, Trainable))
        assert said(first) == "a"
        candidate = taught(first, "b", "b")
        assert candidate.depth == 0 and candidate.id != first.id
        assert said(candidate) == "b" and said(first) == "a"
        assert list(candidate.log_probs([Turn("p", Completion("b"))])) == [(0.0,)]
        candidate.close()
        assert said(first) == "a"  # closing one leaves the server to the others
    assert not any(runs(pid) for pid, _, _ in lives(tmp_path / "lives"))


def test_saved_and_loaded_it_is_the_same_model(tmp_path: Path) -> None:
    with serving(Categorical({"a": 1.0, "b": 3.0}), tmp_path) as first:
        first.save(tmp_path / "saved")
        with closing(first.load(tmp_path / "saved")) as loaded:
            assert loaded.id == first.id != Categorical({"a": 1.0, "b": 3.0}).id
            assert said(loaded, seed=5) == said(first, seed=5) and len(lives(tmp_path / "lives")) == 1  # the same weights, the same server
        with closing(first.fresh(0)) as fresh:
            assert fresh.id != first.id


def test_weights_are_served_from_where_they_were_saved_even_when_that_was_renamed(tmp_path: Path) -> None:
    with serving(Categorical({"a": 1.0}), tmp_path) as first:
        first.save(tmp_path / "model.tmp")
        (tmp_path / "model.tmp").rename(tmp_path / "model")
        assert said(first) == "a"
        log = next((tmp_path / "cache" / "served").glob("*.log"))
        assert log.exists() and first._station._server is not None
        assert f"{tmp_path / 'model'} " in first._station._server.process.shown


def test_memory_is_held_by_the_server_or_the_model_and_not_both(tmp_path: Path) -> None:
    inner = tiny()
    with serving(inner, tmp_path) as first:
        before = first.id
        said(first, "1+1=", sampling=GREEDY)
        with pytest.raises(ModelError, match="was closed"):
            inner.log_probs([Turn("1+1=", Completion("2"))]).__next__()
        assert first.count_tokens("1+1=") == 4 and first.id == before
        ((pid, _, _),) = lives(tmp_path / "lives")
        candidate = first.fit(SUMS, plan=FitPlan(lr=1e-2, batch=4), reference=first, seed=0, seen=lambda step, ids, **facts: None)
        assert not runs(pid)
        scores = list(candidate.log_probs([Turn("1+1=", Completion("2"))]))
        assert len(lives(tmp_path / "lives")) == 1  # nothing was asked
        said(candidate, "1+1=", sampling=GREEDY)
        assert list(candidate.log_probs([Turn("1+1=", Completion("2"))])) == scores
        assert not runs(lives(tmp_path / "lives")[1][0])  # the model scored, so the server gave way
        candidate.close()


def test_with_memory_of_its_own_the_server_goes_on_through_a_fit(tmp_path: Path) -> None:
    with serving(Categorical({"a": 1.0, "b": 0.0}), tmp_path, memory="own") as first:
        said(first)
        candidate = taught(first, "b")
        assert runs(lives(tmp_path / "lives")[0][0]) and said(first) == "a"
        assert said(candidate) == "b" and len(lives(tmp_path / "lives")) == 2  # no adapter: a restart
        candidate.close()


# ── in the loop ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_run_with_a_served_policy_is_a_run(tmp_path: Path) -> None:
    """Three models answer through the server, refused ones among them; the champion's folder is the plain model's, and resuming works."""
    plan = recipe(gate=Says("rp"))
    with serving(Tabular(ANSWERS), tmp_path) as policy:
        result = run(plan, {"policy": policy}, tmp_path / "run")
        assert (result.promoted, result.refused) == (1, 1)
    target = RunDir(tmp_path / "run")
    champion = target.champion()
    assert champion is not None
    by_hand = Tabular(ANSWERS).load(champion)
    assert [turn.record["outcome"] for turn in target.rounds()] == ["refused", "promoted"]
    kept = [item for turn in target.rounds() for group in turn.groups() for item in group.samples]
    assert len(kept) > 50 and not any(item.error for item in kept)
    assert target.rounds()[1].record["champion"]["policy"]["id"] != by_hand.id
    with serving(Tabular(ANSWERS), tmp_path) as policy:
        assert policy.load(champion).id == target.rounds()[1].record["champion"]["policy"]["id"]
        assert run(plan, {"policy": policy}, tmp_path / "run").rounds == 2  # nothing is left to do, and the models are recognised
    logs = sorted(path.name for path in (tmp_path / "run" / "logs" / "attempt_1").iterdir())
    assert "served.jsonl" in logs and len(logs) > 2
    assert not any(runs(pid) for pid, _, _ in lives(tmp_path / "lives"))


def test_answers_of_a_server_and_of_the_model_itself_are_not_mixed(tmp_path: Path) -> None:
    with serving(Categorical({"a": 1.0}), tmp_path) as here, closing(served(PROGRAM, model=Categorical({"a": 1.0}), api="chat")) as there:
        assert len({here.id, there.id, Categorical({"a": 1.0}).id}) == 3


def test_what_cannot_learn_is_refused(tmp_path: Path) -> None:
    from outcross.models.scripted import Scripted

    with pytest.raises(ConfigError, match="a Scripted, which does not learn; serve its folder"):
        served(PROGRAM, model=Scripted({"p": "a"}))


# ── new weights without a restart ──────────────────────────────────────────────────────────────────────────────────────
LORA = Lora(r=2, alpha=8)
HARD = {"lr": 0.3, "epochs": 6.0}  # so that greedy answers change


def greedy(model: Any) -> list[str]:
    futures = [model.submit(Request(f"{a}+{a}=", sampling=GREEDY)) for a in range(6)]
    model.flush()
    return [str(future.result(60).completions[0].content) for future in futures]


def grown(model: ServedLearner, seed: int) -> ServedLearner:
    return model.fit(SUMS, plan=FitPlan(batch=4, **HARD), reference=None, seed=seed, seen=lambda step, ids, **facts: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_low_rank_fits_are_loaded_into_the_running_server(tmp_path: Path, kind: str) -> None:
    """Two generations of adapters; what the server answers is what the merged weights answer here."""
    with serving(tiny(lora=LORA), tmp_path, f"--lora {kind}", memory="own") as first:
        answers = [greedy(first)]
        second = grown(first, 1)
        third = grown(second, 2)
        answers += [greedy(second), greedy(third)]
        merged = [greedy(model._learner.opened()) for model in (first, second, third)]
        assert answers == merged and len({tuple(item) for item in answers}) == 3
        assert len(lives(tmp_path / "lives")) == 1
        assert [step for step, _ in first.steps] == ["start", "adapter", "adapter"]
        assert greedy(first) == answers[0]  # side by side
        second.close()
        fourth = grown(third, 3)
        greedy(fourth)
        assert "unloaded" in next((tmp_path / "cache" / "served").glob("*_0001.log")).read_text()  # the closed one made room
        assert len(lives(tmp_path / "lives")) == 1
        fourth.close()
        third.close()


def test_a_server_that_takes_no_adapter_is_started_with_the_whole_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tiny(lora=LORA), tmp_path, memory="own") as first:
        greedy(first)
        second = grown(first, 1)
        assert greedy(second) == greedy(second._learner.opened()) != greedy(first._learner.opened())
        assert [step for step, _ in first.steps] == ["start", "stop", "start"]
        assert caplog.text.count("does not take new weights while it runs") == 1 and "404" in caplog.text
        second.close()


def test_a_rank_beyond_the_servers_is_merged_and_served_anew(tmp_path: Path) -> None:
    with serving(tiny(lora=LORA), tmp_path, "--lora vllm --max-rank 3", memory="own") as first:
        greedy(first)
        second = grown(first, 1)
        greedy(second)
        third = grown(second, 2)  # rank 4 from the first on
        assert greedy(third) == greedy(third._learner.opened())
        fourth = grown(third, 3)  # rank 2 from the third on
        assert greedy(fourth) == greedy(fourth._learner.opened())
        assert [step for step, _ in first.steps] == ["start", "adapter", "stop", "start", "adapter"]
        for model in (second, third, fourth):
            model.close()


def test_adapters_are_loaded_again_into_a_server_that_died(tmp_path: Path) -> None:
    with serving(tiny(lora=LORA), tmp_path, "--lora vllm --die-after 9 --die-lives 1", memory="own") as first:
        greedy(first)
        second = grown(first, 1)
        assert greedy(second) == greedy(second._learner.opened())
        assert len(lives(tmp_path / "lives")) == 2
        second.close()


def test_stacked_adapters_add_up(tmp_path: Path) -> None:
    """Base and both adapters, added by hand, are the weights after both fits."""
    base = tiny(lora=LORA)
    one = fit(base, **HARD)
    two = fit(one, seed=1, **HARD)
    assert isinstance(two, TorchLM) and one.adapter is not None and two.adapter is not None and base.adapter is None
    one.adapter.save(tmp_path / "one")
    both = stacked([read_adapter(tmp_path / "one"), two.adapter])
    assert (one.adapter.rank, both.rank) == (2, 4)
    state = base._model.state_dict()
    for name in [name for name in both.tensors if ".lora_A." in name]:
        key = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        state[key] += both.tensors[name.replace("lora_A", "lora_B")] @ both.tensors[name]
    base._model.load_state_dict(state)
    assert (weights(base) - weights(two)).abs().max() < 1e-5 < (weights(one) - weights(two)).abs().max()
