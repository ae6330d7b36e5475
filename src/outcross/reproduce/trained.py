"""Claims about models that are trained: what is compared between lineages, in every seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outcross.lab.claim import NORMAL_95, Claim, Estimate, Scale
from outcross.lab.claims_refit import GERSTGRASSER, KAZDAN, SHUMAILOV
from outcross.reproduce import text
from outcross.reproduce.lineage import Course, Lineage, Lived

SEEDS: Mapping[Scale, int] = {"toy": 0, "small": 1, "full": 5}
LOSS, TAIL, VOCABULARY, SURPRISE = "real_loss", "tail_loss", "text_vocabulary", "self_perplexity"

Found = tuple[float, float]
"""A number found in one seed, and its standard error over the held-out items."""
Read = Callable[[Mapping[str, Lived]], Found]
"""From the lineages of one seed, by name."""


@dataclass(frozen=True, kw_only=True)
class TrainedClaim(Claim):
    """A claim about trained models: `read` finds its number in the `lineages` of one seed.

    Of several seeds the interval is over seeds (Student's t); of one it is over the held-out items, which says nothing of other seeds.
    most: seeds that are run at most, whatever the scale.
    """

    lineages: tuple[Lineage, ...]
    read: Read
    most: int = SEEDS["full"]
    least: ClassVar[Scale] = "small"

    def seeds(self, scale: Scale) -> int:
        """How many seeds are run at a scale."""
        return min(SEEDS[scale], self.most)

    def estimate(self, seeds: Sequence[Mapping[str, Lived]]) -> Estimate:
        """The number over all seeds."""
        from scipy.stats import t

        found = [self.read(lived) for lived in seeds]
        values = np.array([value for value, _ in found])
        if len(found) == 1:
            return Estimate(None, float(values[0]), found[0][1], NORMAL_95, "one seed; the interval is over held-out items")
        note = f"above zero in {int((values > 0).sum())} of {len(values)} seeds" if self.kind == "direction" else f"{len(values)} seeds"
        error = float(values.std(ddof=1) / math.sqrt(len(values)))
        return Estimate(None, float(values.mean()), error, float(t.ppf(0.975, len(values) - 1)), note)


def worse(lineage: Lineage, other: Lineage, probe: str = LOSS, generation: int = -1) -> Read:
    """By how much a loss is higher in one lineage than in the other, over the items that both have."""

    def read(lived: Mapping[str, Lived]) -> Found:
        gaps = lived[lineage.name][probe].values(generation) - lived[other.name][probe].values(generation)
        return float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(len(gaps)))

    return read


def rise(lineage: Lineage, probe: str = LOSS, generation: int = -1) -> Read:
    """By how much a number is higher than with the first model."""

    def read(lived: Mapping[str, Lived]) -> Found:
        course = lived[lineage.name][probe]
        return float(course.means[generation] - course.means[0]), course.error(generation)

    return read


def fall(lineage: Lineage, probe: str) -> Read:
    """By how much a number is lower in the last generation than with the first model."""

    def read(lived: Mapping[str, Lived]) -> Found:
        found, error = rise(lineage, probe)(lived)
        return -found, error

    return read


def ahead(early: str, late: str, sign: float, lineage: Lineage) -> Read:
    """By how many of its own standard errors one probe moves in the first generation, less the same of another. `sign` turns the first so
    that it rises."""

    def moved(course: Course) -> float:
        return float(course.means[1] - course.means[0]) / course.error(1)

    def read(lived: Mapping[str, Lived]) -> Found:
        courses = lived[lineage.name]
        return sign * moved(courses[early]) - moved(courses[late]), math.sqrt(2)  # each has a standard error of 1 in this unit

    return read


def more(lineage: Lineage, early: str, late: str) -> Read:
    """By how much more one loss rises than another in the first generation."""

    def read(lived: Mapping[str, Lived]) -> Found:
        (one, first), (other, second) = (rise(lineage, probe, 1)(lived) for probe in (early, late))
        return one - other, math.hypot(first, second)

    return read


def half_recovered(none: Lineage, some: Lineage) -> Read:
    """Half of the rise of the loss without real rows, less the rise with some."""

    def read(lived: Mapping[str, Lived]) -> Found:
        (without, first), (with_some, second) = (rise(lineage)(lived) for lineage in (none, some))
        return without / 2 - with_some, math.hypot(first / 2, second)

    return read


TENTH, THIRD, SEVENTY = text.SHARES


def _claim(
    name: str, paper: str, place: str, what: str, lineages: tuple[Lineage, ...], read: Read, published: float | None = None
) -> TrainedClaim:
    """A direction, or where a figure was published a magnitude, to be met within a half of it: models and texts are other and far smaller."""
    kind = "direction" if published is None else "magnitude"
    return TrainedClaim(name, paper, place, published, kind, what, tolerance=0.5, lineages=lineages, read=read)  # type: ignore[arg-type]


_TABLE = "Table 2: GPT-2 9M, TinyStories"
_SMALL = " (0.2M parameters)"

TEXT_CLAIMS: tuple[TrainedClaim, ...] = (
    _claim(
        "gerstgrasser-text-replace",
        GERSTGRASSER,
        _TABLE,
        f"held-out loss after 5 replaced generations is above accumulated{_SMALL}",
        (text.REPLACE, text.ACCUMULATE),
        worse(text.REPLACE, text.ACCUMULATE),
    ),
    _claim(
        "gerstgrasser-text-replace-rise",
        GERSTGRASSER,
        _TABLE,
        f"rise of held-out loss from iteration 1 to 4, replaced: 2.39 − 1.82{_SMALL}",
        (text.REPLACE,),
        rise(text.REPLACE, generation=3),
        0.57,
    ),
    _claim(
        "gerstgrasser-text-accumulate-change",
        GERSTGRASSER,
        _TABLE,
        f"change of held-out loss from iteration 1 to 4, accumulated: 1.74 − 1.82{_SMALL}",
        (text.ACCUMULATE,),
        rise(text.ACCUMULATE, generation=3),
        -0.08,
    ),
    _claim(
        "gerstgrasser-text-cold",
        GERSTGRASSER,
        _TABLE,
        f"text drawn at T = 0.3 ends with more loss than at T = 1, replaced{_SMALL}",
        (text.COLD, text.REPLACE),
        worse(text.COLD, text.REPLACE),
    ),
    _claim(
        "kazdan-text-below-replace",
        KAZDAN,
        "language models",
        f"subsampled text ends with less loss than replaced{_SMALL}",
        (text.REPLACE, text.SUBSAMPLE),
        worse(text.REPLACE, text.SUBSAMPLE),
    ),
    _claim(
        "kazdan-text-above-accumulate",
        KAZDAN,
        "language models",
        f"subsampled text ends with more loss than accumulated{_SMALL}",
        (text.SUBSAMPLE, text.ACCUMULATE),
        worse(text.SUBSAMPLE, text.ACCUMULATE),
    ),
    _claim(
        "shumailov-text-replace",
        SHUMAILOV,
        "Fig. 1b: OPT-125m, wikitext-2, 0 % real",
        f"held-out loss rises over 5 replaced generations{_SMALL}",
        (text.WIKI_REPLACE,),
        rise(text.WIKI_REPLACE),
    ),
    _claim(
        "shumailov-text-tenth",
        SHUMAILOV,
        "Fig. 1c: OPT-125m, wikitext-2, 10 % real",
        f"10 % real rows soften it: less loss at the end{_SMALL}",
        (text.WIKI_REPLACE, text.WIKI_TENTH),
        worse(text.WIKI_REPLACE, text.WIKI_TENTH),
    ),
    _claim(
        "shumailov-text-beams",
        SHUMAILOV,
        "wikitext-2, 5-way beam search",
        f"text found by 5 beams ends with more loss than text drawn at T = 1{_SMALL}",
        (text.WIKI_BEAMS, text.WIKI_REPLACE),
        worse(text.WIKI_BEAMS, text.WIKI_REPLACE),
    ),
    _claim(
        "shumailov-text-likely",
        SHUMAILOV,
        "Fig. 1: perplexity under generation 0",
        f"what generation 5 writes is likelier to the first model than its own text (nats a token){_SMALL}",
        (text.WIKI_REPLACE,),
        fall(text.WIKI_REPLACE, SURPRISE),
    ),
    _claim(
        "shumailov-text-tail-first",
        SHUMAILOV,
        "early collapse: the tails go first",
        f"in generation 1 the rarest tenth of tokens loses more than the mean token (nats){_SMALL}",
        (text.WIKI_REPLACE,),
        more(text.WIKI_REPLACE, TAIL, LOSS),
    ),
    _claim(
        "shumailov-text-tail-signal",
        SHUMAILOV,
        "early collapse: the tails go first",
        f"in generation 1 tail loss moves by more of its standard errors than mean loss{_SMALL}",
        (text.WIKI_REPLACE,),
        ahead(TAIL, LOSS, 1.0, text.WIKI_REPLACE),
    ),
    _claim(
        "shumailov-text-diversity-signal",
        SHUMAILOV,
        "early collapse: the tails go first",
        f"in generation 1 the vocabulary falls by more of its standard errors than mean loss rises{_SMALL}",
        (text.WIKI_REPLACE,),
        ahead(VOCABULARY, LOSS, -1.0, text.WIKI_REPLACE),
    ),
    _claim(
        "real-share-text-half-at-ten",
        SHUMAILOV,
        "“only minor” with 10 % real, read so",
        f"10 % real rows take away more than half of the rise of the loss{_SMALL}",
        (text.REPLACE, TENTH),
        half_recovered(text.REPLACE, TENTH),
    ),
    _claim(
        "real-share-text-seventy",
        "“At least 70 % real”, folklore",
        "no primary source",
        f"70 % real rows end with less loss than 30 %{_SMALL}",
        (THIRD, SEVENTY),
        worse(THIRD, SEVENTY),
    ),
)
