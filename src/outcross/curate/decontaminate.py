"""Decontamination against test items: the engine's own guard looks for equal prompts and 13-grams, this one for overlap as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from outcross.curate.overlap import LONG, NOTHING, Overlap, OverlapIndex
from outcross.curate.quality import parted
from outcross.errors import ConfigError, DataError
from outcross.stages import Context, Stage
from outcross.text import prompt_text, words
from outcross.types import Drop, Group, Sample, Task

_SAMPLES = 512  # samples looked up at once
_SHOWN = 60  # words of a passage that enter the reason


@dataclass(frozen=True)
class DecontaminateOverlap(Stage):
    """Sets aside samples that share passages with `tasks`, the items of held-out sets and benchmarks (Phi-4, arXiv:2412.08905,
    appendix B, algorithm 1; see `overlap`). Each prompt and answer of a sample is compared with each item's prompt, and with its answer if
    that has 13 words or more; the worst finding counts.

    allowed: passages whose 13-grams are no evidence, such as the boilerplate of multiple-choice questions.
    contaminated, info: a sample whose 7-gram overlap ratio r is above `info` is contaminated from `contaminated` on and partial below.
        The paper gives no values; these are ours. `contaminated` above 1 leaves the verdict to the 13-grams.
    keep_partial: whether partial samples stay.

    The reason of a drop names the item and the matched passage. The index is kept under the stage's state, by its content, and made again when
    the items or `allowed` change. Memory: the index of the items and some hundred samples. Failed
    requests stay. Raises `DataError` when there are no items.
    """

    tasks: Iterable[Task]
    allowed: tuple[str, ...] = ()
    contaminated: float = 0.5
    info: float = 0.2
    keep_partial: bool = True
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.info <= self.contaminated:
            raise ConfigError(f"{self.name}: info={self.info}, contaminated={self.contaminated}; allowed are 0 ≤ info ≤ contaminated")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        names: list[str] = []
        items = list(held_out(self.tasks, names))
        if not names:
            raise DataError(f"{self.name}: `tasks` is empty; give the held-out items or a benchmark file, or leave the stage out")
        index = OverlapIndex.kept(ctx.past.state(self.name), items, allowed=self.allowed)
        batch: list[Group] = []
        waiting = 0
        for group in groups:
            batch.append(group)
            waiting += len(group.samples)
            if waiting >= _SAMPLES:
                yield from self._parted(batch, index, names)
                batch, waiting = [], 0
        yield from self._parted(batch, index, names)

    def _parted(self, groups: list[Group], index: OverlapIndex, names: list[str]) -> Iterator[Group | Drop]:
        texts = list(dict.fromkeys(text for group in groups for sample in group.samples for text in said(sample)))
        found = dict(zip(texts, index.of(texts), strict=True))

        def why_not(sample: Sample) -> str | None:
            worst = max((found[text] for text in said(sample)), key=lambda one: (one.item >= 0, one.ratio), default=NOTHING)
            return self._why_not(worst, names)

        for group in groups:
            yield from parted(group, self.name, why_not)

    def _why_not(self, overlap: Overlap, names: list[str]) -> str | None:
        if overlap.item >= 0:
            return f"contaminated by a passage: “{cut(overlap.passage)}” stands in item {names[overlap.item]}"
        if overlap.ratio <= self.info:
            return None
        status = "contaminated by 7-grams" if overlap.ratio >= self.contaminated else "partly contaminated"
        if status == "partly contaminated" and self.keep_partial:
            return None
        return (
            f"{status}: overlap ratio {overlap.ratio:.3f} with item {names[overlap.nearest]}, "
            f"{len(overlap.shared)} shared 7-grams, the first “{overlap.shared[0]}”"
        )


def held_out(tasks: Iterable[Task], names: list[str]) -> Iterator[str]:
    """Prompts, and answers that are long enough to be told apart; `names` receives the task of each."""
    for task in tasks:
        names.append(task.id)
        yield prompt_text(task.prompt)
        if task.answer and len(words(task.answer)) >= LONG:
            names.append(task.id)
            yield task.answer


def said(sample: Sample) -> Iterator[str]:
    """Every prompt and every answer of a sample that is text."""
    for turn in sample.turns:
        yield prompt_text(turn.prompt)
        if isinstance(turn.completion.content, str):
            yield turn.completion.content


def cut(passage: str) -> str:
    """The first words of a passage, for a reason."""
    spoken = passage.split(" ")
    return passage if len(spoken) <= _SHOWN else " ".join([*spoken[:_SHOWN], "…"])
