"""Reward functions of others as verifiers, and verifiers as theirs."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import context, failed, group, sample, verdicts

from outcross.errors import ConfigError, StageError
from outcross.interop import as_trl_reward, as_verifiers_reward, as_verifiers_task_reward
from outcross.stages import Stage
from outcross.types import Message
from outcross.verify.exact import Exact
from outcross.verify.function import Function
from outcross.verify.interop import OpenrlhfReward, VerifiersReward, VerlReward
from outcross.verify.judge_pointwise import PointwiseJudge
from outcross.verify.verifiers_task import VerifiersTaskReward


def scores(stage: Any, one: Any) -> list[Any]:
    (found,) = stage(context(Path()), [one])
    return [item.scores[-1] if item.scores else None for item in found.samples]


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any]) -> Any:
    if solution_str == "boom":
        raise TimeoutError("too slow")
    if solution_str in ("none", "nan", "keyless"):
        return {"none": None, "nan": math.nan, "keyless": {"acc": 1}}[solution_str]
    return {"score": float(solution_str == ground_truth), "source": data_source, "level": extra_info.get("level")}


async def compute_later(**known: Any) -> Any:
    await asyncio.sleep(0)
    return compute_score(**known)


@pytest.mark.parametrize("function", [compute_score, compute_later])
def test_a_score_function_of_verl_gives_verdicts_and_never_a_zero_for_what_went_wrong(function: Any) -> None:
    one = group(
        "4", "5", "boom", "none", "nan", "keyless", failed(9), sample("4", 8, finished=False), columns=(("extra_info", '{"level": 3}'),)
    )
    found = scores(VerlReward(function, data_source="gsm8k"), one)
    assert [item and item.verdict for item in found] == ["pass", "fail", "error", "abstain", "error", "error", None, "fail"]
    assert [item and item.value for item in found] == [1.0, 0.0, None, None, None, None, None, 0.0]
    assert found[0].evidence == '{"source": "gsm8k", "level": 3}' and found[2].reason == "TimeoutError: too slow"
    assert found[0].verifier == function.__name__


def test_an_async_function_is_judged_under_a_running_loop_too() -> None:
    async def notebook() -> Any:
        return scores(VerlReward(compute_later), group("4", "5"))

    assert [item.verdict for item in asyncio.run(notebook())] == ["pass", "fail"]


def by_rubric(completion: Any, answer: str, state: Any, parser: Any = None) -> float:
    assert state["answer"] == answer and state["prompt"][-1]["role"] == "user"
    said = completion[-1]["content"]
    return float((parser(said) if parser else said) == answer)


def whole_group(completions: Any) -> list[float]:
    return [1.0 for _ in completions]


def bare(text: str) -> str:
    return text.strip("*")


@pytest.mark.parametrize("prompt", ["2+2=", (Message("system", "sum"), Message("user", "2+2="))])
def test_a_rubric_function_receives_what_it_names(prompt: Any) -> None:
    assert [item.verdict for item in scores(VerifiersReward(by_rubric), group("4", "*4*", prompt=prompt))] == ["pass", "fail"]
    assert [item.verdict for item in scores(VerifiersReward(by_rubric, parser=bare), group("4", "*4*", prompt=prompt))] == ["pass", "pass"]
    with pytest.raises(ConfigError, match="whole groups"):
        VerifiersReward(whole_group)


class Tensor(list):  # type: ignore[type-arg]
    def tolist(self) -> list[float]:
        return list(self)


def reward_func(queries: Any, prompts: Any, labels: Any, **more: Any) -> Any:
    values = Tensor(float(query == f"{prompt}{label}") for query, prompt, label in zip(queries, prompts, labels))
    return {"rewards": values, "scores": values, "extra_logs": {}}


def too_few(queries: Any, prompts: Any, labels: Any) -> Any:
    return Tensor([1.0])


def test_a_reward_function_of_openrlhf_judges_a_group_at_once() -> None:
    assert [item.verdict for item in scores(OpenrlhfReward(reward_func), group("4", "5"))] == ["pass", "fail"]
    assert [item.verdict for item in scores(OpenrlhfReward(too_few), group("4", "5"))] == ["error", "error"]


async def asks_ids(prompts: Any, completions: Any, completion_ids: Any) -> list[float | None]:
    return [float(ids == []) for ids in completion_ids]


def needs_trainer(prompts: Any, completions: Any, trainer_state: Any) -> list[float | None]:
    return [1.0 for _ in prompts]


def test_functions_of_trl_may_be_async_and_read_token_ids_but_there_is_no_trainer() -> None:
    assert verdicts(Function(asks_ids)(context(Path()), [group("a", "b")])) == [["pass", "pass"]]
    assert verdicts(Function(needs_trainer)(context(Path()), [group("a")])) == [["error"]]


def test_whose_ground_cannot_be_seen_counts_as_an_opinion_until_the_user_says_otherwise() -> None:
    kinds: list[Any] = [VerlReward, VerifiersReward, OpenrlhfReward]
    assert {kind(by_rubric).ground for kind in kinds} == {"judged"}
    assert VerlReward(compute_score, ground="exact").ground == "exact"


SIZES: list[int] = []


def counted(prompts: Any, completions: Any, answer: Any) -> list[float | None]:
    SIZES.append(len(prompts))
    return [None if said == "?" else float(said == right) for said, right in zip(completions, answer)]


# ── verifiers as rewards of others ─────────────────────────────────────────────────────────────────────────────────────
def test_a_trl_reward_keeps_the_order_of_rows_and_groups_equal_prompts() -> None:
    SIZES.clear()
    with as_trl_reward(Function(counted), answer="gold") as reward:
        found = reward(["a", "b", "a", "b"], ["1", "2", "?", "1"], gold=["1", "2", "1", "2"], completion_ids=[[1]] * 4, trainer_state=None)
        assert found == [1.0, 1.0, None, 0.0] and sorted(SIZES) == [2, 2]
        assert reward.__name__ == "counted"
    with as_trl_reward(Exact()) as reward:
        chat = [[{"role": "user", "content": "2+2="}]]
        assert reward(chat, [[{"role": "assistant", "content": "4"}]], answer=["4"]) == [1.0]
        assert reward(["no reference"], ["4"]) == [None]


def test_a_verifier_that_asks_models_is_refused_without_them() -> None:
    judge: Stage = PointwiseJudge()
    with pytest.raises(ConfigError, match="role 'judge'"):
        as_trl_reward(judge)  # type: ignore[arg-type]


def test_rewards_for_verifiers_say_unjudged_in_its_two_ways() -> None:
    async def both() -> None:
        with as_verifiers_reward(Exact()) as reward, as_verifiers_task_reward(Exact()) as hook:
            assert await reward("2+2=", [{"role": "assistant", "content": "4"}], "4") == 1.0
            assert math.isnan(await reward("2+2=", "4"))
            trace = SimpleNamespace(last_reply="5")
            assert await hook(SimpleNamespace(prompt="2+2=", answer="4"), trace) == 0.0
            with pytest.raises(StageError, match="no reference"):
                await hook(SimpleNamespace(prompt="2+2="), trace)

    asyncio.run(both())


def has(package: str, version: str) -> bool:
    try:
        return importlib.metadata.version(package).startswith(version)
    except importlib.metadata.PackageNotFoundError:
        return False


def has_v1() -> bool:
    """From 0.2 on the package has the second form of tasks, and no longer the first."""
    return any(has("verifiers", f"0.{minor}.") for minor in range(2, 10))


@pytest.mark.skipif(not has("verifiers", "0.1."), reason="pip install 'verifiers<0.2' in an environment of its own runs this")
@pytest.mark.filterwarnings("default")
def test_a_rubric_of_the_real_package_scores_with_a_verifier() -> None:
    import verifiers as vf

    async def rollout(answer: str) -> Any:
        reward = as_verifiers_reward(Exact())
        state = {"prompt": [{"role": "user", "content": "2+2="}], "completion": [{"role": "assistant", "content": "4"}], "answer": answer}
        state |= {"task": "sum", "info": {}, "timing": {"scoring_ms": 0.0, "total_ms": 0.0}, "trajectory": []}
        full = vf.State(state)
        await vf.Rubric(funcs=[reward]).score_rollout(full)
        reward.close()
        return full

    found = asyncio.run(rollout("4"))
    assert found["reward"] == 1.0 and found["metrics"] == {"exact": 1.0}
    assert asyncio.run(rollout("5"))["reward"] == 0.0


@pytest.mark.skipif(not has_v1(), reason="pip install 'verifiers>=0.2' in an environment of its own runs this")
@pytest.mark.filterwarnings("default")
def test_a_task_of_the_real_package_is_a_verifier() -> None:
    import verifiers_tasks as theirs

    prompt = (Message("system", "Be short."), Message("user", "2+2="))
    verifier = VerifiersTaskReward(theirs.Sum, passes_at=2.0)
    found = scores(verifier, group("4", " 5 ", "four, which is 2 + 2", prompt=prompt, answer="4", columns=(("level", "3"),)))
    assert [(item.verdict, item.value) for item in found] == [("pass", 2.5), ("fail", 0.5), ("fail", 0.0)]
    assert json.loads(found[0].evidence) == {"right": 1.0, "short": 0.5, "level": 3.0}
    assert {item.verifier for item in found} == {"Sum"} and len(verifier.version) == 8
    (unfit,) = scores(verifier, group("4", columns=(("level", "high"),)))
    assert unfit.verdict == "error" and "level" in unfit.reason
    for task, why in ((theirs.Boxed, "needs a runtime"), (theirs.Nothing, "no method under"), (dict, "is no verifiers.v1.Task")):
        with pytest.raises(ConfigError, match=why):
            list(VerifiersTaskReward(task)(context(Path()), []))


@pytest.mark.skipif(has_v1(), reason="runs where the package verifiers is absent")
def test_a_verifiers_task_needs_its_package() -> None:
    with pytest.raises(ConfigError, match="pip install verifiers"):
        list(VerifiersTaskReward(dict)(context(Path()), []))


@pytest.mark.skipif(not has("trl", "1."), reason="pip install trl runs this")
@pytest.mark.filterwarnings("default")
def test_the_trainer_of_trl_leaves_out_what_could_not_be_judged(tmp_path: Path) -> None:
    from datasets import Dataset
    from tiny_lm import tiny
    from trl import GRPOConfig, GRPOTrainer

    tiny().save(tmp_path / "lm")
    settings = {"output_dir": str(tmp_path / "out"), "per_device_train_batch_size": 2, "num_generations": 2, "report_to": [], "bf16": False}
    with as_trl_reward(Exact(), answer="gold") as reward:
        rows = [{"prompt": "1+1=", "gold": "2"}, {"prompt": "1+1=", "gold": "2"}, {"prompt": "2+2=", "gold": None}]
        trainer = GRPOTrainer(
            model=str(tmp_path / "lm"),
            reward_funcs=[reward],
            train_dataset=Dataset.from_list(rows),
            args=GRPOConfig(**settings, use_cpu=True),
        )
        found = trainer._calculate_rewards(rows, [row["prompt"] for row in rows], ["2", "3", "4"], [[4], [5], [6]])
    assert trainer.reward_func_names == ["exact"]
    assert found[:2, 0].tolist() == [1.0, 0.0] and math.isnan(found[2, 0])
