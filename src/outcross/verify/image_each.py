"""Image by image: what verifiers that look at one picture at a time share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from outcross.errors import ConfigError, DataError
from outcross.images import Floats, class_of, intensities
from outcross.types import Array, Example, Group, Sample, Score
from outcross.verify.each import UNFINISHED, Finding, Labelled, with_score

NO_IMAGE = "the answer is text, not an image"


def scored_images(verifier: Labelled, groups: Iterable[Group], judge: Callable[[str, Floats], Finding]) -> Iterator[Group]:
    """Add the score of `judge(class, pixels from 0 to 1)` to each sample; samples with an error stay as they are. A text, and an array that is
    no image, is an *error*."""
    for group in groups:
        kind = class_of(group.task.prompt)
        yield Group(
            group.task, tuple(item if item.error else with_score(item, _score(verifier, kind, item, judge)) for item in group.samples)
        )


def _score(verifier: Labelled, kind: str, sample: Sample, judge: Callable[[str, Floats], Finding]) -> Score:
    if (score := not_an_image(verifier, sample)) is not None:
        return score
    try:
        finding = judge(kind, intensities(sample.content))
    except DataError as error:
        return Score(verifier.name, verifier.version, "error", None, str(error)[:200])
    return score_of(verifier, finding)


def not_an_image(verifier: Labelled, sample: Sample) -> Score | None:
    """The score of an answer that nothing can be seen on; None for an image."""
    if not sample.turns[-1].completion.finished:
        return score_of(verifier, UNFINISHED)
    return None if isinstance(sample.content, Array) else Score(verifier.name, verifier.version, "error", None, NO_IMAGE)


def score_of(verifier: Labelled, finding: Finding) -> Score:
    """A pass counts 1 and a fail 0."""
    verdict, reason, evidence = finding
    return Score(verifier.name, verifier.version, verdict, {"pass": 1.0, "fail": 0.0}.get(verdict), reason, evidence[:200])


def pictures(verifier: str, rows: Iterable[Example]) -> dict[str, list[Floats]]:
    """The pixels of real images by class. Raises `ConfigError` when there are none, `DataError` for what is no image."""
    found: dict[str, list[Floats]] = {}
    for row in rows:
        found.setdefault(class_of(row.prompt), []).append(intensities(row.completion))
    if not found:
        raise ConfigError(f"{verifier} is held against real images and was given none; give real_images of a file")
    return found
