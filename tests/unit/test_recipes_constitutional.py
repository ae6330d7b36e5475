"""Constitutional AI through the engine: a toy that says bad words, revises them away when asked, and judges its own answers by principles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from feedback import ATTESTED, REWARD, nothing_seen, track
from judges import shown, sigmoid, weighing
from toys import Says

from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.evaluate.pass_rate import PassRate
from outcross.generate.draw import Draw
from outcross.models.tabular import Tabular
from outcross.models.tabular_reward import TabularReward
from outcross.recipe import Bench
from outcross.recipes.constitutional import HARMLESS, constitutional
from outcross.stages import Context, FitPlan, Model, Seen, Stage
from outcross.types import Completion, Example, Ground, Measurement, Request, Response, Sampling, Task
from outcross.verify.exact import Exact

SAID = ("damn damn fine", "damn fine", "fine", "yes", "no")
RUDE = tuple(Task(f"rude {n}", f"why {n}?") for n in range(40))
HELD_RUDE = tuple(Task(f"held rude {n}", f"why {n}?") for n in range(50, 90))
HELPFUL = tuple(Task(f"held help {n}", f"is {n} even:", "no" if n % 2 else "yes") for n in range(50, 90))
REAL = tuple(Example(f"help {n}", f"is {n} even:", "no" if n % 2 else "yes", origin=ATTESTED) for n in range(40))


CRITIQUE = "It swears."


class Assistant(Tabular):
    """The toy policy; asked for a revision, it leaves out one bad word of what it said; asked to compare, it counts them."""

    def submit(self, request: Request, /) -> Future[Response]:
        if request.choices:
            return self._answered(weighing(self._probs), request)
        if isinstance(request.prompt, tuple) and len(request.prompt) > 1:
            *_, draft, last = [
                "",
                *(item.content for item in request.prompt if item.role == "assistant"),
            ]  # demonstrations stand before them
            found: Future[Response] = Future()
            found.set_result(Response((Completion(draft.replace("damn ", "", 1) if last == CRITIQUE else CRITIQUE),)))
            return found
        if "=" not in str(request.prompt) and len(str(request.prompt)) > 40:  # reasons before a label
            found = Future()
            found.set_result(Response((Completion("One swears more."),)))
            return found
        return super().submit(request)

    @staticmethod
    def _answered(judge: Any, request: Request) -> Future[Response]:
        future: Future[Response] = judge.submit(request)
        judge.flush()
        return future

    @staticmethod
    def _probs(request: Request) -> dict[str, float]:
        seen = shown(request)
        p = sigmoid(3.0 * (seen["answer B"].count("damn") - seen["answer A"].count("damn")))
        return {"A": p, "B": 1 - p}

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Assistant:
        return own(super().fit(examples, plan=plan, reference=reference, seed=seed, seen=seen))

    def load(self, folder: Path, /) -> Assistant:
        return own(super().load(folder))


def own(made: Tabular) -> Assistant:
    made.__class__ = Assistant
    assert isinstance(made, Assistant)
    return made


@dataclass(frozen=True)
class Harm(Stage):
    """Bad words an answer: the harm measure."""

    tasks: tuple[Task, ...]
    margin: float = 0.1
    label: str = ""
    kind: ClassVar[Literal["quality"]] = "quality"
    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, /) -> Measurement:
        groups = list(Draw(4)(ctx, self.tasks))
        values = [sum(item.text.count("damn") for item in group.samples) / len(group.samples) for group in groups]
        return Measurement(self.name, tuple(group.task.id for group in groups), tuple(values), higher_is_better=False)


def helpful_only() -> Assistant:
    """It helps, and swears at whoever asks why."""
    rude = [Example(f"r{n}", f"why {n}?", SAID[n % 2], origin=ATTESTED) for n in range(100, 130)]
    plan = FitPlan(lr=0.2, epochs=4, batch=16, schedule="constant")
    return own(Tabular(SAID, memory=0.1).fit([*rude, *REAL], plan=plan, reference=None, seed=0, seen=nothing_seen))


@pytest.mark.parametrize("mix", ["guarded", "paper"])
def test_harm_falls_and_helpfulness_stays(mix: Literal["guarded", "paper"], tmp_path: Path) -> None:
    probes = (Harm(HELD_RUDE), PassRate(HELPFUL, Draw(4), Exact(), label="helpful"))
    made = constitutional(
        Bench(RUDE, (*HELD_RUDE, *HELPFUL), REAL, probes, Says("p")),
        steps=2,
        draw=Sampling(1.0, max_tokens=8),
        n=6,
        rounds=3,
        sl_plan=FitPlan(lr=0.004, epochs=1, batch=16, schedule="constant"),
        reward_plan=REWARD,
        plan=FitPlan(lr=0.2, epochs=2, batch=32, schedule="constant"),
        mix=mix,
    )
    both = helpful_only()
    run(made, {"policy": both, "judge": both, "reward": TabularReward()}, tmp_path, seed=1, options=Options(unsafe=True))
    found = RunDir(tmp_path)
    sl, label, *rl = found.rounds()
    harm, helps = track(found, "harm"), track(found, "pass_rate_helpful")
    assert harm[0] > 0.5 and harm[1] < 0.7 * harm[0] and harm[-1] < 0.75 * harm[1]  # both stages lower it
    assert min(helps) > helps[0] - 0.05
    revised = list(sl.examples())
    assert {example.completion for example in revised} <= set(SAID), "the drafts are revised, and not a demonstration"
    assert (
        len(revised) > len(RUDE) and sl.record["mixtures"]["policy"]["real_share"]["records"] >= (0.5 if mix == "guarded" else 0.27) - 1e-9
    )
    assert all(0.4 <= example.target <= 0.6 for example in label.examples() if isinstance(example.target, float)) and rl
    judged = [pair.principle for group in label.groups() for item in group.samples for pair in pairs(item)]
    assert set(judged) == set(range(len(HARMLESS)))


def pairs(item: Any) -> Iterator[Any]:
    from outcross.judgement import judgement_of

    for score in item.scores:
        found = judgement_of(score)
        yield from found.pairs if found is not None else ()
