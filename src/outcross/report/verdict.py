"""The sentence that a report begins with. It says what was shown, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from outcross.report import numbers as n
from outcross.report.tracks import Track

RAW, AT_EQUAL_LENGTH = "preference", "preference_at_equal_length"  # names of probes, before their labels
MOST = 3  # probes named in the sentence; any that got worse are named besides


@dataclass(frozen=True)
class Tally:
    """How the rounds of a run ended. `gated` is false when any promotion passed through a gate that refuses nothing."""

    planned: int
    promoted: int = 0
    refused: int = 0
    nothing: int = 0
    data_only: int = 0
    kept_samples: int = 0  # of data-only rounds
    gated: bool = True
    over: bool = True  # nothing is left to run
    releases: int = 0  # rounds that were to release rows
    released: int = 0
    rows: int = 0  # of released rounds

    @property
    def complete(self) -> int:
        return self.training + self.data_only + self.releases

    @property
    def training(self) -> int:
        """Complete rounds that were to teach a model."""
        return self.promoted + self.refused + self.nothing


def sentence(tally: Tally, tracks: Sequence[Track]) -> str:
    """For example: "Promoted 3 of 4 rounds (1 refused); pass rate 41.0 % → 68.0 %, real loss 2.31 → 2.30
    nats per token (no change shown, within its margin of 0.050)." """
    opening = "" if tally.over else f"Unfinished, {tally.complete} of {n.plural(tally.planned, 'round')} complete: "
    if not tally.complete and tally.over:
        return "No round was needed: the first model has reached what the run was to end at."
    if not tally.complete:
        return f"Unfinished: none of {n.plural(tally.planned, 'planned round')} is complete yet."
    text = opening + _rounds(tally)
    if tally.promoted:
        changes = [_change(track) for track in _named(tracks)]
        text += f"; {', '.join(changes)}" if changes else ""
    elif tally.training:
        levels = [f"{n.words(track.probe)} {n.with_unit(track.first.mean, track.unit)}" for track in tracks[:MOST]]
        text += f"; the first model still holds{': ' if levels else ''}{', '.join(levels)}"
    return f"{text[0].upper()}{text[1:]}."


def mostly_length(tracks: Sequence[Track]) -> Iterator[str]:
    """Warnings of win rates that rose, by less than half of it where the answers are equally long (`evaluate/preference`)."""
    known = {track.probe: track for track in tracks}
    for track in tracks:
        apart = known.get(track.probe.replace(RAW, AT_EQUAL_LENGTH, 1)) if not track.probe.startswith(AT_EQUAL_LENGTH) else None
        if not track.probe.startswith(RAW) or apart is None or track.change is None or apart.change is None:
            continue
        if track.change.low is not None and track.change.low > 0 and apart.change.mean < track.change.mean / 2:
            yield (
                f"mostly length: {n.words(track.probe)} {n.quantity(track.first.mean, track.unit)} → {n.quantity(track.now.mean, track.unit)}, and "
                f"{n.quantity(apart.first.mean, track.unit)} → {n.quantity(apart.now.mean, track.unit)} where answers are equally long"
            )


def _rounds(tally: Tally) -> str:
    if tally.releases:
        made = _releases(tally)
        return made if not tally.training else f"{made}; {_taught(tally)}"
    return _taught(tally)


def _releases(tally: Tally) -> str:
    gate = "" if tally.gated else "ungated: "
    refused = tally.releases - tally.released
    aside = f" ({refused} refused)" if refused and tally.released else ""
    rows = f", {n.plural(tally.rows, 'row')}" if tally.released else ""
    how = f"{tally.released} of {n.plural(tally.releases, 'round')}" if tally.released else f"none of {n.plural(tally.releases, 'round')}"
    trained = "" if tally.training else ", and no model was trained"
    return f"{gate}released {how}{aside}{rows}{trained}"


def _taught(tally: Tally) -> str:
    if not tally.training:
        made = f"{n.plural(tally.data_only, 'round')} made {n.plural(tally.kept_samples, 'kept sample')}"
        return f"data only: {made}, and no model was trained"
    others = Counter({"refused": tally.refused, "learnt nothing": tally.nothing, "data only": tally.data_only})
    listed = ", ".join(f"{amount} {name}" for name, amount in others.items() if amount)
    aside = f" ({listed})" if listed else ""
    rounds = n.plural(tally.training, "training round" if tally.data_only else "round")
    if tally.nothing == tally.training:
        return f"nothing to learn in {'the only round' if tally.training == 1 else f'any of {rounds}'}"
    if tally.promoted and not tally.gated:
        return f"ungated: {tally.promoted} of {rounds} replaced the model unchecked{aside}"
    if tally.promoted:
        return f"promoted {tally.promoted} of {rounds}{aside}"
    return f"promoted none of {rounds}{aside}"


def _named(tracks: Sequence[Track]) -> list[Track]:
    return [track for index, track in enumerate(tracks) if index < MOST or track.verdict.startswith("worse")]


def _change(track: Track) -> str:
    name, unit = n.words(track.probe), "" if n.is_share(track.unit) else f" {track.unit}".rstrip()
    arrow = f"{n.quantity(track.first.mean, track.unit)} → {n.quantity(track.now.mean, track.unit)}{unit}"
    match track.verdict:
        case "unchanged":
            return f"{name} unchanged at {n.with_unit(track.now.mean, track.unit)}"
        case "not below real":
            return f"{name} not below real ({arrow})"
        case "within margin":
            return f"{name} {arrow} (no change shown, within its margin of {_margin(track)})"
        case "worse within margin":
            return f"{name} worse by less than its margin of {_margin(track)}, {arrow}"
        case "unclear":
            return f"{name} {arrow} ({_unclear(track)})"
        case "worse":
            return f"{name} worse, {arrow}"
        case "better":
            return f"{name} {arrow}"


def _margin(track: Track) -> str:
    return f"{n.difference(track.margin, track.unit).lstrip('+')}{' points' if n.is_share(track.unit) else ''}"


def _unclear(track: Track) -> str:
    """Why nothing can be said, with the interval where there is one."""
    found = track.now if track.from_real else track.change
    if found is None or found.low is None or found.high is None:
        return "the interval of the change is not known"
    ends = f"95 % {n.difference(found.low, track.unit)} to {n.difference(found.high, track.unit)}"
    return f"not shown to be as varied as real, {ends}" if track.from_real else f"no change shown, {ends}"
