"""How many different answers there are in effect, by how alike they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from outcross.errors import ConfigError
from outcross.evaluate.statistics import _matrix, _ngrams, half_samples
from outcross.evaluate.vectors import about_the_value, answered, embedding_model, real_contents, vectors
from outcross.stages import Context, Generator, Role, Stage
from outcross.text import words
from outcross.types import Content, Example, Ground, Measurement, Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

MOST = 2000  # answers compared by n-grams: the matrix of all pairs is held


def vendi_score(similarity: Floats, order: float = 1.0) -> float:
    """The effective number of different items, from 1 to n, by their similarities (n, n) with ones on the diagonal: the exponential of the
    entropy of the eigenvalues of K/n (Friedman & Dieng, arXiv:2210.02410, definition 3.1), of Rényi's entropy where `order` is not 1
    (Pasarkar & Dieng, arXiv:2310.12952). The higher the order, the less do rare items count. Time: n³."""
    import numpy as np

    return math.exp(_entropy(np.linalg.eigvalsh(similarity), order))


@dataclass(frozen=True)
class Vendi(Stage):
    """The logarithm of how many times more answers there are in effect than real ones: the Vendi score of the answers over that of as many
    real ones, in nats; negative is less varied, and −0.1 is a tenth fewer.

    embedder: the role of the model whose vectors' cosines say how alike two answers are; "": the cosines of their counts of words, pairs
        and triples of words, averaged, of at most 2,000 texts.
    order: of the entropy; 1 is Shannon's; below 1 rare answers count for more, above 1 for less.
    reference: real examples, at least as many as tasks, of which the first are compared; None: the tasks' own answers.

    One answer an item counts. A score depends on the number of items, so that only sets of one size are compared, and a value above 0 is no
    merit: noise is varied. So the gate (unit "… over real") asks that the candidate is not below the lower of 0 and the other model by
    more than the margin. Replicates are half samples of the items, about the value.
    Time: replicates × items × width², or items² × width where there are fewer items; memory: the vectors.
    """

    tasks: Iterable[Task]
    generator: Generator
    reference: Iterable[Example] | None = None
    embedder: Role = "embedder"
    order: float = 1.0
    margin: float = 0.1
    replicates: int = 100
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("vendi", self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(filter(None, (*self.generator.roles, self.embedder))))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        import numpy as np

        tasks = list(self.tasks)
        if not self.order > 0:
            raise ConfigError(f"{self.name}: order is {self.order}; give a positive number, 1 for the score of the paper")
        if not self.embedder and len(tasks) > MOST:
            raise ConfigError(
                f"{self.name} compares {len(tasks):,} answers by n-grams; at most {MOST:,}: name an `embedder`, or give fewer tasks"
            )
        model = embedding_model(self.name, ctx, self.embedder) if self.embedder else None
        contents = real_contents(self.name, tasks, self.reference)
        found = answered(self.name, ctx, self.generator, tasks)
        subsets = half_samples(found.items, self.replicates)

        def entropies(given: Sequence[Content], chosen: Flags) -> Floats:
            if model is None:
                return of_similarity(ngram_similarity(given), chosen, self.order)
            return of_vectors(vectors(model, given), chosen, self.order)

        values = np.asarray(entropies(found.given, subsets[:, found.has]) - entropies(contents, subsets))
        return Measurement(self.name, found.items, (float(values[0]),), about_the_value(values), unit="nats over real")


def of_vectors(rows: Floats, subsets: Flags, order: float = 1.0) -> Floats:
    """The logarithm of the Vendi score of each subset of rows (points, width), by their cosines; a row of zeros is like nothing, itself included.

    The eigenvalues of K = XXᵀ are those of XᵀX, whichever is smaller.
    """
    import numpy as np

    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    found = np.zeros(len(subsets))
    for index, subset in enumerate(subsets):
        chosen = unit[subset]
        product = chosen @ chosen.T if len(chosen) < chosen.shape[1] else chosen.T @ chosen
        found[index] = _entropy(np.linalg.eigvalsh(product), order)
    return found


def of_similarity(similarity: Floats, subsets: Flags, order: float = 1.0) -> Floats:
    """The logarithm of the Vendi score of each subset of items, by their similarities (items, items)."""
    import numpy as np

    return np.array([_entropy(np.linalg.eigvalsh(similarity[np.ix_(subset, subset)]), order) for subset in subsets])


def ngram_similarity(contents: Sequence[Content]) -> Floats:
    """The cosines of all pairs of texts' n-gram counts, averaged over n = 1, 2, 3, (texts, texts). Raises `ConfigError` for an array."""
    import numpy as np
    from scipy.sparse import diags_array

    if not all(isinstance(content, str) for content in contents):
        raise ConfigError("arrays have no n-grams; name an `embedder` whose model embeds them, flat_embedder for example")
    tokens = [words(str(content)) for content in contents]
    total: Any = np.zeros((len(tokens), len(tokens)))
    for n in (1, 2, 3):
        counts = _matrix([_ngrams(text, n) for text in tokens])
        unit = diags_array(1 / np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())) @ counts
        total += (unit @ unit.T).toarray() / 3
    found: Floats = total
    return found


def _entropy(eigenvalues: npt.NDArray[np.floating[Any]], order: float) -> float:
    """Rényi's entropy in nats of eigenvalues, scaled to sum to 1."""
    import numpy as np

    shares = eigenvalues[eigenvalues > 1e-12 * max(float(eigenvalues.max(initial=0.0)), 1e-300)]
    if not len(shares):
        return 0.0
    shares = shares / shares.sum()
    if order == 1:
        return max(0.0, -float(shares @ np.log(shares)))
    if math.isinf(order):
        return -math.log(float(shares.max()))
    return math.log(float((shares**order).sum())) / (1 - order)
