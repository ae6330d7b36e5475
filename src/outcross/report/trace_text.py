"""A trace as lines of text, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from outcross.report import numbers as n
from outcross.report.lineage import Contents, ExampleLink, ModelLink, SampleLink, Use
from outcross.report.trace import Trace
from outcross.types import Score

WIDTH = 100


def lines(found: Trace) -> Iterator[str]:
    """Indented lines, from the identifier asked for along the chain in both directions."""
    yield f"{found.kind} {found.id.removeprefix('step:')}"
    for sample in found.samples:
        yield from _sample(sample)
    if found.samples_total > len(found.samples):
        yield f"  … {found.samples_total - len(found.samples):,} more samples"
    for example in found.examples:
        yield from _example(example, [use for use in found.uses if use.example == example.id])
    if found.samples and not found.examples:
        yield "  no example was made from it"
    if found.contents is not None:
        yield from _contents(found.contents)
    for heading, models in (("models", found.models), ("trained from", found.earlier), ("later models built on it", found.later)):
        if models:
            yield f"  {heading}"
            yield from map(_model, models)


def _sample(sample: SampleLink) -> Iterator[str]:
    state = " · TOMBSTONED" if sample.tombstoned else ""
    yield f"  sample {sample.id} in {sample.round}{state}"
    yield f"    task     {sample.task}: {_line(sample.prompt)}"
    yield f"    said by  {n.short(sample.model)}, text of depth {sample.depth}"
    yield f"    answer   {_line(sample.completion) if not sample.error else f'none: {_line(sample.error)}'}"
    for score in sample.scores:
        yield f"    judged   {judgement(score)}"
    if sample.inner_verifiers:
        yield f"    judged   inside its generator by {', '.join(sample.inner_verifiers)}"
    yield f"    {f'dropped  by {sample.dropped}' if sample.dropped else 'kept'}"


def judgement(score: Score) -> str:
    """A score in one line."""
    value = "" if score.value is None else f" {n.compact(score.value)}"
    return f"{score.verdict}{value} by {score.verifier}@{score.version}{f': {_line(score.reason)}' if score.reason else ''}"


def _example(example: ExampleLink, uses: list[Use]) -> Iterator[str]:
    state = " · TOMBSTONED" if example.tombstoned else ""
    if example.source == "real":
        yield f"  real row {example.id}{state}"
    else:
        parents = f" from {', '.join(map(n.short, example.parents))}" if example.parents else ""
        yield f"  example {example.id} in {example.round}, {example.role} under {example.loss}, weight {n.compact(example.weight)}{parents}{state}"
    for use in uses:
        seen = f"seen {n.plural(use.seen, 'time')}, steps {use.first} to {use.last}" if use.seen else "never met the optimiser"
        model = f" → model {n.short(use.model)}" if use.seen else ""
        yield f"    {use.round} ({use.role}): offered as {use.source} ×{use.repeats}, {seen}{model}"
    if not uses:
        yield "    in no mixture so far"


def _contents(contents: Contents) -> Iterator[str]:
    for source, (rows, repeats) in contents.sources.items():
        yield f"  {source}: {n.plural(rows, 'row')}, offered {n.plural(repeats, 'time')}"
    for part in contents.parts:
        made = f" of {part.round}" if part.round else ""
        proof = f" ({part.proof})" if part.proof != "none" else ""
        yield f"    {part.kind}{proof} {n.short(part.source)}{made}: {n.count(part.records)} records, {n.count(part.tokens)} tokens"
    for example in contents.examples:
        parents = f" from sample {', '.join(map(n.short, example.parents))}" if example.parents else ""
        yield f"    {example.source} {example.id}{parents}{f': {_line(example.prompt)}' if example.prompt else ''}"
    if contents.total > len(contents.examples):
        yield f"    … {contents.total - len(contents.examples):,} more"
    for label, amount in contents.said.items():
        yield f"  said {n.plural(amount, 'kept sample')} in {label}"


def _model(model: ModelLink) -> str:
    ungated = "" if model.gated else ", ungated"
    reason = f": {_line(model.reason)}" if model.reason else ""
    holds = " · the champion now" if model.holds else ""
    made = "start" if model.round == "start" else f"{model.round} from {n.short(model.start)}"
    return f"    {model.id} ({model.role}, {made}, depth {model.depth}) {model.outcome}{ungated}{reason}{holds}"


def _line(text: str) -> str:
    shown = " ".join(text.split())
    printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in shown)
    return printable if len(printable) <= WIDTH else f"{printable[:WIDTH]}…"
