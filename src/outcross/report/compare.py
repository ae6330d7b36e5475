"""Several runs side by side: the picture, the paired differences, the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from outcross.engine.store import RunDir
from outcross.errors import ConfigError, did_you_mean
from outcross.estimates import Estimate
from outcross.report import numbers as n
from outcross.report.element import Child, Html, el
from outcross.report.figures import Mark, Row, Series, interval_chart, line_chart
from outcross.report.intervals import paired
from outcross.report.parts import change_text, figure, interval, table
from outcross.report.read import Reading
from outcross.report.sections import bounds, round_names
from outcross.report.tracks import Track, champion_measurements
from outcross.types import Measurement

COLOURS = ("s1", "s2", "s3", "s4", "s5", "s6")


@dataclass(frozen=True)
class Contrast:
    """A question that two runs answer: subject minus control, by the names of the runs. The first one heads the page."""

    subject: str
    control: str
    question: str = ""


@dataclass(frozen=True)
class Arm:
    """A run among others: the name it goes by on this page, its colour, and its last champion's measurements."""

    name: str
    colour: str
    reading: Reading
    last: Mapping[str, Measurement]

    def track(self, probe: str) -> Track | None:
        return next((track for track in self.reading.summary.tracks if track.probe == probe), None)


def arms_of(readings: Sequence[Reading]) -> list[Arm]:
    """Runs by name; runs of the same name go by their folders."""
    names = [reading.manifest.name for reading in readings]
    if len(set(names)) < len(names):
        names = [reading.run.root.name for reading in readings]
    if len(set(names)) < len(names):
        names = [f"{name} ({index})" for index, name in enumerate(names, 1)]
    return [
        Arm(name, COLOURS[index % len(COLOURS)], reading, champion_measurements(RunDir(reading.run.root)))
        for index, (name, reading) in enumerate(zip(names, readings, strict=True))
    ]


def contrasts_of(arms: Sequence[Arm], asked: Sequence[Contrast]) -> list[tuple[Contrast, Arm, Arm]]:
    """The contrasts with their runs; without any asked for, the first run against each other one. Raises `ConfigError`."""
    by_name = {arm.name: arm for arm in arms}
    wanted = asked or [Contrast(arms[0].name, arm.name) for arm in arms[1:]]
    for contrast in wanted:
        for name in (contrast.subject, contrast.control):
            if name not in by_name:
                raise ConfigError(f"no run of this report is called {name!r}; {did_you_mean(name, by_name)}")
    return [(contrast, by_name[contrast.subject], by_name[contrast.control]) for contrast in wanted]


def main_probe(arms: Sequence[Arm]) -> Track | None:
    """The probe that heads the page: the first of quality that every run measured, else the first any did."""
    shared = [track for track in arms[0].reading.summary.tracks if all(arm.track(track.probe) for arm in arms)]
    return shared[0] if shared else next((track for arm in arms for track in arm.reading.summary.tracks), None)


def difference(subject: Arm, control: Arm, probe: str) -> Estimate | None:
    """Last champion of `subject` minus last champion of `control`, paired by items."""
    if probe not in subject.last or probe not in control.last:
        return None
    return paired(subject.last[probe], control.last[probe])


def headline(arms: Sequence[Arm], asked: Sequence[Contrast]) -> str:
    """The first contrast as a sentence, with its interval: what a person should remember, and only what was shown."""
    track = main_probe(arms)
    contrasts = contrasts_of(arms, asked)
    if track is None or not contrasts:
        return f"{n.plural(len(arms), 'run')}; none has measured anything yet."
    _, subject, control = contrasts[0]
    found = difference(subject, control, track.probe)
    probe, unit = n.words(track.probe), track.unit
    if found is None or found.low is None or found.high is None:
        return f"{subject.name} and {control.name} share no items of {probe}, so that they cannot be compared pair by pair."
    ends = f"95 % interval {n.difference(found.low, unit)} to {n.difference(found.high, unit)}, paired over {n.plural(found.items, 'held-out item')}"
    if found.low <= 0 <= found.high:
        return f"No difference shown in {probe} between {subject.name} and {control.name}: {n.signed(found.mean, unit)} ({ends})."
    size = n.signed(abs(found.mean), unit).lstrip("+")
    return f"{subject.name[:1].upper()}{subject.name[1:]} ends {size} {'above' if found.mean > 0 else 'below'} {control.name} in {probe} ({ends})."


def picture(arms: Sequence[Arm]) -> Iterator[Child]:
    """Each probe over rounds, one line a run: the champion that holds after the round, with its interval."""
    main = main_probe(arms)
    if main is None:
        return
    yield figure(
        [f"{n.words(main.probe).capitalize()} of the champion by round", el("small", " · 95 % intervals shaded")],
        overlay(arms, main, 1000, 400),
        wide=True,
    )


