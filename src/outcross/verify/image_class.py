"""Whether an image shows what was asked for, by a classifier that says when it does not know."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from outcross.errors import ConfigError, StageError
from outcross.images import Floats, class_of
from outcross.stages import Ask, Context, Dialogue, Role, Stage
from outcross.types import Array, Content, Example, Ground, Group, Request, Response, Score
from outcross.verify.each import PASS, Finding, with_score
from outcross.verify.image_each import not_an_image, score_of
from outcross.verify.judge_ask import in_order

Flags = npt.NDArray[np.bool_]
COVERAGES = 10  # that are tried


@dataclass(frozen=True)
class Calibration:
    """What a classifier's numbers are worth on real images that it has not seen.

    temperature: by which log-probabilities are divided. threshold: the least calibrated probability of the likeliest class at which it speaks; infinite
    where no such limit keeps the risk. coverage: the share of real images on which it speaks; errors of them that it gets wrong; of so many `images`.
    """

    temperature: float
    threshold: float
    coverage: float
    errors: float
    images: int


@dataclass(frozen=True)
class ImageClass(Stage):
    """Passes an image that the model of role `classifier` takes for the class that was asked for, fails one it takes for another, and abstains where
    it does not know.

    calibration: held-out real images, on which neither the policy nor the classifier was taught. On every other one its temperature is fitted (Guo et al.,
        arXiv:1706.04599, section 4.2), on the rest the threshold is chosen (after Geifman & El-Yaniv, arXiv:1705.08500).
    risk: the share of errors among real images on which it speaks is at most this, with the probability `confidence`.

    The bound is about real images. An image that looks like none may be taken for a class with confidence: put `image_rules` beside this. The
    ground is a trained model's opinion, which needs a proof (`outcross verifier-check`) before anything is learnt from it.
    """

    calibration: Iterable[Example]
    classifier: Role = "classifier"
    risk: float = 0.05
    confidence: float = 0.95
    ground: ClassVar[Ground] = "trained"

    def __post_init__(self) -> None:
        if not (0 < self.risk < 1 and 0 < self.confidence < 1):
            raise ConfigError(f"image_class: risk={self.risk}, confidence={self.confidence}; both are shares between 0 and 1")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.classifier,)

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.calls_for(tasks, 1)

    def calls_for(self, tasks: int, samples: int, /) -> Mapping[Role, int]:
        """One question a sample; those about the calibration images come on top."""
        return {self.classifier: tasks * samples}

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        classes, found = self.calibrated(ctx)
        judge = ctx.model(self.classifier).id

        def asked(group: Group) -> list[Dialogue[Response]]:
            return [
                self._asked(sample.content, classes) for sample in group.samples if not sample.error and not_an_image(self, sample) is None
            ]

        def joined(group: Group, said: list[Response]) -> Group:
            responses, kind, samples = iter(said), class_of(group.task.prompt), []
            for sample in group.samples:
                if sample.error:
                    samples.append(sample)
                    continue
                score = not_an_image(self, sample) or self._score(kind, classes, next(responses), found, judge)
                samples.append(with_score(sample, score))
            return Group(group.task, tuple(samples))

        return in_order(ctx, groups, asked, joined)

    def calibrated(self, ctx: Context) -> tuple[tuple[str, ...], Calibration]:
        """The classes of the calibration images, and what the classifier is worth on these. Raises `ConfigError` for fewer than two classes,
        `StageError` when it cannot tell."""
        rows = list(self.calibration)
        kinds = [class_of(row.prompt) for row in rows]
        classes = tuple(sorted(set(kinds)))
        if len(classes) < 2:
            raise ConfigError(f"image_class: the calibration images are of {len(classes)} classes; two or more can be told apart")
        said = list(ctx.run(self._asked(row.completion, classes) for row in rows))
        wrong = next((response.error for response in said if response.error), "")
        if wrong:
            raise StageError(f"image_class: the classifier did not say what a calibration image shows: {wrong}")
        scores = np.array([response.completions[0].choice_log_probs for response in said])
        return classes, calibrated(scores, np.array([classes.index(kind) for kind in kinds]), self.risk, self.confidence)

    def _asked(self, content: Content, classes: tuple[str, ...]) -> Dialogue[Response]:
        assert isinstance(content, Array)
        response: Response = yield Ask(self.classifier, Request(content, choices=classes))
        return response

    def _score(self, kind: str, classes: Sequence[str], response: Response, found: Calibration, judge: str) -> Score:
        if response.error:
            return Score(self.name, self.version, "error", None, response.error[:200], judge)
        probs = softened(np.array([response.completions[0].choice_log_probs]), found.temperature)[0]
        best = int(probs.argmax())
        evidence = f"{classes[best]} with {probs[best]:.3f}, speaks from {found.threshold:.3f}; by {judge}"
        finding: Finding = PASS[0], "", evidence
        if kind not in classes:
            finding = "abstain", "no calibration image is of the class", evidence
        elif probs[best] < found.threshold:
            finding = "abstain", "the classifier is not sure", evidence
        elif classes[best] != kind:
            finding = "fail", "it shows another class", evidence
        return score_of(self, finding)


def calibrated(log_probs: Floats, truth: npt.NDArray[np.int64], risk: float, confidence: float) -> Calibration:
    """Temperature and threshold from log-probabilities (images, classes) and true classes of real images: the first on the images of even
    number, the second on the others, so that its bound is not about images that it was fitted to."""
    temperature = best_temperature(log_probs[::2], truth[::2])
    probs = softened(log_probs[1::2], temperature)
    best = probs.argmax(axis=1)
    right: Flags = best == truth[1::2]
    sure = probs.max(axis=1)
    threshold = least_threshold(sure, right, risk, confidence)
    spoken = sure >= threshold
    errors = float((~right[spoken]).mean()) if spoken.any() else 0.0
    return Calibration(temperature, threshold, float(spoken.mean()), errors, len(right))


def best_temperature(log_probs: Floats, truth: npt.NDArray[np.int64]) -> float:
    """The temperature, from 0.05 to 20, under which the true classes are likeliest."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        probs = softened(log_probs, math.exp(log_temperature))
        return -float(np.log(np.maximum(probs[np.arange(len(truth)), truth], 1e-300)).mean())

    return math.exp(float(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x))


def softened(log_probs: Floats, temperature: float) -> Floats:
    """Probabilities (images, classes) at a temperature."""
    scaled = log_probs / temperature
    raised: Floats = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    found: Floats = raised / raised.sum(axis=1, keepdims=True)
    return found


def least_threshold(sure: Floats, right: Flags, risk: float, confidence: float) -> float:
    """The least confidence at and above which the share of errors is at most `risk`, shown with the probability `confidence`; infinite when none is.

    The largest of ten coverages, from all images to a tenth, whose bound holds; each has a tenth of the error (Bonferroni), and the bound is the exact
    one of Clopper & Pearson (Geifman & El-Yaniv, lemma 3.1). Their binary search begins at half of the images, where the bound may be too wide
    already, and then never looks at more of them.
    """
    from scipy.stats import beta

    falling = np.sort(sure)[::-1]
    for tenths in range(COVERAGES, 0, -1):
        threshold = float(falling[max(0, math.ceil(len(sure) * tenths / COVERAGES) - 1)])
        spoken = sure >= threshold
        wrong, images = int((~right[spoken]).sum()), int(spoken.sum())
        bound = 1.0 if wrong == images else float(beta.ppf(1 - (1 - confidence) / COVERAGES, wrong + 1, images - wrong))
        if bound <= risk:
            return threshold
    return math.inf
