"""How two clouds of points lie in each other: precision, recall, density and coverage, on all points and on many subsets at once.

Points are rows of (points, width) arrays and distances Euclidean. The ball of a point reaches to its k-th neighbour in its own cloud
(itself not counted) and is closed: with strict balls, as Naeem et al. write them, a point with k copies would have a ball that not even
another copy is in. Without ties that makes no difference. `on_real` and `on_fake` are boolean of shape (subsets, points); radii are those of
all points.

Time: real × fake × (width + subsets that each hit counts for). Memory: 2,000,000 distances at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

BLOCK = 2_000_000  # distances held at once


def coverage(real: Floats, fake: Floats, k: int, on_real: Flags, on_fake: Flags) -> Floats:
    """The share of real points whose ball holds a fake one (Naeem et al., arXiv:2002.09797, equation 6)."""
    import numpy as np

    found = np.zeros(len(on_real))
    for rows, hits in _hits(real, fake, radii(real, k)[:, None]):
        found += (on_real[:, rows].T & (_times(hits, on_fake) > 0)).sum(axis=0)
    return _over(found, on_real.sum(axis=1))


def density(real: Floats, fake: Floats, k: int, on_real: Flags, on_fake: Flags) -> Floats:
    """In how many balls of real points a fake one lies, over k; 1 in expectation when the laws are equal (Naeem et al., equation 5)."""
    import numpy as np

    found = np.zeros(len(on_real))
    for rows, hits in _hits(real, fake, radii(real, k)[:, None]):
        found += (on_real[:, rows].T * _times(hits, on_fake)).sum(axis=0)
    return _over(found * (len(real) / k), on_real.sum(axis=1) * on_fake.sum(axis=1))


def precision(real: Floats, fake: Floats, k: int, on_real: Flags, on_fake: Flags) -> Floats:
    """The share of fake points that lie in the ball of a real one (Kynkäänniemi et al., arXiv:1904.06991, equation 2)."""
    import numpy as np

    held = np.zeros(on_fake.shape, dtype=np.bool_)
    for rows, hits in _hits(real, fake, radii(real, k)[:, None]):
        held |= _times(hits.T.tocsr(), on_real[:, rows]).T > 0
    return _over((held & on_fake).sum(axis=1), on_fake.sum(axis=1))


def recall(real: Floats, fake: Floats, k: int, on_real: Flags, on_fake: Flags) -> Floats:
    """The share of real points that lie in the ball of a fake one (Kynkäänniemi et al., equation 2)."""
    import numpy as np

    found = np.zeros(len(on_real))
    for rows, hits in _hits(real, fake, radii(fake, k)[None, :]):
        found += (on_real[:, rows].T & (_times(hits, on_fake) > 0)).sum(axis=0)
    return _over(found, on_real.sum(axis=1))


def expected_coverage(real: int, fake: int, k: int) -> float:
    """The coverage to be expected of samples of one law without ties: one less the chance that the k nearest of a real point's neighbours
    are all real (Naeem et al., lemma 2); 1 − 2⁻ᵏ for large sets of equal size."""
    missed = 1.0
    for step in range(1, k + 1):
        missed *= max(real - step, 0) / (real + fake - step)
    return 1 - missed


def expected_precision(real: Floats, k: int) -> float:
    """The precision of real points themselves, each left out in turn: what another sample of their law has, up to chance. By symmetry, it
    is the recall of as many of them too. It has no closed form: it depends on the law."""
    import numpy as np

    held = np.zeros(len(real), dtype=np.bool_)
    for near in _near_each_other(real, k):
        held |= near.any(axis=0)
    return float(held.mean())


def expected_density(real: Floats, k: int) -> float:
    """The density of real points themselves, each left out in turn: 1, and more where distances are equal, as between short answers."""
    return sum(float(near.sum()) for near in _near_each_other(real, k)) / (k * len(real))


def _near_each_other(points: Floats, k: int) -> Iterator[Flags]:
    """Which points lie in the balls of which others, a block of balls at a time."""
    for rows, squared in _distances(points, points):
        _leave_out_itself(squared, rows)
        yield squared <= _kth(squared, k)[:, None]


def radii(points: Floats, k: int) -> Floats:
    """Squared distances to each point's k-th neighbour."""
    import numpy as np

    found = np.zeros(len(points))
    for rows, squared in _distances(points, points):
        _leave_out_itself(squared, rows)
        found[rows] = _kth(squared, k)
    return found


def _hits(real: Floats, fake: Floats, reach: Floats) -> Iterator[tuple[slice, Any]]:
    """Which fake points are within `reach`, squared and broadcast to (real, fake), of which real ones: a block of real rows at a time, as sparse
    matrices of ones."""
    import numpy as np
    from scipy.sparse import csr_array

    for rows, squared in _distances(real, fake):
        near = reach[rows] if len(reach) > 1 else reach
        yield rows, csr_array((squared <= near).astype(np.float32))


def _distances(first: Floats, second: Floats) -> Iterator[tuple[slice, Floats]]:
    """Squared distances, a block of rows of `first` at a time. What is within rounding of 0 is 0, so that copies are copies."""
    import numpy as np

    lengths, others = (first**2).sum(axis=1), (second**2).sum(axis=1)
    step = max(1, BLOCK // max(1, len(second)))
    for start in range(0, len(first), step):
        rows = slice(start, min(start + step, len(first)))
        scale = lengths[rows, None] + others
        squared = scale - 2 * (first[rows] @ second.T)
        squared[squared < 1e-12 * scale] = 0.0
        # Equal distances computed in another order differ in the last bits, and a ball's edge must not depend on these.
        yield rows, squared.astype(np.float32)


def _leave_out_itself(squared: Floats, rows: slice) -> None:
    import numpy as np

    squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf


def _kth(squared: Floats, k: int) -> Floats:
    import numpy as np

    found: Floats = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return found


def _times(hits: Any, chosen: Flags) -> Floats:
    """How many of the chosen columns each row hits: (rows, subsets)."""
    found: Floats = hits @ chosen.T.astype("float32")
    return found


def _over(found: Floats, count: Floats) -> Floats:
    import numpy as np

    return found / np.maximum(count, 1)