def further_pictures(arms: Sequence[Arm]) -> Iterator[Child]:
    """The other probes, smaller."""
    main = main_probe(arms)
    tracks = {track.probe: track for arm in reversed(arms) for track in arm.reading.summary.tracks}
    others = [track for name, track in tracks.items() if main is None or name != main.probe]
    if others:
        aim = {track.probe: f" · {'higher' if track.higher_is_better else 'lower'} is better" for track in others}
        yield el(
            "div", [figure([n.words(t.probe), el("small", aim[t.probe])], overlay(arms, t, 480, 270)) for t in others], class_="charts"
        )


def overlay(arms: Sequence[Arm], probe: Track, width: int, height: int) -> Html:
    """One probe of all runs over rounds."""
    tracks = [(arm, arm.track(probe.probe)) for arm in arms]
    longest = max((arm.reading.summary.taught for arm in arms), key=len)
    series = [Series(arm.name, arm.colour, "line", _marks(arm, track)) for arm, track in tracks if track]
    title = f"{n.words(probe.probe)} by round"
    show = partial(n.quantity, unit=probe.unit)
    return line_chart(title, series, round_names(longest), show, width=width, height=height, bounds=bounds(probe.unit))


def _marks(arm: Arm, track: Track) -> tuple[Mark, ...]:
    labels = arm.reading.summary.taught
    held = zip(["start", *labels], track.held(labels), strict=True)
    return tuple(
        Mark(
            x,
            found.mean,
            found.low,
            found.high,
            f"{arm.name}, {label}: {n.with_unit(found.mean, track.unit)}, 95 % {interval(found, track.unit)}",
        )
        for x, (label, found) in enumerate(held)
    )


def contrasts(arms: Sequence[Arm], asked: Sequence[Contrast]) -> Iterator[Child]:
    """Every contrast on the main probe as a chart, and on all probes as a table."""
    main = main_probe(arms)
    found = contrasts_of(arms, asked)
    if main is None or not found:
        return
    yield el("h2", "Differences, paired by items")
    yield el("p", "Last champion of one run minus last champion of the other, on the same held-out items.", class_="soft")
    rows = []
    for _, subject, control in found:
        change = difference(subject, control, main.probe)
        if change is not None:
            rows.append(Row(f"{subject.name} − {control.name}", change.mean, change.low, change.high, n.signed(change.mean, main.unit)))
    if rows:
        show = partial(n.difference, unit=main.unit)
        unit = n.difference_unit(main.unit)
        drawing = interval_chart(f"differences in {n.words(main.probe)}", rows, show, width=1000)
        yield figure(
            [n.words(main.probe).capitalize(), el("small", f" · {unit}, 95 % intervals" if unit else " · 95 % intervals")],
            drawing,
            wide=True,
        )
    probes = list(dict.fromkeys(track.probe for arm in arms for track in arm.reading.summary.tracks))
    units = {track.probe: track.unit for arm in arms for track in arm.reading.summary.tracks}
    columns = ["~contrast", *(f"#{n.words(probe)}, {n.difference_unit(units[probe])}".rstrip(", ") for probe in probes)]
    yield table(
        columns, [(_named(c, s, k), *(change_text(difference(s, k, probe), units[probe]) for probe in probes)) for c, s, k in found]
    )


def _named(contrast: Contrast, subject: Arm, control: Arm) -> Child:
    pair = f"{subject.name} − {control.name}"
    return [contrast.question, el("br"), el("small", pair)] if contrast.question else pair


def overview(arms: Sequence[Arm]) -> Iterator[Child]:
    """All runs in one table."""
    yield el("h2", "The runs side by side")
    probes = list(dict.fromkeys(track.probe for arm in arms for track in arm.reading.summary.tracks))
    columns = ["run", "#promoted", "#refused", *(f"#{n.words(probe)}" for probe in probes), "#real tokens", "#tokens", "#time"]
    yield table(columns, [_row(arm, probes) for arm in arms])


def _row(arm: Arm, probes: Sequence[str]) -> tuple[Child, ...]:
    found, cost = arm.reading.summary, arm.reading.costs.total
    shares = [mixed.real_share.get("tokens", 0.0) for item in arm.reading.rounds for mixed in item.mixtures.values()]
    tracks = [arm.track(probe) for probe in probes]
    levels = [f"{n.quantity(t.first.mean, t.unit)} → {n.quantity(t.now.mean, t.unit)}" if t else "–" for t in tracks]
    return (
        [el("i", class_=f"swatch {arm.colour}"), el("a", arm.name, href=f"#{anchor(arm)}"), el("br"), el("small", found.recipe)],
        f"{found.tally.promoted} of {found.tally.complete}",
        n.count(found.tally.refused),
        *levels,
        f"≥ {n.percent(min(shares))}" if shares else "–",
        n.large(cost.prompt_tokens + cost.completion_tokens),
        n.duration(cost.seconds),
    )


def anchor(arm: Arm) -> str:
    """Where a run's own part stands on the page."""
    return f"run-{''.join(letter if letter.isalnum() else '-' for letter in arm.name.lower())}"
