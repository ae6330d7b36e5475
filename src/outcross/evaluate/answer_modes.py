"""How many different answers the model has to one prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.errors import ConfigError
from outcross.evaluate.answered import answered
from outcross.evaluate.undecided import refuse_undecided
from outcross.stages import Context, Generator, Role, Stage
from outcross.text import normalise
from outcross.types import Ground, Measurement, Task


@dataclass(frozen=True)
class AnswerModes(Stage):
    """How different the answers to one and the same prompt are, per prompt: a policy that says one thing to each prompt is seen, even where
    all prompts together are answered as variously as ever.

    differ: the chance that two answers to the prompt differ, an estimate without bias from any number of samples (Simpson's index;
        Hurlbert, Ecology 52, 1971). Over k equally frequent answers it is 1 − 1/k.
    effective: the effective number of answers, exp of their entropy (Hill, Ecology 54, 1973): k for k equally frequent ones. It is at
        most the number of samples and too low with few of them, so compare it at one number alone.
    enough: more than this is no merit; None: it is. Set it to what people's answers have, or the gate asks for ever more.
    answer: what of a text is compared; two texts of the same answer are one mode.

    Guard with it the prompts that have several good answers. Where one answer is right, to learn it is to lose the others. Prompts
    with fewer than two answers count as not measured.
    """

    tasks: Iterable[Task]
    generator: Generator
    statistic: Literal["differ", "effective"] = "differ"
    enough: float | None = None
    margin: float = 0.1
    answer: Callable[[str], str] = normalise
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        n = getattr(self.generator, "n", 2)
        if n < 2:
            raise ConfigError(f"{self.name} compares the answers to one prompt, and its generator gives {n}; give it an n of 2 or more")

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("answer_modes", "" if self.statistic == "differ" else self.statistic, self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return self.generator.roles

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        found = answered(ctx, self.name, self.generator, self.tasks)
        values: dict[str, float] = {}
        single: list[tuple[str, str]] = []
        for item, texts in zip(found.items, found.texts(self.answer), strict=True):
            if len(texts) < 2:
                single.append((item, f"{len(texts)} answers, and two are needed"))
                continue
            value = differ(texts) if self.statistic == "differ" else effective(texts)
            values[item] = value if self.enough is None else min(value, self.enough)
        refuse_undecided(self.name, single, len(found.items))
        return Measurement(self.name, tuple(values), tuple(values.values()), unit="share" if self.statistic == "differ" else "answers")


def differ(texts: Sequence[str]) -> float:
    """The share of pairs of at least two texts that differ: without bias for 1 − Σp²."""
    same = sum(count * (count - 1) for count in Counter(texts).values())
    return 1.0 - same / (len(texts) * (len(texts) - 1))


def effective(texts: Sequence[str]) -> float:
    """exp of the plug-in entropy of at least one text."""
    shares = [count / len(texts) for count in Counter(texts).values()]
    return math.exp(-math.fsum(share * math.log(share) for share in shares))
