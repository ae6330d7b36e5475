"""Every kind of attribute: its distribution, its limits, and how a run file writes it and is told what is wrong."""

from __future__ import annotations

import datetime
import json
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare, kstest, norm

from outcross.config.bind import Place, bind_value
from outcross.config.plain import plain
from outcross.errors import ConfigError, DataError
from outcross.recipe import fingerprint
from outcross.tasks.attributes import (
    AnyAttribute,
    Boolean,
    Cases,
    Category,
    Date,
    Expression,
    Faker,
    Integer,
    Normal,
    SampleOf,
    Subcategory,
    Uniform,
    Uuid,
)
from outcross.tasks.compose import Compose
from outcross.tasks.strata import Stratum, planned


def drawn(n: int, plan: Any = "independent", **attributes: AnyAttribute) -> list[dict[str, str]]:
    return [dict(task.columns) for task in Compose("ask", attributes, n=n, seed=11, plan=plan)]


def bound(raw: Any, base: Path = Path()) -> Any:
    return bind_value(raw, AnyAttribute, Place("attributes.x", base), {}).make()


# ── distributions ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_independent_draws_follow_the_weights() -> None:
    counts = Counter(row["x"] for row in drawn(6000, x=Category({"a": 5, "b": 3, "c": 2, "never": 0})))
    assert set(counts) == {"a", "b", "c"}
    assert chisquare([counts["a"], counts["b"], counts["c"]], [3000, 1800, 1200]).pvalue > 0.01


@pytest.mark.parametrize("plan", ["independent", "stratified"])
def test_two_attributes_are_independent_of_each_other_and_one_within_another_is_not(plan: str) -> None:
    tones: dict[str, AnyAttribute] = {"tone": Category(("x", "y", "z")), "other": Category({"p": 1, "q": 2})}
    rows = drawn(6000, plan, kind=Category(("a", "b")), sub=Subcategory({"a": ("1", "2"), "b": ("2", "3")}, "kind"), **tones)
    for first, second in (("tone", "other"), ("tone", "sub"), ("kind", "other")):
        met = Counter((row[first], row[second]) for row in rows)
        names = [sorted({pair[side] for pair in met}) for side in (0, 1)]
        assert chi2_contingency([[met[a, b] for b in names[1]] for a in names[0]]).pvalue > 0.001
    assert {(row["kind"], row["sub"]) for row in rows} == {("a", "1"), ("a", "2"), ("b", "2"), ("b", "3")}


def test_two_attributes_that_depend_on_one_are_planned_apart() -> None:
    twins: dict[str, AnyAttribute] = {name: Subcategory({"a": ("1", "2")}, "kind") for name in ("left", "right")}
    met = Counter((row["left"], row["right"]) for row in drawn(1000, "stratified", kind=Category(("a",)), **twins))
    assert len(met) == 4 and min(met.values()) > 200


def test_numbers_have_their_distribution_limits_and_decimals() -> None:
    rows = drawn(
        3000, x=Uniform((-2, 6), 6), y=Normal((100, 15), decimals=6), z=Normal((0, 1), low=0.5, high=2, decimals=3), k=Integer((3, 5))
    )
    assert kstest([float(row["x"]) for row in rows], "uniform", (-2, 8)).pvalue > 0.01
    assert kstest([float(row["y"]) for row in rows], norm(100, 15).cdf).pvalue > 0.01
    cut = [float(row["z"]) for row in rows]
    assert 0.5 <= min(cut) < 0.51 and 1.99 < max(cut) <= 2 and max(len(row["z"]) for row in rows) == 5
    assert chisquare(list(Counter(row["k"] for row in rows).values())).pvalue > 0.01 and {row["k"] for row in rows} == {"3", "4", "5"}


def test_a_planned_normal_has_the_mean_and_deviation_almost_exactly() -> None:
    values = [float(row["x"]) for row in drawn(500, "stratified", x=Normal((10, 2), decimals=6))]
    assert statistics.mean(values) == pytest.approx(10, abs=0.02) and statistics.stdev(values) == pytest.approx(2, abs=0.03)


