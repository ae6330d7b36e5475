"""How numbers are written in the report, the summary and the lineage: one format for each kind of number."""

from __future__ import annotations

import math

SHARE = "share"  # the unit of probes whose items lie between 0 and 1
MINUS = "−"


def is_share(unit: str) -> bool:
    """Whether a probe's unit is a share of items, shown as a percentage."""
    return unit == SHARE


def number(value: float) -> str:
    """A number of no particular kind: thousands separated, about three digits that matter."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    if size >= 100:
        text = f"{size:,.0f}"
    elif size >= 10:
        text = f"{size:.1f}"
    elif size >= 1:
        text = f"{size:.2f}"
    elif size >= 0.001 or size == 0:
        text = f"{size:.3f}"
    else:
        text = f"{size:.1e}"
    return f"{MINUS}{text}" if value < 0 and text.strip("0.,") else text


def compact(value: float) -> str:
    """A setting or a score: up to three significant digits, no trailing zeros."""
    return f"{value:.3g}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share as a percentage with one decimal; the space before the sign does not break."""
    return "n/a" if math.isnan(share) else f"{100 * share:.1f}\u00a0%".replace("-", MINUS)


def quantity(value: float, unit: str) -> str:
    """A probe's value without its unit's name: a percentage for shares."""
    return percent(value) if is_share(unit) else number(value)


def with_unit(value: float, unit: str) -> str:
    """A probe's value and its unit."""
    return percent(value) if is_share(unit) else f"{number(value)} {unit}".rstrip()


def difference(value: float, unit: str) -> str:
    """A signed difference of two values of a probe, without its unit: percentage points for shares."""
    if math.isnan(value):
        return "n/a"
    text = f"{100 * abs(value):.1f}" if is_share(unit) and math.isfinite(value) else number(abs(value))
    if not text.strip("0.,"):
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def difference_unit(unit: str) -> str:
    """What `difference` counts in."""
    return "points" if is_share(unit) else unit


def signed(value: float, unit: str) -> str:
    """A signed difference and its unit."""
    return f"{difference(value, unit)} {difference_unit(unit)}".rstrip()


def count(value: float) -> str:
    """How many: whole numbers with thousands separated; weighted counts keep one decimal."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def count_about(value: float) -> str:
    """How many, about: a whole number with thousands separated."""
    return f"{value:,.0f}"


def large(value: float) -> str:
    """A count that only matters by its size: 1.24 M."""
    return _scaled(value, 1000, ("", " k", " M", " G", " T"))


def size(value: float) -> str:
    """Bytes, in powers of 1,000."""
    return _scaled(value, 1000, (" B", " kB", " MB", " GB", " TB"))


def _scaled(value: float, base: int, names: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= base and power < len(names) - 1:
        value /= base
        power += 1
    return f"{value:,.0f}{names[0]}" if power == 0 else f"{value:.3g}{names[power]}"


def duration(seconds: float) -> str:
    """Wall time."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def money(value: float) -> str:
    """Money in the currency of the price list: cents, and of less than one at least three digits that matter."""
    return f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.{2 - math.floor(math.log10(value))}f}"


def plural(amount: int, noun: str) -> str:
    """`amount` of `noun`: 1 round, 4 rounds."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def short(identifier: str) -> str:
    """An identifier as people read it: of a content hash the first twelve digits, of `kind:hash` too; other names as they are."""
    kind, colon, rest = identifier.rpartition(":")
    hashed = len(rest) == 32 and not set(rest) - set("0123456789abcdef")
    return f"{kind}{colon}{rest[:12]}" if hashed else identifier


def words(name: str) -> str:
    """A name on the record as words: `pass_rate` is "pass rate"."""
    return name.replace("_", " ")
