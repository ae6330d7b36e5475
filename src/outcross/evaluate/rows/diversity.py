"""How varied a set of rows is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.evaluate.rows.chosen import chosen
from outcross.evaluate.rows.variety import dissimilarity, distinct
from outcross.stages import Bounds, Context, Rows, Stage
from outcross.text import words
from outcross.types import Ground, Measurement


@dataclass(frozen=True)
class RowDiversity(Stage):
    """How varied the answers (or prompts) of different tasks are, one row a task; higher is more varied.

    distinct: the share of different n-grams expected among those of 50 texts, over n = 1, 2, 3: it falls when the same texts or phrases
        come again and again. dissimilarity: one minus the mean n-gram cosine of two texts: it falls when all are alike.
        Neither depends on the number of rows, and as only the first 64 words of a text count, neither does much on their length.
    margin: how far the rows may fall behind real data and earlier releases.
    most: tasks that are looked at, chosen by a hash of their identifiers.

    Words are runs of letters and digits, so that scripts without spaces are not measured well.
    """

    statistic: Literal["distinct", "dissimilarity"] = "distinct"
    of: Literal["answer", "prompt"] = "answer"
    margin: float = 0.05
    most: int = 2000
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return f"{self.of}_{self.statistic}"

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.margin)

    def __call__(self, ctx: Context, rows: Rows, /) -> Measurement | None:
        found = chosen(rows, self.most)
        if not found:
            return None
        texts = [words(item.answer if self.of == "answer" else item.prompt)[:FIRST] for item in found]
        values = distinct(texts) if self.statistic == "distinct" else dissimilarity(texts)
        return Measurement(self.name, tuple(item.task_id for item in found), tuple(map(float, values)))


FIRST = 64  # words of a text that count: longer texts repeat themselves more, which is no lack of variety
