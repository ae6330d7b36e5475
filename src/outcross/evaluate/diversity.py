"""How varied the model's answers are, held against the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outcross.evaluate.answered import answered
from outcross.evaluate.statistics import distinct, entropy, half_samples, self_overlap
from outcross.stages import Context, Generator, Role, Stage
from outcross.text import normalise, words
from outcross.types import Example, Ground, Measurement, Task

if TYPE_CHECKING:
    from outcross.evaluate.statistics import Answers, Floats, Subsets


@dataclass(frozen=True)
class Diversity(Stage):
    """How much more varied the answers to all prompts together are than the real answers; negative is less varied.

    entropy: of whole answers, in nats. distinct: share of different n-grams among 200. self_overlap: mean n-gram cosine
        of two answers, sign turned. `margin` is in these units.
    reference: real answers, at least as many as tasks; None: the tasks' own. answer: what of a text is compared.

    Answers are pooled over prompts because the entropy per prompt *should* fall as a model gets right. Collapse makes the
    value fall. A value above 0 is no merit: wrong answers can be more varied than right ones, and getting right may lower
    it. So the gate (unit "… over real") asks that the candidate is not below the lower of 0 and the other model by more
    than the margin. The value is not cut at 0 here, because a cut statistic has no usable standard error near the cut.
    Replicates are half samples of the items, about the value. The entropy is that of as many answers as there are items: it
    does not tell models apart whose answers nearly all differ. Words are runs of letters and digits: in scripts without
    spaces, give an `answer` that puts them in for the statistics of n-grams.
    """

    tasks: Iterable[Task]
    generator: Generator
    statistic: Literal["entropy", "distinct", "self_overlap"] = "entropy"
    reference: Iterable[Example] | None = None
    margin: float = 0.1
    answer: Callable[[str], str] = normalise
    replicates: int = 300
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("diversity", self.statistic, self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return self.generator.roles

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        found = answered(ctx, self.name, self.generator, self.tasks)
        subsets = half_samples(found.items, self.replicates)
        over = self._measure(found.texts(self.answer), subsets) - self._measure(found.real(self.reference, self.answer), subsets)
        return found.measurement(over, "nats over real" if self.statistic == "entropy" else "share over real")

    def _measure(self, answers: Answers, subsets: Subsets) -> Floats:
        if self.statistic == "entropy":
            return entropy(answers, subsets)
        if self.statistic == "distinct":
            return distinct(answers, subsets, words)
        return -self_overlap(answers, subsets, words)
