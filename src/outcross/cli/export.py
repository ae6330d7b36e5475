"""`outcross export`: what a run made, as data sets for TRL and others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import command, hint, open_run, say
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.engine.store import RoundDir, RunDir
    from outcross.types import Example, Origin, Prompt, Sample

Row = dict[str, Any]


class Format(StrEnum):
    """Record formats, by the names TRL gives them."""

    prompt_completion = "trl-prompt-completion"
    sft = "trl-sft"
    messages = "messages"
    preference = "trl-preference"
    kto = "kto"


@command
def export(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    form: Format = typer.Option(Format.prompt_completion, "--format", "-f", help="The record format."),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="A .jsonl or .parquet file; default RUN/export/FORMAT.jsonl.", show_default=False
    ),
) -> None:
    """Write what a run accepted as a data set for TRL and others.

    Each row has its lineage in the column `outcross`. Rows are the examples of promoted rounds; of data-only rounds, the samples that passed. trl-preference pairs a sample that passed
    with one that failed at the same task; kto lists both kinds with their label. Tombstoned records are left out.
    """
    run = open_run(folder)
    path = out or folder / "export" / f"{form.value}.jsonl"
    if path.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"--out {path} ends in {path.suffix or 'nothing'!r}; it must end in .jsonl or .parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    written = _write(path, rows(run, form))
    if not written:
        raise ConfigError(_why_nothing(run, form))
    say(f"{path}  ({written:,} rows)")
    hint(f'load it with datasets.load_dataset("{"parquet" if path.suffix == ".parquet" else "json"}", data_files="{path}")')


def rows(run: RunDir, form: Format) -> Iterator[Row]:
    """The rows of a run in a format, in the order in which they were made."""
    from outcross.engine.store import RunDir as Reader

    buried = Reader(run.root).tombstones()
    for turn in run.rounds():
        if turn.record["outcome"] in ("promoted", "data only"):
            yield from _judged(turn, buried, form) if form in (Format.preference, Format.kto) else _accepted(turn, buried, form)


def _accepted(turn: RoundDir, buried: frozenset[str], form: Format) -> Iterator[Row]:
    """Examples that taught the policy; where nothing was taught, samples that passed."""
    if turn.record["outcome"] == "data only":
        for group in turn.groups():
            for sample in group.samples:
                if sample.verdict == "pass" and sample.id not in buried:
                    yield _said(form, sample.turns[-1].prompt, sample.text, _lineage(sample.id, sample.origin))
        return
    for example in turn.examples():
        if not _is_buried(example, buried) and isinstance(example.completion, str):
            yield _said(form, example.prompt, example.completion, _lineage(example.id, example.origin))


def _judged(turn: RoundDir, buried: frozenset[str], form: Format) -> Iterator[Row]:
    """Pairs of passed and failed samples of one task; or every judged sample with its label. A round whose examples carry
    rejected answers gives those pairs."""
    pairs = 0
    for example in turn.examples() if form is Format.preference else ():
        if isinstance(example.rejected, str) and isinstance(example.completion, str):
            pairs += 1
            if not _is_buried(example, buried):
                yield _pair(example.prompt, example.completion, example.rejected, _lineage(example.id, example.origin))
    for group in turn.groups() if not pairs else ():
        alive = [sample for sample in group.samples if sample.id not in buried and sample.turns]
        passed = [sample for sample in alive if sample.verdict == "pass"]
        failed = [sample for sample in alive if sample.verdict == "fail"]
        if form is Format.kto:
            yield from (_labelled(sample) for sample in (*passed, *failed))
        else:
            yield from (_preferred(good, bad) for good, bad in zip(passed, failed, strict=False))


def _is_buried(example: Example, buried: frozenset[str]) -> bool:
    return example.id in buried or not buried.isdisjoint(example.origin.parents)


def _said(form: Format, prompt: Prompt, completion: str, lineage: Row) -> Row:
    from outcross.text import prompt_text

    if form is Format.sft:
        return {"text": prompt_text(prompt) + completion, "outcross": lineage}
    if form is Format.messages:
        return {"messages": [*_messages(prompt), {"role": "assistant", "content": completion}], "outcross": lineage}
    if isinstance(prompt, tuple):
        return {"prompt": _messages(prompt), "completion": [{"role": "assistant", "content": completion}], "outcross": lineage}
    return {"prompt": prompt_text(prompt), "completion": completion, "outcross": lineage}


def _messages(prompt: Prompt) -> list[Row]:
    if isinstance(prompt, tuple):
        return [{"role": message.role, "content": message.content} for message in prompt]
    return [{"role": "user", "content": prompt if isinstance(prompt, str) else ""}]


def _pair(prompt: Prompt, chosen: str, rejected: str, lineage: Row) -> Row:
    from outcross.text import prompt_text

    return {"prompt": prompt_text(prompt), "chosen": chosen, "rejected": rejected, "outcross": lineage}


def _preferred(good: Sample, bad: Sample) -> Row:
    from outcross.text import prompt_text

    lineage = _lineage(good.id, good.origin) | {"parents": [good.id, bad.id]}
    return {"prompt": prompt_text(good.turns[-1].prompt), "chosen": good.text, "rejected": bad.text, "outcross": lineage}


def _labelled(sample: Sample) -> Row:
    from outcross.text import prompt_text

    lineage = _lineage(sample.id, sample.origin)
    return {
        "prompt": prompt_text(sample.turns[-1].prompt),
        "completion": sample.text,
        "label": sample.verdict == "pass",
        "outcross": lineage,
    }


def _lineage(name: str, origin: Origin) -> Row:
    return {"id": name, **{field: _plain(getattr(origin, field)) for field in origin.__struct_fields__}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _why_nothing(run: RunDir, form: Format) -> str:
    outcomes = [turn.record["outcome"] for turn in run.rounds()]
    if not any(item in ("promoted", "data only") for item in outcomes):
        return f"{run.root.name} has nothing to export: its rounds ended {', '.join(outcomes) or 'before the first was complete'}"
    needs = {Format.preference: "a task with one answer that passed and one that failed", Format.kto: "judged samples"}
    return f"{run.root.name} has no rows for {form.value}: it needs {needs.get(form, 'accepted examples')}"


def _write(path: Path, found: Iterable[Row]) -> int:
    """Write rows to a file that appears under its name only when it is complete; how many there were."""
    temporary = path.with_name(f"{path.name}.tmp")
    write: Callable[[Path, Iterator[Row]], int] = _write_parquet if path.suffix == ".parquet" else _write_jsonl
    try:
        count = write(temporary, iter(found))
        if count:
            temporary.replace(path)
        return count
    finally:
        temporary.unlink(missing_ok=True)


def _write_jsonl(path: Path, found: Iterator[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in found:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, found: Iterator[Row], batch: int = 4096) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from outcross.engine.tables import ORIGIN

    count = 0
    writer = None
    lineage = pa.struct([pa.field("id", pa.string()), *ORIGIN])
    try:
        while rows_ := list(islice(found, batch)):
            columns: Mapping[str, Any] = {name: [row[name] for row in rows_] for name in rows_[0]}
            arrays = [pa.array(values, lineage if name == "outcross" else None) for name, values in columns.items()]
            piece = pa.RecordBatch.from_arrays(arrays, names=list(columns))
            writer = writer or pq.ParquetWriter(path, piece.schema, compression="zstd")
            writer.write_batch(piece)
            count += len(rows_)
    finally:
        if writer is not None:
            writer.close()
    return count
