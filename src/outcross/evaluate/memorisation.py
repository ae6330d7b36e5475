"""Whether answers repeat, word for word, what the model was taught."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.errors import ConfigError
from outcross.evaluate.answered import answered
from outcross.stages import Context, Generator, Role, Stage
from outcross.text import digest, prompt_text, words
from outcross.types import Array, Example, Ground, Measurement, Task


@dataclass(frozen=True)
class Memorisation(Stage):
    """The share of an item's answers that hold `span` words in a row which stand so in a real training row; lower is better.

    span: 50 is the length of Carlini et al. (arXiv:2202.07646), in tokens there and in words here: case and punctuation do not count. Take
        fewer for short answers: those of fewer words than the span never count.
    real: the rows; None: the bench's real rows, which the model is taught.

    Some spans are common property (licences, quotations), so that 0 cannot be asked for; what the gate asks is that they do not become more.
    Memory: the spans of the answers; rows are streamed.
    """

    tasks: Iterable[Task]
    generator: Generator
    span: int = 50
    real: Iterable[Example] | None = None
    margin: float = 0.02
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        if self.span < 2:
            raise ConfigError(f"memorisation: span is {self.span}; allowed are 2 words or more, and fewer than 10 or so mean little")

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("memorisation", self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return self.generator.roles

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        found = answered(ctx, self.name, self.generator, self.tasks)
        spoken = {item: [words(text) for text in texts] for item, texts in zip(found.items, found.texts(), strict=True) if texts}
        copied = self._copied((text for texts in spoken.values() for text in texts), ctx.past.real if self.real is None else self.real)
        values = tuple(
            sum(any(gram in copied for gram in _grams(text, self.span)) for text in texts) / len(texts) for texts in spoken.values()
        )
        return Measurement(self.name, tuple(spoken), values, higher_is_better=False, unit="share")

    def _copied(self, texts: Iterable[list[str]], rows: Iterable[Example]) -> set[int]:
        """The hashes of the answers' spans that stand in a real row.

        Any `span` words of a row hold a whole block of half as many that begins at a multiple of that: only blocks are looked
        up, and a row that shares one is read closely. Raises `ConfigError` when there are no rows.
        """
        half = (self.span + 1) // 2
        blocks: set[int] = set()
        spans: set[int] = set()
        for text in texts:
            if len(text) >= self.span:
                blocks.update(_grams(text, half))
                spans.update(_grams(text, self.span))
        copied: set[int] = set()
        empty = True
        for row in rows:
            empty = False
            for text in (words(text) for text in _texts(row)) if spans else ():
                if any(block in blocks for block in _grams(text, half, half)):
                    copied.update(gram for gram in _grams(text, self.span) if gram in spans)
        if empty:
            raise ConfigError(
                f"{self.name} compares answers with the real rows that are learnt, and there are none; give bench.real, or `real`"
            )
        return copied


def _texts(row: Example) -> tuple[str, str]:
    return prompt_text(row.prompt), "" if isinstance(row.completion, Array) else row.completion


def _grams(text: list[str], size: int, step: int = 1) -> Iterator[int]:
    return (digest(" ".join(text[start : start + size])) for start in range(0, len(text) - size + 1, step))
