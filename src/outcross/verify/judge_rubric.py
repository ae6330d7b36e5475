"""Judging by a rubric: a mark and its reason for each criterion, as a structured answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from outcross.errors import ConfigError
from outcross.judgement import Judgement, written
from outcross.schema import Schema
from outcross.stages import Ask, Context, Dialogue, Role, Stage
from outcross.structured import kept, settled, told
from outcross.text import prompt_text
from outcross.types import Canary, Ground, Group, Message, Request, Response, Sample, Sampling, Score
from outcross.verify.each import with_score
from outcross.verify.judge_ask import can_be_judged, in_order, nonce_of, not_judged
from outcross.verify.judge_canaries import obvious
from outcross.verify.judge_pairwise import USUAL
from outcross.verify.judge_prompt import body_of

BEST = 5  # marks are 1 to 5
_REASON = 160  # characters of a reason that the record keeps
_PREAMBLE = (
    "Below are a task and an answer to it. Mark the answer by each of these criteria from 1 (not at all) to 5 (fully), reason first."
)


@dataclass(frozen=True)
class Criterion:
    """One line of a rubric. `weight`: its share of the value, relative to the others'."""

    name: str
    asks: str
    weight: float = 1.0


GENERAL = (
    Criterion("correct", "Is everything in the answer true, and does it follow?", 2.0),
    Criterion("complete", "Does it do all that the task asks for, and nothing else?"),
    Criterion("clear", "Can whoever asked understand it at the first reading?"),
)
"""A rubric for tasks of any kind."""


@dataclass(frozen=True)
class RubricJudge(Stage):
    """Passes an answer by the marks, 1 to 5, that a judging model gives it for each criterion, each after a reason.

    The value is the mean of the marks by the criteria's weights, rescaled: (mean − 1) / 4; `passes_at` or more passes. The judge answers
    by a JSON schema; where it does not keep one it is told the schema, and an invalid answer gets one correction. What stays invalid is
    an error. Marks and the beginning of each reason stand in the evidence. The answer's text stands behind a fence.
    """

    role: Role = "judge"
    criteria: tuple[Criterion, ...] = GENERAL
    passes_at: float = 0.5
    preamble: str = ""
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=1024)
    ground: ClassVar[Ground] = "judged"

    def __post_init__(self) -> None:
        names = [item.name for item in self.criteria]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"rubric_judge: the criteria are {names}; name at least one, each once")
        if min(item.weight for item in self.criteria) < 0 or not sum(item.weight for item in self.criteria):
            raise ConfigError(f"rubric_judge: the weights are {[item.weight for item in self.criteria]}; give 0 or more, not all 0")
        if not 0 <= self.passes_at <= 1:
            raise ConfigError(f"rubric_judge: passes_at is {self.passes_at}; it is a value, 0 to 1: (mean mark − 1) / 4")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.role,)

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """Obvious ones. None for criteria of one's own, under which others may be obvious (`with_canaries`), and where every sample passes."""
        return obvious() if self.criteria == GENERAL and not self.preamble and self.passes_at > 0 else ()

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        """For groups of four samples; see `calls_for`."""
        return self.calls_for(tasks, USUAL)

    def calls_for(self, tasks: int, samples: int, /) -> Mapping[Role, int]:
        """At most what groups of so many samples cost: each answer may be corrected once."""
        return {self.role: 1 + tasks * samples * 2}

    @cached_property
    def schema(self) -> Schema:
        """What the judge must answer: for each criterion a reason, then a mark."""
        mark = {"type": "integer", "minimum": 1, "maximum": BEST}
        one = _object({"reason": {"type": "string"}, "mark": mark})
        return Schema.of(_object({item.name: one for item in self.criteria}))

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        (constrains,) = ctx.run([kept(self.schema, self.role, self.sampling)])

        def asked(group: Group) -> list[Dialogue[Score]]:
            return [self._dialogue(ctx, group, sample, constrains) for sample in group.samples if can_be_judged(sample)]

        yield from in_order(ctx, groups, asked, self._joined)

    def _joined(self, group: Group, said: Sequence[Score]) -> Group:
        scores = iter(said)
        return Group(
            group.task,
            tuple(
                item if item.error else with_score(item, next(scores) if can_be_judged(item) else not_judged(self, item))
                for item in group.samples
            ),
        )

    def _dialogue(self, ctx: Context, group: Group, sample: Sample, constrains: bool) -> Dialogue[Score]:
        key = (self.role, group.task.id, sample.id)
        listed = "\n".join(f"- {item.name}: {item.asks}" for item in self.criteria)
        parts = (("task", prompt_text(group.task.prompt)), ("answer", sample.text))
        body = body_of(f"{self.preamble or _PREAMBLE}\n{listed}", "", parts, nonce_of(ctx, *key))
        prompt = (Message("user", f"{body}\n\nGive a reason and a mark from 1 to {BEST} for each criterion."),)
        seed = ctx.seed_of("judge", *key)
        request = Request(
            prompt if constrains else told(self.schema, prompt),
            1,
            self.sampling,
            schema=self.schema.text if constrains else None,
            seed=seed,
        )
        response: Response = yield Ask(self.role, request)
        judge = Judgement(self.role, ctx.model(self.role).id, "structured answer")
        if response.error or not response.completions:
            return self._error(f"the judge did not answer: {response.error or 'no completion came'}", judge)
        found = yield from settled(self.schema, request, self.role, response.completions[0], seed + 1, f"sample {sample.id[:12]}")
        if found.error:
            return self._error(f"the judge's answer cannot be read: {found.error}", judge)
        return self._score(json.loads(str(found.completions[-1].content)), judge)

    def _error(self, reason: str, judge: Judgement) -> Score:
        return Score(self.name, self.version, "error", None, reason[:200], written(judge))

    def _score(self, said: Mapping[str, Any], judge: Judgement) -> Score:
        marks = {item.name: float(said[item.name]["mark"]) for item in self.criteria}
        weights = {item.name: item.weight for item in self.criteria}
        mean = sum(weights[name] * mark for name, mark in marks.items()) / sum(weights.values())
        reasons = {item.name: _clipped(said[item.name]["reason"]) for item in self.criteria}
        evidence = written(Judgement(judge.role, judge.judge, judge.by, mean=mean, marks=marks, reasons=reasons))
        value = (mean - 1) / (BEST - 1)
        if value >= self.passes_at:
            return Score(self.name, self.version, "pass", value, "", evidence)
        return Score(self.name, self.version, "fail", value, f"low marks for {min(marks, key=marks.__getitem__)}", evidence)


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False}


def _clipped(text: str) -> str:
    return text if len(text) <= _REASON else f"{text[: _REASON - 1]}…"
