"""Duplicates in meaning, within a round, across the run and against real data."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from outcross.curate.nearest import KEPT, OWN, Found, reasons, spare
from outcross.curate.quality import parted
from outcross.curate.semantic import VectorShelf, VectorWriter, semantic_duplicates
from outcross.curate.spill import spilled, unspilled
from outcross.errors import ConfigError, StageError
from outcross.stages import Context, Embeds, Role, Stage
from outcross.text import prompt_text
from outcross.types import Drop, Example, Group, content_hash

_PLANTED = (
    "Planted by outcross: the harbour master of Ushuaia counted seventeen grey herons before breakfast.",
    "Planted by outcross: divide the cubic polynomial by its leading coefficient, then complete the cube.",
)


@dataclass(frozen=True)
class SemanticDedup(Stage):
    """Keeps the best of samples that mean almost the same: cosine `threshold` or more between their vectors (SemDeDup, Abbas et al.,
    arXiv:2303.09540; what is kept there is the example farthest from the centre of its cluster, here it is the best by score).

    threshold: ours; 1 − ε of the paper, which tunes ε to the share it wants to drop. Cosines mean something else for each embedder: look at
        the pairs that the reasons name before you trust a threshold.
    embedder: the role of the model that embeds. Vectors of two models do not compare: with another one the index starts anew.
    across: compares with this round, or with what all rounds of the run kept.
    against_real: also sets aside samples that say what a real row says, with the reason *memorised*.

    Two samples are duplicates when their answers are *and* their questions are. Real rows take precedence, then earlier rounds, then the
    higher mean of the verifiers' values, then the earlier sample. Whatever is dropped is near one that stays, which the reason names. A
    subgroup of tasks keeps its best sample even where all of its samples resemble those of others in the round.

    Reads the round twice: it goes to disk under the stage's state, with 2 vectors of 16-bit numbers per sample, which stay there for those kept.
    Memory: about 30 MB of cosines and vectors, and about 150 bytes per sample. Time grows with the square of the number of samples: 2 × width
    operations per pair. Failed requests and answers without text stay. Two planted duplicates go along in each round; `StageError` if one
    is missed, or if the model takes two unlike texts for one.
    """

    threshold: float = 0.95
    embedder: Role = "embedder"
    across: Literal["round", "run"] = "run"
    against_real: bool = True
    trims: ClassVar[bool] = True
    whole_round: ClassVar[bool] = True  # gives nothing before it has seen the last sample

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"{self.name}: threshold={self.threshold}; allowed is a cosine in (0, 1]")
        if self.across not in ("round", "run"):
            raise ConfigError(f"{self.name}: across is {self.across!r}; allowed: round, run")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.embedder,)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        model = embedding_model(self.name, ctx, self.embedder)
        home = ctx.past.state(self.name) / f"{content_hash(model.id)[:16]}-{self.threshold}"
        own, work = home / f"round-{ctx.round.replace('/', '-')}", home / "work"
        earlier = [path for path in sorted(home.glob("round-*")) if path != own] if self.across == "run" else []
        try:
            real = VectorShelf(home / "real")
            older = [VectorShelf(work / "planted"), *([real] if self.against_real else []), *map(VectorShelf, earlier)]
            with VectorWriter(work / "planted", model) as writer:
                writer.add("planted", _PLANTED[0], "")
            if self.against_real and not real.complete:
                self._shelve_real(ctx.past.real, VectorWriter(real.folder, model))
            shelf = VectorShelf(work / "round")
            scores, members, subgroups = self._shelve(spilled(groups, work / "groups"), VectorWriter(shelf.folder, model))
            found = semantic_duplicates(shelf, older, scores, self.threshold)
            self._check(found, len(shelf))
            spare(found, subgroups, scores)
            names = [other.ids for other in older]
            why = reasons(found, members, shelf.ids, names, 1 if self.against_real else None, "semantic duplicate", "cosine")
            for group in unspilled(work / "groups"):
                yield from parted(group, self.name, lambda sample: next(why))
            if self.across == "run":
                shelf.copy(np.flatnonzero(found.shelf[:-3] == KEPT), own)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _shelve_real(self, rows: Iterable[Example], into: VectorWriter) -> None:
        with into as writer:
            for row in rows:
                writer.add(row.id, row.completion if isinstance(row.completion, str) else "", prompt_text(row.prompt))

    def _shelve(self, groups: Iterable[Group], into: VectorWriter) -> tuple[NDArray[np.float64], list[int], list[str | None]]:
        """Write the documents; the score, group number and subgroup of each. Three planted ones come last, which have a score only."""
        scores: list[float] = []
        members: list[int] = []
        subgroups: list[str | None] = []
        with into as writer:
            for number, group in enumerate(groups):
                for sample in group.samples:
                    if not sample.error:
                        value = sample.value
                        scores.append(-np.inf if value is None or math.isnan(value) else value)
                        members.append(number)
                        subgroups.append(group.task.subgroup)
                        writer.add(sample.id, sample.text, prompt_text(sample.turns[-1].prompt))
            for place in (0, 1, 1):
                writer.add("planted", _PLANTED[place], "")
        return np.array([*scores, -np.inf, -np.inf, -np.inf]), members, subgroups

    def _check(self, found: Found, count: int) -> None:
        """The planted text of the older shelf must be met again, and of the two in this round the first kept and the second dropped."""
        seen = [(int(found.shelf[i]), int(found.document[i])) for i in (count - 3, count - 2, count - 1)]
        expected = [(0, 0), (KEPT, -1), (OWN, count - 2)]
        if seen != expected:
            raise StageError(
                f"{self.name} missed a planted duplicate or took unlike texts for one: (shelf, document) of the three planted texts are {seen}, not "
                f"{expected}; nothing was dropped. With this embedder unlike texts may have cosines above {self.threshold}: raise the threshold, or "
                "use another embedder; if not, remove the round's state folder and resume"
            )


def embedding_model(stage: str, ctx: Context, role: Role) -> Embeds:
    """The model of a role. Raises `ConfigError` if it gives no vectors."""
    model = ctx.model(role)
    if not isinstance(model, Embeds):
        raise ConfigError(
            f"{stage}: the model of role {role!r} does not embed; use embedder, hashed_embedder or an endpoint for embeddings"
        )
    return model
