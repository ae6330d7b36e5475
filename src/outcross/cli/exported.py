"""The rows of a run in each record format, in the order in which they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.engine.store import RoundDir, RunDir
    from outcross.types import Array, Example, Group, Origin, Prompt, Sample

Row = dict[str, Any]
Keyed = tuple[str, Row]


class Format(StrEnum):
    """Record formats, by the names TRL gives them; images: PNG files with their rows; raw: every column that is known."""

    prompt_completion = "trl-prompt-completion"
    sft = "trl-sft"
    messages = "messages"
    preference = "trl-preference"
    kto = "kto"
    reward = "trl-reward"
    weighted = "trl-weighted"
    images = "images"
    raw = "raw"


LEARNT_BY = {"nll": Format.prompt_completion, "dpo": Format.preference, "ipo": Format.preference, "kto": Format.kto, "bt": Format.reward}
"""The format of the rows of each loss; those of all others are prompt and completion with their numbers."""


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
    for turn in filter(choice.takes, run.rounds()):
        if choice.form in (Format.preference, Format.kto):
            yield from _judged(turn, buried, choice.form)
        elif choice.form in (Format.reward, Format.weighted):
            yield from _learnt(turn, buried, choice.form)
        elif choice.form is Format.images:
            yield from _drawn(turn, buried, choice)
        else:
            yield from _accepted(turn, buried, choice)


def forms_of(run: RunDir) -> tuple[Format, ...]:
    """The formats of what a run's models learnt, the policy's first. One row of a round tells its loss."""
    from outcross.types import Array

    found: dict[Format, None] = {}
    for role in sorted(
        {role for turn in run.rounds() if turn.promoted for role in turn.record["fits"]}, key=lambda role: (role != "policy", role)
    ):
        for turn in run.rounds():
            first = next(turn.examples(role), None) if turn.promoted else None
            if first is not None:
                found[Format.images if isinstance(first.completion, Array) else LEARNT_BY.get(first.loss.name, Format.weighted)] = None
    return tuple(found)


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
        if example.loss.name == "nll" and not _is_buried(example, buried) and isinstance(example.completion, str):
            yield _text(example.prompt), _said(choice.form, example.prompt, example.completion, _lineage(example.id, example.origin))


def _drawn(turn: RoundDir, buried: frozenset[str], choice: Choice) -> Iterator[Keyed]:
    """Images that taught the policy; where nothing was taught, samples that are rows. The pixels ride in the column `image`."""
    from outcross.types import Array

    if turn.record["outcome"] == "promoted":
        for example in turn.examples():
            if isinstance(example.completion, Array) and not _is_buried(example, buried):
                yield _text(example.prompt), _picture(example.prompt, example.completion, _lineage(example.id, example.origin))
        return
    for group in _groups(turn, buried, choice):
        for sample in group.samples:
            if isinstance(sample.content, Array):
                row = _picture(sample.turns[-1].prompt, sample.content, _lineage(sample.id, sample.origin))
                yield _key(group), row | {"verdict": sample.verdict} if choice.everything else row


def _picture(prompt: Prompt, image: Array, lineage: Row) -> Row:
    from outcross.images import class_of

    return {"image": image, "prompt": _text(prompt), "label": class_of(prompt), "outcross": lineage}


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
    """Pairs of passed and failed samples of one task; or every judged sample with its label. A round whose models learnt pairs, or
    labels, gives those."""
    learnt = 0
    for example in _taught(turn):
        if isinstance(example.completion, str) and (
            isinstance(example.rejected, str) if form is Format.preference else example.loss.name == "kto"
        ):
            learnt += 1
            if not _is_buried(example, buried):
                yield _text(example.prompt), _paired(example) if form is Format.preference else _approved(example)
    for group in turn.groups() if not learnt else ():
        alive = [sample for sample in group.samples if sample.id not in buried and sample.turns]
        passed = [sample for sample in alive if sample.verdict == "pass"]
        failed = [sample for sample in alive if sample.verdict == "fail"]
        if form is Format.kto:
            yield from ((_key(group), _labelled(sample)) for sample in (*passed, *failed))
        else:
            yield from ((_key(group), _preferred(good, bad)) for good, bad in zip(passed, failed, strict=False))


def _taught(turn: RoundDir) -> Iterator[Example]:
    """What a promoted round taught, to all its roles."""
    for role in turn.record["fits"] if turn.promoted else ():
        yield from turn.examples(role)


def _learnt(turn: RoundDir, buried: frozenset[str], form: Format) -> Iterator[Keyed]:
    """Rows with the numbers that were learnt: labels of pairs, or targets and weights of answers."""
    for example in _taught(turn):
        if (
            LEARNT_BY.get(example.loss.name, Format.weighted) is form
            and not _is_buried(example, buried)
            and isinstance(example.completion, str)
        ):
            yield _text(example.prompt), _labelled_pair(example) if form is Format.reward else _numbered(example)


def _labelled_pair(example: Example) -> Row:
    """A comparison, with the probability that `chosen` is the better one."""
    return _paired(example) | {"probability": 1.0 if example.target is None else example.target}


def _numbered(example: Example) -> Row:
    """An answer with its loss, its target (a win rate or a value) and its weight (an advantage), one a token where it has several."""
    numbers = {"loss": example.loss.name, "target": _plain(example.target), "weight": _plain(example.weight)}
    return _said(Format.prompt_completion, example.prompt, str(example.completion), _lineage(example.id, example.origin)) | numbers


def _approved(example: Example) -> Row:
    row = _said(Format.prompt_completion, example.prompt, str(example.completion), _lineage(example.id, example.origin))
    return row | {"label": bool(example.target)}


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
    better, worse = (_said(Format.prompt_completion, prompt, said, lineage) for said in (chosen, rejected))
    return {"prompt": better["prompt"], "chosen": better["completion"], "rejected": worse["completion"], "outcross": lineage}


def _paired(example: Example) -> Row:
    return _pair(example.prompt, str(example.completion), str(example.rejected), _lineage(example.id, example.origin))


def _preferred(good: Sample, bad: Sample) -> Row:
    return _pair(good.turns[-1].prompt, good.text, bad.text, _lineage(good.id, good.origin) | {"parents": [good.id, bad.id]})


def _labelled(sample: Sample) -> Row:
    row = _said(Format.prompt_completion, sample.turns[-1].prompt, sample.text, _lineage(sample.id, sample.origin))
    return row | {"label": sample.verdict == "pass"}


def _lineage(name: str, origin: Origin) -> Row:
    return {"id": name, **{field: _plain(getattr(origin, field)) for field in origin.__struct_fields__}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
