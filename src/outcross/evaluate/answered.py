"""What probes of answers begin with: the model's answers to each item, and the real answers they are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from outcross.errors import ConfigError
from outcross.evaluate.undecided import refuse_undecided, why_undecided
from outcross.stages import Context, Generator
from outcross.types import Example, Measurement, Sample, Task

if TYPE_CHECKING:
    from outcross.evaluate.statistics import Floats


@dataclass(frozen=True)
class Answered:
    """The samples of each item that did not fail, and the item's own reference answer."""

    probe: str
    items: tuple[str, ...]
    samples: tuple[tuple[Sample, ...], ...]
    own: tuple[str | None, ...]

    def texts(self, answer: Callable[[str], str] = str) -> list[list[str]]:
        """What was answered to each item, as `answer` makes it of a text."""
        return [[answer(sample.text) for sample in samples] for samples in self.samples]

    def real(self, reference: Iterable[Example] | None, answer: Callable[[str], str] = str) -> list[list[str]]:
        """One real answer per item; which one goes with which item does not matter to a pooled statistic.

        `reference` None: the items' own answers. Raises `ConfigError` when there are fewer than items.
        """
        if reference is None:
            found = [text for text in self.own if text is not None]
        else:
            texts = (example.completion for example in reference if isinstance(example.completion, str))
            found = list(islice(texts, len(self.items)))
        if len(found) < len(self.items):
            raise ConfigError(
                f"{self.probe} compares {len(self.items):,} answers with real ones and has {len(found):,}; give its tasks answers, or "
                f"pass as `reference` at least {len(self.items):,} real examples of text, or fewer tasks"
            )
        return [[answer(text)] for text in found]

    def measurement(self, found: Floats, unit: str, *, higher_is_better: bool = True) -> Measurement:
        """A statistic of all items, `found[0]`, with its values on half samples as replicates, centred on it: half as many answers have
        another entropy, say, so that only the spread of the halves speaks of all items."""
        spread = found[1:] - found[1:].mean() + found[0]
        return Measurement(self.probe, self.items, (float(found[0]),), tuple(map(float, spread)), higher_is_better, unit)


def answered(ctx: Context, probe: str, generator: Generator, tasks: Iterable[Task]) -> Answered:
    """Ask the generator about every task. Raises `StageError` when there are none, or when over 5 % of them have no answer."""
    items: list[str] = []
    samples: list[tuple[Sample, ...]] = []
    own: list[str | None] = []
    failed: list[tuple[str, str]] = []
    for group in generator(ctx, tasks):
        items.append(group.task.id)
        own.append(group.task.answer)
        samples.append(tuple(sample for sample in group.samples if not sample.error))
        if not samples[-1]:
            failed.append((group.task.id, why_undecided(group)))
    refuse_undecided(probe, failed, len(items))
    return Answered(probe, tuple(items), tuple(samples), tuple(own))
