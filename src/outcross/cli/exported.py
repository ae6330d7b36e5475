"""The rows of a run in each record format, in the order in which they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.engine.store import RoundDir, RunDir
    from outcross.types import Example, Group, Origin, Prompt, Sample

Row = dict[str, Any]
Keyed = tuple[str, Row]


class Format(StrEnum):
    """Record formats, by the names TRL gives them; raw: every column that is known."""

    prompt_completion = "trl-prompt-completion"
    sft = "trl-sft"
    messages = "messages"
    preference = "trl-preference"
    kto = "kto"
    raw = "raw"


@dataclass(frozen=True)
class Choice:
    """Which rows: in which format, kept answers that passed no verifier too (`everything`), those of refused releases too (`refused`)."""

    form: Format = Format.prompt_completion
    everything: bool = False
    refused: bool = False
    outcomes: tuple[str, ...] = field(init=False, default=("promoted", "data only", "released"))

    def takes(self, turn: RoundDir) -> bool:
        """Whether rows of a complete round are among them."""
        release = turn.record.get("release") is not None
        return turn.record["outcome"] in self.outcomes or (self.refused and release and turn.record["outcome"] == "refused")


def rows(run: RunDir, choice: Choice) -> Iterator[Keyed]:
    """Each row with its task's prompt: rows of one prompt belong together when the set is split."""
    buried = run.tombstones()
    judged = choice.form in (Format.preference, Format.kto)
    for turn in filter(choice.takes, run.rounds()):
        yield from _judged(turn, buried, choice.form) if judged else _accepted(turn, buried, choice)


def check_released(run: RunDir, choice: Choice) -> None:
    """Raises `ConfigError` for a run whose gate released nothing, unless its refused rows are asked for."""
    turns = [turn for turn in run.rounds() if turn.record.get("release") is not None]
    if not turns or any(map(choice.takes, turns)):
        return
    last = turns[-1]
    told = f"no row was left. `outcross show {run.root} {last.label}` tells what became of the answers"
    if last.decision is not None:
        told = (
            f"the gate {last.decision.reason}. `outcross show {run.root} {last.label}` tells more; `outcross export --refused` writes these rows "
            "all the same, headed as refused"
        )
    raise ConfigError(f"{run.root.name} has released nothing: {told}")


def _accepted(turn: RoundDir, buried: frozenset[str], choice: Choice) -> Iterator[Keyed]:
    """Examples that taught the policy; where nothing was taught, samples that are rows."""
    if choice.form is Format.raw or turn.record["outcome"] != "promoted":
        for group in _groups(turn, buried, choice):
            for sample in group.samples:
                yield _key(group), _raw(group, sample) if choice.form is Format.raw else _of_sample(choice, sample)
        return
    for example in turn.examples():
        if not _is_buried(example, buried) and isinstance(example.completion, str):
            yield _text(example.prompt), _said(choice.form, example.prompt, example.completion, _lineage(example.id, example.origin))


def _groups(turn: RoundDir, buried: frozenset[str], choice: Choice) -> Iterator[Group]:
    if not choice.everything:
        yield from turn.rows(buried)
        return
    for group in turn.groups():
        yield type(group)(group.task, tuple(sample for sample in group.samples if sample.turns and sample.id not in buried))


def _of_sample(choice: Choice, sample: Sample) -> Row:
    row = _said(choice.form, sample.turns[-1].prompt, sample.text, _lineage(sample.id, sample.origin))
    return row | {"verdict": sample.verdict} if choice.everything else row


def _judged(turn: RoundDir, buried: frozenset[str], form: Format) -> Iterator[Keyed]:
    """Pairs of passed and failed samples of one task; or every judged sample with its label. A round whose examples carry
    rejected answers gives those pairs."""
    pairs = 0
    for example in turn.examples() if form is Format.preference else ():
        if isinstance(example.rejected, str) and isinstance(example.completion, str):
            pairs += 1
            if not _is_buried(example, buried):
                pair = _pair(example.prompt, example.completion, example.rejected, _lineage(example.id, example.origin))
                yield _text(example.prompt), pair
    for group in turn.groups() if not pairs else ():
        alive = [sample for sample in group.samples if sample.id not in buried and sample.turns]
        passed = [sample for sample in alive if sample.verdict == "pass"]
        failed = [sample for sample in alive if sample.verdict == "fail"]
        if form is Format.kto:
            yield from ((_key(group), _labelled(sample)) for sample in (*passed, *failed))
        else:
            yield from ((_key(group), _preferred(good, bad)) for good, bad in zip(passed, failed, strict=False))


def _key(group: Group) -> str:
    return _text(group.task.prompt) or group.task.id


def _text(prompt: Prompt) -> str:
    from outcross.text import prompt_text

    return prompt_text(prompt)


def _is_buried(example: Example, buried: frozenset[str]) -> bool:
    return example.id in buried or not buried.isdisjoint(example.origin.parents)


def _said(form: Format, prompt: Prompt, completion: str, lineage: Row) -> Row:
    if form is Format.sft:
        return {"text": _text(prompt) + completion, "outcross": lineage}
    if form is Format.messages:
        return {"messages": [*_messages(prompt), {"role": "assistant", "content": completion}], "outcross": lineage}
    if isinstance(prompt, tuple):
        return {"prompt": _messages(prompt), "completion": [{"role": "assistant", "content": completion}], "outcross": lineage}
    return {"prompt": _text(prompt), "completion": completion, "outcross": lineage}


def _raw(group: Group, sample: Sample) -> Row:
    task, prompt = group.task, sample.turns[-1].prompt
    return {
        "prompt": _text(prompt),
        "completion": sample.text,
        "messages": [
            message for turn in sample.turns for message in (*_messages(turn.prompt), {"role": "assistant", "content": _plain_text(turn)})
        ],
        "task_id": task.id,
        "answer": task.answer,
        "subgroup": task.subgroup,
        "columns": [{"name": name, "value": value} for name, value in task.columns],
        "verdict": sample.verdict,
        "value": sample.value,
        "finished": sample.turns[-1].completion.finished,
        "scores": [{name: getattr(score, name) for name in score.__struct_fields__} for score in sample.scores],
        "outcross": _lineage(sample.id, sample.origin),
    }


def _plain_text(turn: Any) -> str:
    content = turn.completion.content
    return content if isinstance(content, str) else ""


def _messages(prompt: Prompt) -> list[Row]:
    if isinstance(prompt, tuple):
        return [{"role": message.role, "content": message.content} for message in prompt]
    return [{"role": "user", "content": prompt if isinstance(prompt, str) else ""}]


def _pair(prompt: Prompt, chosen: str, rejected: str, lineage: Row) -> Row:
    return {"prompt": _text(prompt), "chosen": chosen, "rejected": rejected, "outcross": lineage}


def _preferred(good: Sample, bad: Sample) -> Row:
    lineage = _lineage(good.id, good.origin) | {"parents": [good.id, bad.id]}
    return {"prompt": _text(good.turns[-1].prompt), "chosen": good.text, "rejected": bad.text, "outcross": lineage}


def _labelled(sample: Sample) -> Row:
    return {
        "prompt": _text(sample.turns[-1].prompt),
        "completion": sample.text,
        "label": sample.verdict == "pass",
        "outcross": _lineage(sample.id, sample.origin),
    }


def _lineage(name: str, origin: Origin) -> Row:
    return {"id": name, **{field: _plain(getattr(origin, field)) for field in origin.__struct_fields__}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
