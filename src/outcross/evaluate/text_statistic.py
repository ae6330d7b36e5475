"""Statistics of the answers' text that need equal amounts of it, held against real answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outcross.evaluate.answered import answered
from outcross.evaluate.lexical import Pooled, SelfBleu, compression, thinned, type_token_curve, zipf_exponent
from outcross.evaluate.statistics import half_samples
from outcross.stages import Context, Generator, Role, Stage
from outcross.text import words
from outcross.types import Example, Ground, Measurement, Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from outcross.evaluate.statistics import Floats

    Subset = npt.NDArray[np.bool_]

FIRST = 2000  # characters of an answer that count for compression, which bounds the work
UNITS = {
    "vocabulary": "doublings over real",
    "zipf": "exponent over real",
    "self_bleu": "share over real",
    "compression": "share over real",
}


@dataclass(frozen=True)
class TextStatistic(Stage):
    """How much richer the first answers to all prompts together are than real ones, in an equal amount of text; negative is poorer.

    vocabulary: different words among equally many words, as the binary logarithm of the ratio to real text: −1 is half as many.
    zipf: the exponent of Zipf's law by maximum likelihood, sign turned: collapse makes it steeper.
    self_bleu: how alike equally many answers are, sign turned.
    compression: compressed over full size of equally many bytes (of at most 2,000 characters an answer): repetition lowers it.
    reference: real answers, at least as many as tasks; None: the tasks' own. `margin` is in these units.

    All four depend on how much text there is. So words and bytes are those of the shorter side, the model's or the real one's; of the
    longer side equally many are taken. As with `Diversity`, more than real is no merit to the gate (unit "… over real"), replicates are half
    samples of the items about the value, and words are runs of letters and digits. An empty answer is an empty word.
    """

    tasks: Iterable[Task]
    generator: Generator
    statistic: Literal["vocabulary", "zipf", "self_bleu", "compression"] = "vocabulary"
    reference: Iterable[Example] | None = None
    margin: float = 0.1
    replicates: int = 300
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("text", self.statistic, self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return self.generator.roles

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        import numpy as np

        found = answered(ctx, self.name, self.generator, self.tasks)
        subsets = half_samples(found.items, self.replicates)
        said = [texts[0] if texts else None for texts in found.texts()]
        real = [texts[0] for texts in found.real(self.reference)]
        if None in said:  # an item without an answer, of which there are few, leaves both sides
            subsets = subsets & np.array([text is not None for text in said])
        measured = {"vocabulary": vocabulary, "zipf": zipf, "self_bleu": self_bleu, "compression": compressed}[self.statistic]
        return found.measurement(measured([text or "" for text in said], real, subsets), UNITS[self.statistic])


def _tokens(texts: Sequence[str]) -> list[list[str]]:
    return [words(text) or [""] for text in texts]


def _pools(said: Sequence[str], real: Sequence[str]) -> tuple[Pooled, Pooled]:
    codes: dict[str, int] = {}
    return Pooled(_tokens(said), codes), Pooled(_tokens(real), codes)


def vocabulary(said: Sequence[str], real: Sequence[str], subsets: npt.NDArray[np.bool_]) -> Floats:
    """The binary logarithm of different words over those of real text, for each subset (subsets, items), among as many words as the
    shorter of the two has."""
    import numpy as np

    pools = _pools(said, real)

    def one(subset: Subset) -> float:
        mine, theirs = (pool.counts(subset) for pool in pools)
        size = min(int(mine.sum()), int(theirs.sum()))
        found = [float(type_token_curve(counts, [size])[0]) for counts in (mine, theirs)]
        return math.log2(found[0] / found[1]) if size else 0.0

    return np.array([one(subset) for subset in subsets])


def zipf(said: Sequence[str], real: Sequence[str], subsets: npt.NDArray[np.bool_]) -> Floats:
    """Real text's exponent less the answers', for each subset, at equally many words and ranks. The longer side is thinned at random; the
    draws are the same for all models."""
    import numpy as np

    pools = _pools(said, real)

    def one(number: int, subset: Subset) -> float:
        rng = np.random.RandomState(number)
        mine, theirs = (pool.counts(subset) for pool in pools)
        size = min(int(mine.sum()), int(theirs.sum()))
        mine, theirs = thinned(mine, size, rng), thinned(theirs, size, rng)
        ranks = max(int(np.count_nonzero(mine)), int(np.count_nonzero(theirs)))
        return zipf_exponent(theirs, ranks) - zipf_exponent(mine, ranks)

    return np.array([one(number, subset) for number, subset in enumerate(subsets)])


def self_bleu(said: Sequence[str], real: Sequence[str], subsets: npt.NDArray[np.bool_]) -> Floats:
    """Real texts' self-BLEU less the answers', for each subset."""
    import numpy as np

    mine, theirs = SelfBleu(_tokens(said)), SelfBleu(_tokens(real))
    return np.array([theirs(subset) - mine(subset) for subset in subsets])


def compressed(said: Sequence[str], real: Sequence[str], subsets: npt.NDArray[np.bool_]) -> Floats:
    """The answers' compression less real texts', for each subset, of as many bytes as the shorter of the two has."""
    import numpy as np

    sides = [[text[:FIRST].encode(errors="replace") + b"\n" for text in texts] for texts in (said, real)]

    def one(subset: Subset) -> float:
        chosen = np.flatnonzero(subset).tolist()
        mine, theirs = (b"".join(side[index] for index in chosen) for side in sides)
        size = min(len(mine), len(theirs))
        return compression(mine[:size]) - compression(theirs[:size])

    return np.array([one(subset) for subset in subsets])
