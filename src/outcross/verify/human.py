"""What people said of an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from outcross.reviews import Written, agreed, digest_of, last_words, read_reviews
from outcross.stages import Context, Stage
from outcross.types import Ground, Group, Sample, Score, Task
from outcross.verify.each import with_score

Known = Mapping[tuple[str, str], Sequence[Written]]


@dataclass(frozen=True)
class Human(Stage):
    """Gives the verdicts that people wrote down: in the run's own reviews (`outcross review`) and in a file.

    reviews: JSON lines, CSV, or an SQLite database with a table `reviews`; see `outcross.reviews.read_reviews` for its columns.

    An answer is found by its sample's identifier, or by its task and its text, so that what was judged once is known in later rounds.
    Reviews of a run count from the round after they came in. An answer that nobody looked at is abstained on ("not reviewed"); where
    reviewers differ the majority counts, and a tie is abstained on. Everybody's verdict stands in the evidence.
    """

    reviews: Path | None = None
    ground: ClassVar[Ground] = "human"

    def identity(self) -> object:
        """What was said, not where the file lies."""
        return {"version": self.version, "reviews": None if self.reviews is None else digest_of(self.reviews)}

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        known: Known | None = None
        for group in groups:
            known = known if known is not None else self._known(ctx)
            yield Group(group.task, tuple([self._judged(group.task, sample, known) for sample in group.samples]))

    def _known(self, ctx: Context) -> Known:
        """Reviews by ("", sample id) and by (task id, text). Texts of the run's own reviews are looked up in its earlier rounds."""
        found: dict[tuple[str, str], list[Written]] = defaultdict(list)
        for item in read_reviews(self.reviews) if self.reviews is not None else ():
            key = ("", item.sample_id) if item.sample_id else (item.task_id, item.text.strip())
            found[key].append(item)
        own: dict[str, list[Written]] = defaultdict(list)
        for review in ctx.past.reviews():
            own[review.sample_id].append(Written(review.sample_id, "", "", review.reviewer, review.verdict, review.reason))
        texts = {
            sample.id: (group.task.id, sample.text.strip()) for group in ctx.past.groups() for sample in group.samples if sample.id in own
        }
        for sample_id, said in own.items():
            found["", sample_id] += said
            if sample_id in texts:
                found[texts[sample_id]] += said
        return found

    def _judged(self, task: Task, sample: Sample, known: Known) -> Sample:
        if sample.error:
            return sample
        said = [*known.get(("", sample.id), ()), *known.get((task.id, sample.text.strip()), ())]
        return with_score(sample, self._score(list(last_words(said).values())))

    def _score(self, said: Sequence[Written]) -> Score:
        if not said:
            return Score(self.name, self.version, "abstain", None, "not reviewed")
        verdict = agreed(said)
        evidence = "; ".join(f"{item.reviewer}: {item.verdict}{f', {item.reason}' if item.reason else ''}" for item in said)[:200]
        told = next((item.reason for item in said if item.verdict == verdict and item.reason), "")
        reason = (
            told
            if len({item.verdict for item in said}) == 1
            else "reviewers differ"
            if verdict == "abstain"
            else "the majority of reviewers"
        )
        return Score(self.name, self.version, verdict, {"pass": 1.0, "fail": 0.0}.get(verdict), reason, evidence)
