"""The links of a run's lineage, and the questions about them that the tables of the record answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from outcross.engine.store import PRIMARY, RoundDir, RunDir, suffix
from outcross.report import lookup
from outcross.report.record import Manifest, Part, RoundRecord, read_manifest, read_round
from outcross.types import Score

Kind = Literal["task", "sample", "example", "real row", "model", "step"]
SAMPLE = ("id", "task_id", "prompt", "completion", "verdict", "value", "error", "scores", "outcross", "curator", "reason")
EXAMPLE = ("id", "prompt", "completion", "loss", "weight", "outcross")


@dataclass(frozen=True)
class SampleLink:
    """A sample: what it answers, who said it, how it was judged. `dropped` names curator and reason, empty when kept."""

    id: str
    round: str
    task: str
    model: str
    depth: int
    prompt: str
    completion: str
    verdict: str | None
    scores: tuple[Score, ...]
    inner_verifiers: tuple[str, ...]  # "name@version" used inside its generator
    error: str
    dropped: str
    tombstoned: bool


@dataclass(frozen=True)
class ExampleLink:
    """A row that an optimiser can learn from. `parents` are samples; a real row's content lies outside the record."""

    id: str
    round: str
    role: str
    source: Literal["synthetic", "real"]
    loss: str = ""
    weight: float = 1.0
    prompt: str = ""
    completion: str = ""
    parents: tuple[str, ...] = ()
    tombstoned: bool = False


@dataclass(frozen=True)
class Use:
    """An example in the mixture of a round: how often it was offered, when the optimiser saw it, and what came of it.

    `seen` counts the optimiser's looks at it; `first` and `last` are steps, None when it never met the optimiser.
    """

    example: str
    round: str
    role: str
    source: str  # new, history or real
    repeats: int
    weight: float
    seen: int
    first: int | None
    last: int | None
    model: str


@dataclass(frozen=True)
class ModelLink:
    """A model of the run: the round that made it ("start": it was there), the model it was trained from, and its fate."""

    id: str
    role: str
    round: str
    start: str
    depth: int
    outcome: str
    reason: str
    gated: bool
    holds: bool

    @property
    def promoted(self) -> bool:
        return self.outcome in ("promoted", "first champion")


