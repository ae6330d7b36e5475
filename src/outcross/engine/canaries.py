"""Canaries: before a verifier judges a batch it judges answers whose verdicts are known, good and bad ones. One mistake stops the run.

They go the way that the batch goes, through the same runner, journal and sandbox. Verifiers inside a combination, a generator or a probe
are tried by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec

from outcross.engine.conserve import REPAIR, Counter, blamed, verified
from outcross.engine.store import RoundDir, read_json, write_json
from outcross.errors import CanaryFailed
from outcross.recipe import Phase
from outcross.stages import Context, Verifier, canaries_of, name_of, parts_of, version_of
from outcross.types import Canary, Completion, Group, Origin, Sample, Score, Task, Turn, Verdict, content_hash

SUFFIX = "canaries.json"
_ORIGIN = Origin("synthetic", source="canary")


class Tried(msgspec.Struct, frozen=True):
    """What `round.json` says of a verifier's canaries before one batch: how many answers had to pass, had to fail, or had to be left
    without a verdict. All of them came out so, or there would be no record of the batch."""

    before: str
    verifier: str
    version: str
    gold: int
    bad: int
    other: int


@dataclass(frozen=True)
class Found:
    """A verifier's scores on one canary, an answer each, in order."""

    canary: Canary
    scores: tuple[Score, ...]

    @property
    def wrong(self) -> tuple[int, ...]:
        """The answers that were not judged as expected."""
        return tuple(
            place for place, (score, wanted) in enumerate(zip(self.scores, self.canary.expected, strict=True)) if score.verdict != wanted
        )


def check(ctx: Context, verifiers: Iterable[Verifier], before: str) -> list[Tried]:
    """Try every one of `verifiers` and those inside them, each once. Raises `CanaryFailed` at the first mistake."""
    tried = []
    for verifier in leaves(verifiers):
        if found := results(ctx, verifier):
            tell_wrong(verifier, found)
            tried.append(summed(verifier, found, before))
    return tried


def leaves(verifiers: Iterable[Verifier]) -> list[Verifier]:
    """Those of `verifiers`, and of the verifiers inside them, that declare canaries or consist of no others; each once."""
    found: list[Verifier] = []
    for leaf in chain.from_iterable(map(_leaves, verifiers)):
        if leaf not in found:
            found.append(leaf)
    return found


def _leaves(verifier: Verifier) -> Iterator[Verifier]:
    parts = parts_of(verifier)
    if canaries_of(verifier) or not parts:
        yield verifier
    for part in parts:
        yield from _leaves(part)


def without(verifiers: Iterable[Verifier]) -> list[str]:
    """The names of verifiers that declare no canaries, so that nothing tells when they break."""
    return [name_of(verifier) for verifier in leaves(verifiers) if not canaries_of(verifier)]


def verifying(phase: Phase) -> tuple[Verifier, ...]:
    """The verifiers of a phase: those inside its generator, and its own."""
    return (*parts_of(phase.generate), *phase.verify)


def results(ctx: Context, verifier: Verifier) -> list[Found]:
    """What a verifier says about its canaries. One on which it gave an error it should not have given is tried once more."""
    canaries = canaries_of(verifier)
    found = _judged(ctx, verifier, canaries) if canaries else []
    again = [item.canary for item in found if any(item.scores[place].verdict == "error" for place in item.wrong)]
    second = {item.canary.task.id: item for item in (_judged(ctx, verifier, again) if again else [])}
    return [second.get(item.canary.task.id, item) for item in found]


def _judged(ctx: Context, verifier: Verifier, canaries: Sequence[Canary]) -> list[Found]:
    counter = Counter("verify", name_of(verifier))
    with blamed(f"the canaries of {name_of(verifier)}"):
        judged = list(verified(verifier, ctx, map(group_of, canaries), counter))
    return [Found(canary, tuple(item.scores[-1] for item in group.samples)) for canary, group in zip(canaries, judged, strict=True)]


def group_of(canary: Canary) -> Group:
    """A canary as a verifier sees it."""
    return Group(canary.task, tuple(_sample(canary.task, place, said) for place, said in enumerate(canary.answers)))


def _sample(task: Task, place: int, said: str | tuple[str, ...]) -> Sample:
    texts = (said,) if isinstance(said, str) else said
    turns = tuple(Turn(task.prompt, Completion(text)) for text in texts)
    return Sample(content_hash("canary", task.id, place, texts), turns, _ORIGIN)


def tell_wrong(verifier: Verifier, found: Iterable[Found]) -> None:
    """Raises `CanaryFailed` for the first answer that was not judged as expected."""
    for item in found:
        for place in item.wrong:
            score, wanted = item.scores[place], item.canary.expected[place]
            said = item.canary.answers[place]
            text = said if isinstance(said, str) else said[-1]
            why = "; ".join(filter(None, (score.reason, score.evidence)))
            raise CanaryFailed(
                f"the verifier {name_of(verifier)} (version {version_of(verifier)}) failed its canary {item.canary.task.id!r}: the answer "
                f"{text!r:.80} must be judged {_named(wanted)}, and it was judged {score.verdict}{f' ({why:.200})' if why else ''}. "
                f"Nothing of this batch was judged by it. {REPAIR}. If it was wrong in earlier rounds too, `outcross recall` finds what it let in"
            )


def _named(verdict: Verdict) -> str:
    return {"pass": "pass (gold)", "fail": "fail (known bad)"}.get(verdict, verdict)


def summed(verifier: Verifier, found: Iterable[Found], before: str) -> Tried:
    """The line in the record."""
    expected = [verdict for item in found for verdict in item.canary.expected]
    gold, bad = expected.count("pass"), expected.count("fail")
    return Tried(before, name_of(verifier), version_of(verifier), gold, bad, len(expected) - gold - bad)


# ── on the record ──────────────────────────────────────────────────────────────────────────────────────────────────────
def before_batch(ctx: Context, verifiers: Iterable[Verifier], before: str, path: Path) -> None:
    """`check`, and what came out in a file beside the batch: `path` with the ending `.canaries.json`."""
    tried = check(ctx, verifiers, before)
    if tried:
        write_json(path.with_suffix(f".{SUFFIX}"), tried)


def recorded(turn: RoundDir) -> list[object]:
    """What a round's files say of all canaries in it, in the order of the batches."""
    folders = [*(part / "steps" for part in turn.parts()), turn.folder]
    return [item for folder in folders for path in sorted(folder.glob(f"*.{SUFFIX}")) for item in read_json(path)]
