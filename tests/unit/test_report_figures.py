"""Markup, numbers and charts: what they write is escaped, well formed, consistent and in the right place."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcross.report import numbers as n
from outcross.report.element import Html, clip, el, join
from outcross.report.figures import GAP, Bar, Mark, Row, Series, interval_chart, line_chart, room, split_bar, spread, stacked_bars, ticks

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.text(alphabet=st.characters(codec="utf-8")), st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_survives_as_text_and_makes_no_markup(text: str, other: str) -> None:
    parsed = ET.fromstring(el("p", text, class_=other))
    assert len(parsed) == 0 and set(parsed.attrib) == {"class"}
    ordinary = [letter for letter in text if letter.isprintable()]
    assert [letter for letter in parsed.text or "" if letter.isprintable() and letter in ordinary] == ordinary


def test_markup_is_not_escaped_twice_and_control_characters_show() -> None:
    assert el("b", el("i", "<"), None, [" ", "&"]) == "<b><i>&lt;</i> &amp;</b>"
    assert join(Html("<br/>")) == "<br/>" and el("br") == "<br/>"
    assert join("\x00\x1b\x7f\ufffe") == "␀␛␡\ufffd"
    assert el("p", "x", class_=None, http_equiv="a", width=3, x=1.50) == '<p http-equiv="a" width="3" x="1.5">x</p>'
    assert clip("abcdef", 4) == "abcd… [4 of 6 characters shown]" and clip("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (n.number(0.0), "0.000"),
        (n.number(2.3149), "2.31"),
        (n.number(-0.0004), "−4.0e-04"),
        (n.number(123456.7), "123,457"),
        (n.number(math.nan), "n/a"),
        (n.percent(0.41), "41.0\u00a0%"),
        (n.signed(0.245, "share"), "+24.5 points"),
        (n.signed(-0.0139, "nats per token"), "−0.014 nats per token"),
        (n.difference(0.00001, "share"), "0.0"),
        (n.with_unit(0.5, "share"), "50.0\u00a0%"),
        (n.large(1_240_000), "1.24 M"),
        (n.large(999), "999"),
        (n.size(5_000), "5 kB"),
        (n.duration(0.42), "0.4 s"),
        (n.duration(200), "3 min 20 s"),
        (n.duration(7_260), "2 h 1 min"),
        (n.count(5120), "5,120"),
        (n.count(12.5), "12.5"),
        (n.compact(0.0125), "0.0125"),
        (n.plural(1, "round"), "1 round"),
        (n.short("a" * 32), "a" * 12),
        (n.short(f"tabular:{'0f' * 16}"), "tabular:0f0f0f0f0f0f"),
        (n.short("openai/gpt:4"), "openai/gpt:4"),
    ],
)
def test_numbers_have_one_format_each(written: str, expected: str) -> None:
    assert written == expected


@given(finite, st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, share: float) -> None:
    span = share * max(1.0, abs(low))
    found = ticks(low, low + span)
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found) and len(found) <= 12
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(3, 3) == [3]


@given(st.lists(st.floats(0, 400), min_size=1, max_size=10))
def test_labels_keep_their_order_and_distance(places: list[float]) -> None:
    found = spread(places, 0, 400)
    ranked = [found[index] for index in sorted(range(len(places)), key=lambda index: places[index])]
    assert all(later - earlier >= GAP - 1e-6 for earlier, later in pairwise(ranked))
    assert max(found) <= 400 and min(found) >= min(0, 400 - GAP * len(places))


def numbers_of(element: ET.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


def test_a_line_chart_draws_values_where_they_belong() -> None:
    marks = (Mark(0, 0.2, 0.1, 0.3, "start"), Mark(1, 0.4, 0.3, 0.5, "one"), Mark(2, 0.8, 0.7, 0.9, "two"))
    series = [Series("guarded & co", "s1", "line", marks), Series("", "s2", "hollow", (Mark(1, 0.6, 0.5, 0.7, "refused"),))]
    chart = ET.fromstring(line_chart("rate <by> round", series, ["start", "0", "1"], n.percent, width=480, height=250, bounds=(0, 1)))
    assert chart.findtext("title") == "rate <by> round" and chart.attrib["role"] == "img"
    circles = [circle for circle in chart.iter("circle") if "hollow" not in circle.attrib["class"]]
    xs, ys = zip(*(numbers_of(circle, "cx", "cy") for circle in circles))
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.1)
    assert (ys[0] - ys[2]) / (ys[0] - ys[1]) == pytest.approx(3, abs=0.05)  # 0.2 → 0.8 is three times 0.2 → 0.4, upwards
    assert all(0 < x < 480 and 0 < y < 250 for x, y in zip(xs, ys))
    texts = [text.text for text in chart.iter("text")]
    assert "guarded & co 80.0\u00a0%" in texts and "start" in texts and "20.0\u00a0%" in texts
    assert len(list(chart.iter("polygon"))) == 1 and [g.findtext("title") for g in chart.iter("g")] == ["start", "one", "two", "refused"]


def test_a_chart_without_finite_values_still_draws() -> None:
    for marks in ((), (Mark(0, math.nan),), (Mark(0, 0.5),)):
        drawn = line_chart("t", [Series("a", "s1", "line", marks)], ["start"], n.percent, width=300, height=200, bounds=(0, 1))
        assert ET.fromstring(drawn).tag == "svg" and "nan" not in drawn


def test_a_chart_of_shares_shows_nothing_outside_0_and_1() -> None:
    series = [
        Series("candidate", "s1", "solid", (Mark(0, 0.02, -0.05, 0.09, "low"), Mark(1, 0.99, 0.95, 1.04, "high"))),
        Series("margin", "s2", "dashed", (Mark(0, -0.2), Mark(1, -0.2))),
    ]
    chart = ET.fromstring(line_chart("t", series, ["start", "0"], n.percent, width=480, height=250, bounds=(0, 1)))
    assert not list(chart.iter("polyline")) and "margin" not in "".join(chart.itertext())
    grid = {text.text: float(text.attrib["y"]) - 4 for text in chart.iter("text") if text.attrib["class"] == "tick end"}
    ends = [float(line.attrib[end]) for line in chart.iter("line") if "whisker" in line.attrib["class"] for end in ("y1", "y2")]
    assert max(ends) == pytest.approx(grid["0.0\u00a0%"], abs=0.1) and min(ends) == pytest.approx(grid["100.0\u00a0%"], abs=0.1)


def test_stacked_bars_are_as_long_as_their_shares() -> None:
    bars = [Bar("one", (("s1", 0.75, "real"), ("s5", 0.25, "synthetic")), 0.7)]
    chart = ET.fromstring(stacked_bars("mixture", bars, width=600))
    real, synthetic = (numbers_of(box, "x", "width") for box in chart.iter("rect"))
    assert (real[1] + 1) / (synthetic[1] + 1) == pytest.approx(3, abs=0.01) and synthetic[0] == pytest.approx(real[0] + real[1] + 1)
    (floor,) = [line for line in chart.iter("line") if line.attrib["class"] == "floor"]
    assert (float(floor.attrib["x1"]) - real[0]) / (real[1] + synthetic[1] + 2) == pytest.approx(0.7, abs=0.001)


def test_intervals_are_coloured_by_what_they_show() -> None:
    rows = [Row("up", 0.2, 0.1, 0.3, "+20"), Row("down", -0.2, -0.3, -0.1, "−20"), Row("none", 0.01, -0.1, 0.12, "+1")]
    chart = ET.fromstring(interval_chart("differences", rows, lambda value: n.difference(value, "share"), width=800))
    assert [line.attrib["class"] for line in chart.iter("line") if "thick" in line.attrib["class"]] == [
        "thick s1",
        "thick s2",
        "thick s-unclear",
    ]
    zero = next(float(line.attrib["x1"]) for line in chart.iter("line") if line.attrib["class"] == "zero")
    up, down, none = ([float(line.attrib[end]) for end in ("x1", "x2")] for line in chart.iter("line") if "thick" in line.attrib["class"])
    assert zero < up[0] < up[1] and down[0] < down[1] < zero and none[0] < zero < none[1]


def test_small_figures_of_tables_hold_their_proportions() -> None:
    widths = [float(box.attrib["width"]) for box in ET.fromstring(split_bar(6, 3, 1)).iter("rect")]
    assert widths == [84, 42, 14]
    check = ET.fromstring(room(0.02, -0.01, 0.05, True))
    margin, zero, thick = ([float(line.attrib[end]) for end in ("x1", "x2")] for line in check.iter("line"))
    assert margin[0] < thick[0] < zero[0] < thick[1]
    assert ET.fromstring(room(math.nan, math.nan, 0.05, False)).tag == "svg"
