"""Setting aside by a classifier that a person taught with a few labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from outcross.curate.quality import need, outside, sifted_together
from outcross.errors import ConfigError, DataError
from outcross.stages import Context, Embeds, Role, Stage
from outcross.types import Drop, Ground, Group, Sample, content_hash

_FEWEST = 10  # labels of each kind: with fewer, five folds say nothing
_FOLDS = 5
_CHANCE = 0.05


class Label(msgspec.Struct, frozen=True):
    """A row of the file of labels."""

    text: str
    good: bool


@dataclass(frozen=True)
class Classifier:
    """What was learnt. `probabilities` gives the chance of being good for each text; `accuracy` is the share of `labels` rows that five-fold
    cross-validation put right, and `chance` what naming the larger class would have."""

    probabilities: Callable[[Sequence[str]], Sequence[float]]
    labels: int
    accuracy: float
    chance: float


@dataclass(frozen=True)
class LearnedQuality(Stage):
    """Keeps answers that a classifier calls good with probability `low` or more: logistic regression (scikit-learn) over the embeddings of the
    model of role `embedder`, or over hashed words and word pairs when no role is named.

    labels: a JSONL file of rows `{"text": …, "good": true}`, ten or more of each kind. It is part of what the stage is by its content.
    embedder: the role of a model that embeds, for example *embedder*.

    Raises `DataError` when the classifier is not better than naming the larger class (five-fold cross-validation, exact binomial test at
    0.05): then the labels do not show what is meant, or are too few. The reason of a drop states the accuracy. It is as good as its labels,
    and a trained ground is no evidence that a model taught on what is kept gets better. Needs `outcross[curate]`.
    """

    labels: Path
    low: float = 0.5
    embedder: Role = ""
    ground: ClassVar[Ground] = "trained"
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        need("sklearn", "scikit-learn", self.name)
        if not 0 < self.low < 1:
            raise ConfigError(f"{self.name}: low is {self.low}; a probability between 0 and 1 is needed")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.embedder,) if self.embedder else ()

    def identity(self) -> object:
        """The labels by their content, with the settings."""
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "labels"}
        return {"labels": content_hash([(row.text, row.good) for row in self._rows()]), "version": self.version, **settings}

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        classifier = learnt(self._rows(), self._features(ctx), Path(self.labels).name)

        def why_not(samples: Sequence[Sample]) -> Iterator[str | None]:
            texts = [sample.text for sample in samples]
            for sample, good in zip(samples, classifier.probabilities(texts) if texts else (), strict=True):
                reason = outside("probability of good", good, self.low, None)
                stated = f" (accuracy {classifier.accuracy:.2f} on {classifier.labels} labels, chance {classifier.chance:.2f})"
                yield f"{reason}{stated}" if reason and isinstance(sample.content, str) else None

        yield from sifted_together(groups, self.name, why_not)

    def _features(self, ctx: Context) -> Callable[[Sequence[str]], Any]:
        if not self.embedder:
            from sklearn.feature_extraction.text import HashingVectorizer

            hashed: Callable[[Sequence[str]], Any] = HashingVectorizer(ngram_range=(1, 2), n_features=2**18).transform
            return hashed
        model = ctx.model(self.embedder)
        if not isinstance(model, Embeds):
            raise ConfigError(
                f"{self.name}: the model of role {self.embedder!r} does not embed texts; use one that does, or name no embedder"
            )
        embedder: Embeds = model
        return lambda texts: [list(vector) for vector in embedder.embed(texts)]

    def _rows(self) -> list[Label]:
        path = Path(self.labels)
        if not path.is_file():
            raise DataError(f'{self.name}: there is no file {path.name!r} of labels; give a JSONL file of rows {{"text": …, "good": true}}')
        rows = []
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if line.strip():
                try:
                    rows.append(msgspec.json.decode(line, type=Label))
                except (msgspec.DecodeError, msgspec.ValidationError) as error:
                    raise DataError(f'{path.name}:{number}: {error}; a row is {{"text": …, "good": true or false}}') from None
        good = sum(row.good for row in rows)
        if min(good, len(rows) - good) < _FEWEST:
            raise DataError(f"{path.name} has {good} good and {len(rows) - good} bad rows; {_FEWEST} or more of each are needed")
        return rows


def learnt(rows: Sequence[Label], features: Callable[[Sequence[str]], Any], source: str) -> Classifier:
    """A classifier from labels over `features` (texts to a matrix of one row a text). Raises `DataError` where cross-validation does not beat
    the larger class."""
    from scipy.stats import binomtest
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    good = sum(row.good for row in rows)
    model, folds = LogisticRegression(C=10.0, max_iter=1000), StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    matrix, truth = features([row.text for row in rows]), [row.good for row in rows]
    right = sum(guess == row.good for guess, row in zip(cross_val_predict(model, matrix, truth, cv=folds), rows, strict=True))
    chance = max(good, len(rows) - good) / len(rows)
    if binomtest(right, len(rows), chance, alternative="greater").pvalue >= _CHANCE:
        raise DataError(
            f"a classifier learnt from {source} puts {right} of {len(rows)} labels right in {_FOLDS}-fold cross-validation, which is not better "
            f"than chance ({chance:.2f}); add labels, check them, or name an `embedder`"
        )
    model.fit(matrix, truth)
    return Classifier(lambda texts: model.predict_proba(features(texts))[:, 1].tolist(), len(rows), right / len(rows), chance)
