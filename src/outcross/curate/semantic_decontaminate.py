"""Decontamination by meaning: what a paraphrase or a translation of a test item leaves no n-gram of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from outcross.curate.decontaminate import cut, held_out, said
from outcross.curate.quality import sifted_together
from outcross.curate.semantic import VectorShelf, VectorWriter, embedded, nearest
from outcross.curate.semantic_dedup import embedding_model
from outcross.errors import ConfigError, DataError
from outcross.stages import Context, Embeds, Role, Stage
from outcross.types import Drop, Group, Sample, Task, content_hash


@dataclass(frozen=True)
class SemanticDecontaminate(Stage):
    """Sets aside samples that are near an item of `tasks` (held-out sets and benchmarks) in meaning: cosine `threshold` or more between the
    vectors of a prompt or an answer of the sample and of an item's prompt, or its answer of 13 words or more. For rephrased items, which pass
    every n-gram match (Yang et al., arXiv:2311.04850, who let a judge decide on the nearest pairs); `decontaminate_overlap` is to go before it.

    threshold: ours. Cosines mean something else for each embedder, and short questions of one kind are near each other: look at the pairs.
    embedder: the role of the model that embeds.

    The reason of a drop prints the cosine and both texts. The items' vectors are kept under the stage's state, by content and model. Memory: some
    hundred samples and 4,096 items with their vectors. Failed requests stay. Raises `DataError` when there are no items.
    """

    tasks: Iterable[Task]
    threshold: float = 0.9
    embedder: Role = "embedder"
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"{self.name}: threshold={self.threshold}; allowed is a cosine in (0, 1]")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.embedder,)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        model = embedding_model(self.name, ctx, self.embedder)
        names: list[str] = []
        items = list(held_out(self.tasks, names))
        if not any(item.strip() for item in items):
            raise DataError(f"{self.name}: `tasks` has no text; give the held-out items or a benchmark file, or leave the stage out")
        shelf = self._shelved(ctx.past.state(self.name), model, items)

        def why_not(samples: Sequence[Sample]) -> list[str | None]:
            texts = list(dict.fromkeys(text for sample in samples for text in said(sample) if text.strip()))
            if not texts:
                return [None] * len(samples)
            cosines, places = nearest(embedded(model, texts, shelf.width), shelf)
            near = {text: (float(cosine), int(place)) for text, cosine, place in zip(texts, cosines, places, strict=True)}
            return [self._why_not(sample, near, items, names) for sample in samples]

        yield from sifted_together(groups, self.name, why_not)

    def _shelved(self, folder: Path, model: Embeds, items: Sequence[str]) -> VectorShelf:
        shelf = VectorShelf(folder / content_hash(model.id, items))
        if not shelf.complete:
            with VectorWriter(shelf.folder, model) as writer:
                for number, item in enumerate(items):
                    writer.add(str(number), item, "")
        return shelf

    def _why_not(self, sample: Sample, near: dict[str, tuple[float, int]], items: Sequence[str], names: Sequence[str]) -> str | None:
        worst = max((text for text in said(sample) if text in near), key=lambda text: near[text][0], default=None)
        if worst is None or near[worst][0] < self.threshold - 1e-3:
            return None
        cosine, place = near[worst]
        return f"contaminated in meaning: cosine {cosine:.2f} of “{cut(worst)}” with item {names[place]}, “{cut(items[place])}”"