def test_no_decimals_is_a_whole_number_and_wide_integers_fill_their_range() -> None:
    rows = drawn(100, "stratified", x=Uniform((0, 9), 0), y=Integer((0, 10**6 - 1)))
    assert all(row["x"].isdigit() for row in rows)
    assert sorted(int(row["y"]) // 10_000 for row in rows) == list(range(100))


def test_days_are_days_that_templates_can_write() -> None:
    day = Date((datetime.date(2024, 2, 28), datetime.date(2024, 3, 1)))
    tasks = list(Compose("{{ due.strftime('%d/%m') }} {{ due.year }}", {"due": day}, n=300))
    assert Counter(task.prompt for task in tasks) == dict.fromkeys(("28/02 2024", "29/02 2024", "01/03 2024"), 100)
    assert dict(tasks[0].columns)["due"].startswith("2024-0")


def test_true_is_as_likely_as_it_says() -> None:
    assert Counter(row["x"] for row in drawn(400, "stratified", x=Boolean(0.25))) == {"true": 100, "false": 300}
    assert {row["x"] for row in drawn(50, x=Boolean(1))} == {"true"} and {row["x"] for row in drawn(50, x=Boolean(0))} == {"false"}


def test_cases_choose_the_kind_of_attribute_by_any_value() -> None:
    cases = Cases({"true": Integer((1, 2)), "false": Category(("none",))}, "hint")
    assert {(row["hint"], row["x"]) for row in drawn(200, hint=Boolean(0.5), x=cases)} == {("true", "1"), ("true", "2"), ("false", "none")}
    people = Category(({"name": "Ada", "land": "GB"}, {"name": "Bo", "land": "SE"}))
    asked = Subcategory({"GB": ("tea",), "SE": ("coffee",)}, "who.land")
    assert {(row["who.name"], row["x"]) for row in drawn(40, who=people, x=asked)} == {("Ada", "tea"), ("Bo", "coffee")}
    with pytest.raises(DataError, match=r"attribute 'x': `of: who.land` gave 'GB', for which there is no case; allowed: SE"):
        drawn(40, who=people, x=Subcategory({"SE": ("coffee",)}, "who.land"))


def test_expressions_keep_their_type_and_templates_give_text() -> None:
    (row,) = drawn(1, a=Integer((4, 4)), b=Expression("a / 8"), c=Expression("b < 1 and a > 3"), d=Expression("{{ a }}-{{ b }}"))
    assert row == {"a": "4", "b": "0.5", "c": "true", "d": "4-0.5"}


def test_identifiers_are_version_4_and_all_different() -> None:
    found = [row["x"] for row in drawn(200, "stratified", x=Uuid("T-"))]
    assert len(set(found)) == 200 and all(
        re.fullmatch(r"T-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", item) for item in found
    )


def test_faker_gives_one_text_or_a_row_of_them() -> None:
    rows = drawn(20, "stratified", x=Faker("name"), y=Faker(("city", "pyint"), "de_DE"))
    assert len({row["x"] for row in rows}) > 15 and all(row["y.city"] and row["y.pyint"].isdigit() for row in rows)
    with pytest.raises(ConfigError, match="attribute 'x': faker is 'nmae', which Faker does not offer"):
        drawn(1, x=Faker("nmae"))
    with pytest.raises(ConfigError, match="no locale 'xx_YY'"):
        drawn(1, x=Faker("name", "xx_YY"))


@given(st.integers(1, 200), st.integers(0, 2**32), st.integers(1, 4))
def test_a_plan_uses_each_stratum_once_and_spreads_what_belongs_together(rows: int, seed: int, together: int) -> None:
    size = rows * together
    ranks = [planned(Stratum(rank, size, str(seed)), "x", together).rank for rank in range(size)]
    assert sorted(ranks) == list(range(size))
    assert all({rank // rows for rank in ranks[at : at + together]} == set(range(together)) for at in range(0, size, together))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.integers(1, 60), st.integers(0, 99))
def test_strata_within_a_choice_fill_it_without_gaps(weights: list[int], size: int, seed: int) -> None:
    choice = Category({f"v{place}": weight for place, weight in enumerate(weights)})
    found: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for rank in range(size):
        value, stratum = choice.draw(planned(Stratum(rank, size, str(seed)), "x"), {})
        assert stratum is not None
        found.setdefault(value, []).append(stratum.rank)
        sizes[value] = stratum.size
    for value, ranks in found.items():
        assert sorted(ranks) == list(range(sizes[value]))
        assert abs(len(ranks) - size * choice.shares({})[value]) < 1 + 1e-9


# ── in a run file ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"category": {"a": 3, "b": 1}}, Category({"a": 3.0, "b": 1.0})),
        ({"category": ["a", 2, {"name": "Ada"}]}, Category(("a", 2, {"name": "Ada"}))),
        ({"subcategory": {"a": ["x"], "b": {"y": 1}}, "of": "topic"}, Subcategory({"a": ["x"], "b": {"y": 1}}, "topic")),
        ({"cases": {"a": {"integer": [1, 2]}}, "of": "topic"}, Cases({"a": Integer((1, 2))}, "topic")),
        ({"uniform": [0, 1], "decimals": 3}, Uniform((0.0, 1.0), 3)),
        ({"normal": [0, 1], "low": -1}, Normal((0.0, 1.0), -1.0)),
        ({"boolean": 0.5}, Boolean(0.5)),
        ({"date": ["2024-01-01", datetime.date(2024, 2, 1)]}, Date((datetime.date(2024, 1, 1), datetime.date(2024, 2, 1)))),
        ({"sample_of": "p.jsonl", "weight": "w"}, SampleOf(Path("p.jsonl"), "w")),
        ({"faker": ["name", "city"]}, Faker(("name", "city"))),
        ({"uuid": ""}, Uuid("")),
        ({"expression": "a + b"}, Expression("a + b")),
    ],
)
def test_a_run_file_names_the_kind_by_its_first_setting(raw: Any, expected: Any) -> None:
    made = bound(raw)
    assert made == expected
    again = bound(json.loads(json.dumps(plain(made), sort_keys=True)))
    if not isinstance(made, SampleOf):
        assert fingerprint(again) == fingerprint(made), "a run that is resumed reads its own record"


@pytest.mark.parametrize("key", [1, True, "1"])
def test_keys_that_yaml_reads_as_numbers_or_booleans_mean_the_same_on_the_record(key: Any) -> None:
    made = bound({"subcategory": {key: ["x"]}, "of": "y"})
    assert fingerprint(bound(json.loads(json.dumps(plain(made))))) == fingerprint(made)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"categry": {"a": 1}}, "attributes.x is .*; it must be settings, .* did you mean 'category'\\? allowed: boolean, cases, category"),
        ("algebra", "attributes.x is 'algebra'; it must be settings"),
        ({"category": {"a": 1}, "integer": [1, 2]}, "attributes.x has the settings category and integer, of which only one may be given"),
        ({"uniform": [0, 1], "decimal": 2}, "attributes.x.decimal: Uniform has no setting 'decimal'; did you mean 'decimals'"),
        ({"integer": [1]}, r"attributes.x.integer is \[1\]; it must be \[a whole number, a whole number\]"),
        ({"date": ["2024-13-01", "2024-01-01"]}, "attributes.x.date is '2024-13-01'; it must be .a day such as 2024-12-31"),
        ({"sample_of": ["a"]}, r"attributes.x.sample_of is \['a'\]; it must be a path"),
        ({"cases": {"a": {"intger": [1, 2]}}, "of": "y"}, "attributes.x.cases.a is .* did you mean 'integer'"),
        ({"subcategory": {"a": ["x"]}}, "attributes.x: Subcategory needs the setting 'of'"),
    ],
)
def test_the_run_file_is_told_the_place_and_what_is_allowed(raw: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bound(raw)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (Category({}), "category is empty"),
        (Category({"a": -1}), "the weight of 'a' in category is -1; it must be a number, 0 or more"),
        (Category({"a": float("nan")}), "the weight of 'a' in category is nan"),
        (Category({"a": 0}), "all weights in category are 0"),
        (Category((True, "a")), "category has the value True: YAML reads yes, no"),
        (Category((None,)), "category has the value None"),
        (Subcategory({"a": "xyz"}, "y"), "subcategory.a is 'xyz'; it must be a list"),
        (Subcategory({"a": []}, "y"), "subcategory.a is empty"),
        (Cases({"a": Boolean(3)}, "y"), "cases.a: boolean is 3"),
        (Integer((5, 1)), r"integer is \[5, 1\]; it must be \[lowest, highest\]"),
        (Uniform((0, float("inf"))), "uniform is"),
        (Uniform((0, 1), 99), "decimals is 99; allowed are 0 to 12"),
        (Normal((0, 0)), "standard deviation above 0"),
        (Normal((0, 1), low=20), "almost nothing of the distribution"),
        (Boolean(1.5), "boolean is 1.5; it must be the probability of true"),
        (Date((datetime.date(2024, 2, 1), datetime.date(2024, 1, 1))), "the first day must not be after the last"),
        (Expression("a +"), "expression 'a \\+' is not Jinja"),
    ],
)
def test_settings_that_cannot_be_drawn_from_are_refused_by_name(attribute: AnyAttribute, message: str) -> None:
    with pytest.raises(ConfigError, match=f"compose: attribute 'x': .*{message}"):
        Compose("{{ x }}", {"x": attribute}, n=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file .*did you mean 'peopel.jsonl'"),
        ('{"name": "Ada", "shar": 1}\n', "row 1: there is no column 'share'; did you mean 'shar'"),
        ('{"name": "Ada", "share": 0}\n', "row 1: the weight 'share' is 0; it must be a number above 0"),
        ("", "holds no rows"),
    ],
)
def test_files_to_draw_from_are_named_when_they_cannot_be(content: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / ("peopel.jsonl" if content is None else "people.jsonl")).write_text(content or "")
    with pytest.raises(DataError, match=f"attribute 'x': .*{message}"):
        drawn(1, x=SampleOf(tmp_path / "people.jsonl", "share"))
