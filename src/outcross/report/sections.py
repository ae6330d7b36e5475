"""The sections of one run: probes over rounds, the rounds at a glance, mixtures, costs, environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain

from outcross.engine.store import PRIMARY
from outcross.errors import StoreError
from outcross.report import numbers as n
from outcross.report.bill import Bill
from outcross.report.element import Child, Html, clip, el
from outcross.report.figures import Bar, Mark, Series, line_chart, stacked_bars
from outcross.report.parts import change_text, chip, figure, fold, interval, legend, table, tiles
from outcross.report.read import Reading, RoundRow
from outcross.report.record import Mixed, Part, VerifierRecord, read_tombstones
from outcross.report.tracks import Point, Track

ORIGINS = (
    ("s1", "real, proved"),
    ("s3", "real, attested"),
    ("s5", "synthetic of this round"),
    ("s2", "synthetic of earlier rounds"),
    ("s6", "unknown origin"),
)


def tile_row(reading: Reading) -> Html:
    """Key figures of a run."""
    found = reading.summary
    cost = reading.costs.total
    items = [(_ends(track), n.words(track.probe)) for track in found.tracks[:3]]
    if found.tally.releases:
        items.append((f"{found.tally.released} of {found.tally.releases}", "rounds released"))
        items.append((n.count(found.tally.rows), "rows released"))
    if found.tally.training or not found.tally.releases:
        items.append((f"{found.tally.promoted} of {found.tally.complete}", "rounds promoted"))
    bill = _bill(reading)
    tokens = bill.prompt_tokens + bill.completion_tokens if bill else cost.prompt_tokens + cost.completion_tokens
    if tokens:
        items.append((n.large(tokens), "tokens read and written"))
    if bill is not None and bill.money is not None:
        items.append((n.money(bill.money), "money"))
    if cost.seconds:
        items.append((n.duration(cost.seconds), "in all steps"))
    return tiles(items)


def _bill(reading: Reading) -> Bill | None:
    try:
        return reading.bill
    except StoreError:  # the section of the bill tells why
        return None


def _ends(track: Track) -> str:
    first, now = n.quantity(track.first.mean, track.unit), n.quantity(track.now.mean, track.unit)
    return first if first == now else f"{first} → {now}"


def bounds(unit: str) -> tuple[float, float]:
    """The values a probe can take."""
    return (0.0, 1.0) if n.is_share(unit) else (-float("inf"), float("inf"))


def round_names(labels: Sequence[str]) -> list[str]:
    """Rounds as the x axis names them: their number, with the phase when there are several."""
    phases = {label.rpartition("/")[0] for label in labels}
    numbers = [
        (phase, str(int(number)) if number.isdigit() else number) for phase, _, number in (label.rpartition("/") for label in labels)
    ]
    return ["start", *(number if len(phases) == 1 else f"{phase} {number}" for phase, number in numbers)]


def probes(reading: Reading) -> Iterator[Child]:
    """One chart per probe, then all in a table."""
    tracks = reading.summary.tracks
    if not tracks:
        return
    yield el("h2", "Probes on held-out items")
    yield el(
        "p",
        "Filled points were promoted, hollow ones refused, each with its 95 % interval. The stepped line is the champion that held after the round; "
        "dashed: the first champion and the margin below which no candidate may fall.",
        class_="soft",
    )
    yield el(
        "div",
        [figure([n.words(track.probe), el("small", f" · {_aim(track)}")], probe_chart(track, reading.summary.taught)) for track in tracks],
        class_="charts",
    )
    columns = ["probe", "kind", "#first champion", "#champion now", "#change [95 %]", "#margin", "#items", "finding"]
    yield table(columns, map(_probe_row, tracks))
    yield el(
        "p",
        "Change: champion now minus first champion, paired by items. Better or worse: its interval excludes zero (worse within margin: all of it is a loss "
        "smaller than the margin); within margin: it holds zero, and no change beyond the margin; unchanged: no item moved; not below real: varied at "
        "least as the real answers are, up to the margin; unclear: too wide to say.",
        class_="soft",
    )


def _probe_row(track: Track) -> tuple[Child, ...]:
    points = " points" if n.is_share(track.unit) else ""
    return (
        [n.words(track.probe), el("small", f" {track.unit}") if track.unit and not points else None],
        track.kind,
        n.quantity(track.first.mean, track.unit),
        n.quantity(track.now.mean, track.unit),
        change_text(track.change, track.unit) + points,
        n.difference(track.margin, track.unit).lstrip("+") + points,
        n.count(track.now.items),
        chip(track.verdict),
    )


def _aim(track: Track) -> str:
    unit = "" if n.is_share(track.unit) or not track.unit else f"{track.unit}, "
    return f"{unit}{'higher' if track.higher_is_better else 'lower'} is better"


def probe_chart(track: Track, labels: Sequence[str]) -> Html:
    """The champion as stairs, every candidate as a point with its interval, the first champion and the margin as lines.

    `labels`: the rounds of the x axis."""
    names = round_names(labels)
    level = track.first.mean
    ends = (0, max(1, len(labels)))
    place = {label: x for x, label in enumerate(labels, 1)}
    promoted = tuple(_mark(place[point.label], point, track) for point in track.points if point.promoted)
    others = tuple(_mark(place[point.label], point, track) for point in track.points if not point.promoted)
    series = [
        Series("first", "s-soft", "dashed", tuple(Mark(x, level) for x in ends)),
        Series("margin", "s2", "dashed", tuple(Mark(x, track.limit) for x in ends) if track.margin else ()),
        Series("champion", "s1", "line", tuple(_stairs(track, labels))),
        Series("", "s1", "solid", promoted),
        Series("", "s2", "hollow", others),
    ]
    title = f"{n.words(track.probe)} over rounds"
    return line_chart(title, series, names, partial(n.quantity, unit=track.unit), width=480, height=250, bounds=bounds(track.unit))


def _stairs(track: Track, labels: Sequence[str]) -> Iterator[Mark]:
    before = track.first.mean
    yield Mark(0, before, note=f"start: {n.with_unit(before, track.unit)}")
    for x, found in enumerate(track.held(labels)[1:], 1):
        if found.mean != before:
            yield Mark(x, before)
        before = found.mean
        yield Mark(x, before)


def _mark(x: int, point: Point, track: Track) -> Mark:
    found = point.candidate
    note = f"{point.label}: candidate {n.with_unit(found.mean, track.unit)}, 95 % {interval(found, track.unit)}, {'promoted' if point.promoted else 'not promoted'}"
    return Mark(x, found.mean, found.low, found.high, note)


def overview(reading: Reading, most: int) -> Iterator[Child]:
    """The rounds at a glance, the first and last `most`/2 of them when there are more."""
    rows = reading.summary.rounds
    if not rows:
        return
    yield el("h2", "Rounds")
    shown = [*rows[: most - most // 2], *rows[len(rows) - most // 2 :]] if len(rows) > most else list(rows)
    if len(shown) < len(rows):
        yield el("p", f"The first and last {n.count(len(shown))} of {n.count(len(rows))} rounds; all are in the record.", class_="soft")
    names = [track.probe for track in reading.summary.tracks]
    units = {track.probe: track.unit for track in reading.summary.tracks}
    yield table(
        [
            "round",
            "outcome",
            "#samples",
            "#pass",
            "#kept",
            "#rows seen",
            "#steps",
            "#real rows",
            "#real tokens",
            *(f"#{n.words(name)}" for name in names),
        ],
        [
            (
                row.label,
                [chip(row.outcome), "" if row.gated else [" ", chip("ungated")]],
                n.count(row.made),
                "–" if row.passed is None else n.count(row.passed),
                n.count(row.kept),
                n.count(row.examples),
                n.count(row.steps),
                *_real(row),
                *(n.quantity(row.means[name], units[name]) if name in row.means else "–" for name in names),
            )
            for row in shown
        ],
    )


def _real(row: RoundRow) -> tuple[str, str]:
    share = row.mixture.real_share if row.mixture else {}
    return tuple(n.percent(share[unit]) if unit in share else "–" for unit in ("records", "tokens"))  # type: ignore[return-value]


def mixtures(reading: Reading, most: int) -> Iterator[Child]:
    """What the optimiser saw, by origin: one bar of tokens and one of rows a round."""
    found = [(item, role, mixed) for item in reading.rounds for role, mixed in item.mixtures.items() if mixed.parts]
    if not found:
        return
    yield el("h2", "What the optimiser saw")
    floors = sorted({_floor(mixed) for _, _, mixed in found})
    yield el("p", "Shares of all tokens and of all rows, repeats and weights counted. ", "; ".join(floors), ".")
    shown = found[-most:]
    if len(shown) < len(found):
        yield el("p", f"The last {len(shown)} of {n.count(len(found))} mixtures.", class_="soft")
    bars = []
    for item, role, mixed in shown:
        name = item.label if role == PRIMARY else f"{item.label} {role}"
        bars += [_bar(f"{name} tokens" if unit == "tokens" else "rows", mixed, unit, item.label) for unit in ("tokens", "records")]
    used = {colour for bar in bars for colour, share, _ in bar.pieces if share}
    floor = [("tickmark", "floor of real data")] if any(bar.floor for bar in bars) else []
    yield legend([*(item for item in ORIGINS if item[0] in used), *floor])
    yield el("div", stacked_bars("real and synthetic data in each round", bars, width=1000), class_="plot wide")


def _floor(mixed: Mixed) -> str:
    if mixed.floor.startswith("waived"):
        return f"The floor of real data is {mixed.floor}"
    if mixed.required is not None:
        return f"At least {n.percent(mixed.required)} of either must be real"
    return "Real rows are anchored: they enter every step with a stated weight"


def origin_of(part: Part, label: str) -> int:
    """Which of `ORIGINS` a part of a mixture belongs to."""
    if part.is_real:
        return 0 if part.proof == "proved" else 1
    if part.kind != "synthetic":
        return 4
    return 2 if part.round == label or part.round.startswith(f"{label}/") else 3


def _bar(name: str, mixed: Mixed, unit: str, label: str) -> Bar:
    total = mixed.tokens if unit == "tokens" else mixed.records
    pieces = []
    for index, (colour, meaning) in enumerate(ORIGINS):
        amount = sum(part.tokens if unit == "tokens" else part.records for part in mixed.parts if origin_of(part, label) == index)
        share = amount / total if total else 0.0
        pieces.append((colour, share, f"{meaning}: {n.count(amount)} {unit if unit == 'tokens' else 'rows'}, {n.percent(share)}"))
    return Bar(name, tuple(piece for piece in pieces if piece[1]), mixed.required)


def costs(reading: Reading, most: int) -> Iterator[Child]:
    """Time, tokens and memory by step."""
    found = reading.costs
    if not found.steps:
        return
    yield el("h2", "Time and tokens")
    total = found.total
    started = f" in {n.plural(found.attempts, 'attempt')}" if found.attempts > 1 else ""
    memory = f", peak memory {n.size(total.rss_mb * 1e6)}" if total.rss_mb else ""
    yield el("p", f"{n.duration(total.seconds)} in all{started}{memory}. These clocks are no part of the reproducible record.")
    shown = list(found.steps.items())[-most:]
    body = table(
        ["round", "step", "#time", "#tokens read", "#tokens written", "#peak memory"],
        [
            (
                label or "start",
                step,
                n.duration(cost.seconds),
                n.count(cost.prompt_tokens),
                n.count(cost.completion_tokens),
                n.size(cost.rss_mb * 1e6),
            )
            for (label, step), cost in shown
        ],
    )
    yield fold("by round and step", body)


def tombstones(reading: Reading) -> Iterator[Child]:
    """What was recalled, in the order in which it was: why, and how many records."""
    found = list(read_tombstones(reading.run))
    if found:
        yield el("h2", "Recalled")
        yield el(
            "p",
            "Tombstoned records stay stored; no later mixture and no export holds them. Models that learnt from them before still have.",
        )
        yield table(["why", "#records"], [(clip(item.told, 200), n.count(len(item.records))) for item in found])


def environment(reading: Reading, characters: int) -> Iterator[Child]:
    """Versions, fingerprint, models, stages and the resolved configuration, folded away."""
    manifest = reading.manifest
    yield el("h2", "Environment and configuration")
    facts = [
        ("recipe", f"{manifest.recipe.name} {f'({manifest.recipe.paper})' if manifest.recipe.paper else ''}".rstrip()),
        ("fingerprint", manifest.recipe.fingerprint),
        ("seed", str(manifest.seed)),
        ("kept models", str(manifest.keep_models)),
        *((f"first model, {role}", f"{model.id}, depth {model.depth}") for role, model in manifest.models.items()),
        *((f"verifier {name}", f"version {item.version}, {item.ground}") for name, item in _verifiers(reading)),
        *((f"version of {name}", version) for name, version in manifest.versions.items()),
    ]
    yield fold("versions, models and verifiers", table(["what", "~value"], [(name, el("code", clip(value, 300))) for name, value in facts]))
    yield fold("resolved configuration", el("pre", clip(_yaml(manifest.config), characters), class_="block"))


def _verifiers(reading: Reading) -> list[tuple[str, VerifierRecord]]:
    found = dict(chain.from_iterable(item.verifiers.items() for item in reading.rounds))
    return sorted(found.items())


def _yaml(value: object) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True) if value else "none was recorded: the run was started from Python"
