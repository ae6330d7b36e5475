"""Variety and coverage by meaning, on a sample: texts as vectors of an embedding model.

As in `against_real`: three disjoint parts of real rows and one of the set, all of the same number of rows, drawn again and again. The two figures are a
family of their own at the same level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from outcross.audit.against_real import DRAWS, statistics
from outcross.audit.findings import Statistic
from outcross.evaluate.neighbours import coverage
from outcross.evaluate.vendi import vendi_score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from outcross.stages import Embeds

    Vectors = NDArray[np.float64]

ROWS = 300  # a part at most: the Vendi score takes time by the third power
LEAST = 30
NEIGHBOURS = 5  # Naeem et al., arXiv:2002.09797
IN_EFFECT, REACHED = "texts in effect (Vendi)", "real neighbourhoods reached"
FIGURES: Mapping[str, Literal["lower", "higher", "either"]] = {IN_EFFECT: "lower", REACHED: "lower"}


def by_meaning(model: Embeds, texts: Sequence[str], real: Sequence[str], seed: int = 0) -> tuple[tuple[Statistic, ...], int, str]:
    """The Vendi score (Friedman & Dieng, arXiv:2210.02410) and coverage with their intervals, the rows each is of, and why there are none."""
    import numpy as np

    rows = min(len(texts), len(real) // 3, ROWS)
    if rows < LEAST:
        return (
            (),
            rows,
            f"variety by meaning: {LEAST} rows and {3 * LEAST} real ones are needed; there are {len(texts):,} and {len(real):,}",
        )
    rng = np.random.default_rng(seed)
    own = _vectors(model, [texts[k] for k in rng.permutation(len(texts))[: 2 * rows]])
    theirs = _vectors(model, [real[k] for k in rng.permutation(len(real))[: 3 * rows]])
    values = []
    for _ in range(DRAWS):
        reference, second, third = np.split(theirs[rng.permutation(len(theirs))], 3)
        mine = own[rng.permutation(len(own))[:rows]]
        values.append([[vendi_score(part @ part.T), _reached(reference, part)] for part in (mine, second, third)])
    return tuple(statistics(np.array(values), FIGURES)), rows, ""


def _vectors(model: Embeds, texts: Sequence[str]) -> Vectors:
    import numpy as np

    found = np.array(list(model.embed(texts)), np.float64)
    scaled: Vectors = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return scaled


def _reached(real: Vectors, part: Vectors) -> float:
    import numpy as np

    return float(coverage(real, part, NEIGHBOURS, np.ones((1, len(real)), np.bool_), np.ones((1, len(part)), np.bool_))[0])