@dataclass(frozen=True)
class Contents:
    """What a model or an optimiser step was made of. `sources`: new, history and real → rows and repeats; `parts`: the
    mixture by origin (models only); `examples`: the first few of `total`; `said`: samples a model said, by round."""

    round: str
    role: str
    sources: Mapping[str, tuple[int, int]]
    parts: tuple[Part, ...]
    total: int
    examples: tuple[ExampleLink, ...]
    said: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    """The complete rounds of a run, and the questions a walk asks of them."""

    run: RunDir

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.run)

    @cached_property
    def rounds(self) -> list[tuple[RoundDir, RoundRecord]]:
        return [(item, read_round(item)) for item in self.run.rounds()]

    @cached_property
    def buried(self) -> frozenset[str]:
        return self.run.tombstones()

    @cached_property
    def models(self) -> list[ModelLink]:
        """The first champions, then every candidate, in the order of the run."""
        holding = {role: first.id for role, first in self.manifest.models.items()}
        for _, found in self.rounds:
            if found.outcome == "promoted":
                holding |= {role: holder.id for role, holder in found.champion.items()}
        models = [
            ModelLink(first.id, role, "start", "", first.depth, "first champion", "", True, holding.get(role) == first.id)
            for role, first in self.manifest.models.items()
        ]
        for item, found in self.rounds:
            decision = found.decision
            reason, gated = (decision.reason, decision.gated) if decision else ("", True)
            for role, fit in found.fits.items():
                held = holding.get(role) == fit.model
                models.append(ModelLink(fit.model, role, item.label, fit.start, fit.depth, found.outcome, reason, gated, held))
        return models

    def parts(self) -> Iterator[tuple[RoundDir, Path]]:
        for item, _ in self.rounds:
            for part in item.parts():
                yield item, part

    def tables(self, stem: str) -> Iterator[tuple[RoundDir, Path, str]]:
        """Every table of a kind with its role: examples.parquet is the policy's, examples.judge.parquet the judge's."""
        for item, part in self.parts():
            for path in sorted(part.glob(f"{stem}*.parquet")):
                yield item, path, path.name.removeprefix(stem).removesuffix(".parquet").lstrip(".") or PRIMARY

    def named(self, prefix: str) -> set[tuple[Kind, str]]:
        """Everything whose id starts with `prefix`."""
        found: set[tuple[Kind, str]] = {("model", model.id) for model in self.models if model.id.startswith(prefix)}
        for stem in ("groups", "drops"):
            for _, path, _ in self.tables(stem):
                found |= {("sample", name) for name in lookup.starting(path, "id", prefix)}
                found |= {("task", name) for name in lookup.starting(path, "task_id", prefix)}
        for _, path, _ in self.tables("examples"):
            found |= {("example", name) for name in lookup.starting(path, "id", prefix)}
        for _, path, _ in self.tables("mixture"):
            found |= {("real row", name) for name in lookup.starting(path, "id", prefix, {"source": "real"})}
        return found

    def samples(self, column: str, values: Sequence[str]) -> Iterator[SampleLink]:
        for stem in ("groups", "drops"):
            for item, path, _ in self.tables(stem):
                for row in lookup.rows(path, SAMPLE, {column: values}):
                    yield self._sample(item.label, row)

    def _sample(self, label: str, row: Mapping[str, Any]) -> SampleLink:
        origin = row["outcross"]
        return SampleLink(
            row["id"],
            label,
            row["task_id"],
            origin["source"],
            origin["depth"],
            row["prompt"],
            row["completion"] or "",
            row["verdict"],
            tuple(Score(**score) for score in row["scores"]),
            tuple(origin["verifiers"]),
            row["error"],
            f"{row['curator']}: {row['reason']}" if "curator" in row else "",
            row["id"] in self.buried,
        )

    def examples_of(self, samples: Sequence[str]) -> Iterator[ExampleLink]:
        """Examples made from these samples."""
        for _, path, _ in self.tables("examples"):
            ids = lookup.children(path, samples)
            if ids:
                yield from self.examples(ids)

    def examples(self, ids: Sequence[str]) -> Iterator[ExampleLink]:
        """Examples by id, in the order of `ids`; those no round made are real rows."""
        found: dict[str, ExampleLink] = {}
        for item, path, role in self.tables("examples"):
            for row in lookup.rows(path, EXAMPLE, {"id": ids}):
                parents = tuple(row["outcross"]["parents"])
                text = (row["prompt"], row["completion"])
                link = ExampleLink(
                    row["id"], item.label, role, "synthetic", row["loss"], row["weight"], *text, parents, row["id"] in self.buried
                )
                found.setdefault(row["id"], link)
        for name in ids:
            yield found.get(name) or ExampleLink(name, "", "", "real", tombstoned=name in self.buried)

    def uses(self, ids: Sequence[str]) -> Iterator[Use]:
        """Where examples stood in mixtures, in the order of the run."""
        fits = {item.label: found.fits for item, found in self.rounds}
        for item, path, role in self.tables("mixture"):
            offered = lookup.rows(path, ("id", "source", "repeats", "weight"), {"id": ids})
            seen = lookup.spans(path.with_name(f"order{suffix(role)}.parquet"), [row["id"] for row in offered])
            fit = fits[item.label].get(role)
            for row in offered:
                times, first, last = seen.get(row["id"], (0, None, None))
                made = fit.model if fit else ""
                yield Use(row["id"], item.label, role, row["source"], row["repeats"], row["weight"], times, first, last, made)

    def later(self, ids: Iterable[str]) -> tuple[ModelLink, ...]:
        """Models trained on from these, directly or not."""
        known = set(ids)
        found = []
        for model in self.models:
            if model.start in known and model.id not in known:
                known.add(model.id)
                found.append(model)
        return tuple(found)

    def earlier(self, name: str) -> tuple[ModelLink, ...]:
        """The chain of models this one was trained from, the nearest first."""
        by_id = {model.id: model for model in reversed(self.models)}
        chain: list[ModelLink] = []
        model = by_id.get(name)
        while model is not None and model.start in by_id and by_id[model.start] not in chain and model.start != name:
            model = by_id[model.start]
            chain.append(model)
        return tuple(chain)

    def contents(self, model: ModelLink, most: int, said: Mapping[str, int]) -> Contents:
        """What the fit that made `model` was offered, over all inner turns."""
        item, found = next(pair for pair in self.rounds if pair[0].label == model.round)
        sources: dict[str, tuple[int, int]] = {}
        ids: list[str] = []
        for part in item.parts():
            path = part / f"mixture{suffix(model.role)}.parquet"
            for source, (rows, repeats) in lookup.totals(path, "source", "repeats").items():
                old = sources.get(source, (0, 0))
                sources[source] = (old[0] + rows, old[1] + repeats)
            ids += [row["id"] for row in lookup.head(path, ("id",), most - len(ids))]
        mixed = found.mixtures.get(model.role)
        total = sum(rows for rows, _ in sources.values())
        return Contents(model.round, model.role, sources, mixed.parts if mixed else (), total, tuple(self.examples(ids)), said)
