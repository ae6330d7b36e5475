"""Values and arguments: every annotation a stage may have, what fits it, and what is said when something does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outcross.config import find
from outcross.config.annotations import describe, parameters
from outcross.config.bind import Place, bind_call, bind_value
from outcross.config.plain import plain
from outcross.errors import ConfigError
from outcross.recipe import Mixture, Waived
from outcross.stages import FitPlan, Generator, Verifier
from outcross.types import Sampling

HERE = Place("x", Path())


@pytest.mark.parametrize(
    ("raw", "hint", "made"),
    [
        ("1e-3", float, 1e-3),
        (3, float, 3.0),
        (3, int | None, 3),
        (None, int | None, None),
        ("none", int | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ({"temperature": 0, "stop": ["a"]}, Sampling, Sampling(0.0, stop=("a",))),
        ({"floor": {"reason": "because"}}, Mixture, Mixture(floor=Waived("because"))),
        ({"floor": {"waived": "because"}}, Mixture, Mixture(floor=Waived("because"))),
        ({"floor": "anchor"}, Mixture, Mixture(floor="anchor")),
        (["pass_rate", 0.9], tuple[str, float] | None, ("pass_rate", 0.9)),
        ({"a": {"lr": 1}}, dict[str, FitPlan], {"a": FitPlan(lr=1.0)}),
        ({"a": 1}, Any, {"a": 1}),
        ([1, 2], Any, (1, 2)),
        ("data/x.jsonl", Path, Path("data/x.jsonl")),
        ("outcross.config.find:snake", Callable[[str], str], find.snake),
    ],
)
def test_values_take_the_form_their_annotation_asks_for(raw: Any, hint: Any, made: Any) -> None:
    assert bind_value(raw, hint, HERE, {}).make() == made


@pytest.mark.parametrize(
    ("raw", "hint", "told"),
    [
        ("yes", bool, "true or false"),
        (1.5, int, "a whole number"),
        (7, str, "text"),
        ({"temperature": "hot"}, Sampling, "x.temperature is 'hot'; it must be a number"),
        ({"temprature": 1}, Sampling, "did you mean 'temperature'?"),
        ({"floor": "row"}, Mixture, "x.floor is 'row'; it must be one of rows, anchor"),
        ({"floor": {"because": "x"}}, Mixture, "x.floor.because: Waived has no setting 'because'"),
        (["pass_rate"], tuple[str, float] | None, "x is ['pass_rate']"),
        ("not_a_reference", Callable, "`module:name`"),
        (3, Generator, "a generator: `{use: name, …}`"),
        ({"n": 3}, Verifier, "does not say which verifier"),
    ],
)
def test_values_that_do_not_fit_say_what_does(raw: Any, hint: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind_value(raw, hint, HERE, {})
    assert told in str(caught.value)


def test_a_path_or_a_name(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    here = Place("models.policy.path", tmp_path)
    assert bind_value("model", str | Path, here, {}).make() == tmp_path / "model"
    assert bind_value("./absent", str | Path, here, {}).make() == tmp_path / "absent"
    assert bind_value("org/model", str | Path, here, {}).make() == "org/model"


def test_a_constructor_that_refuses_is_reported_with_its_place() -> None:
    def picky(n: int) -> int:
        raise ValueError("n must be even")

    with pytest.raises(ConfigError, match=r"x: the thing refused its settings: n must be even"):
        bind_call(picky, {"n": 3}, HERE, {}, "the thing").make()


def test_further_keywords_pass_where_the_signature_takes_them() -> None:
    def open_ended(name: str, **options: int) -> dict[str, Any]:
        return {"name": name, **options}

    assert bind_call(open_ended, {"name": "a", "size": 3}, HERE, {}, "it").make() == {"name": "a", "size": 3}


def test_parameters_and_descriptions() -> None:
    assert parameters(FitPlan)["lr"].annotation is float
    assert parameters(Sampling)["max_tokens"].default == 256
    assert describe(int | None) == "a whole number or none"
    assert describe(tuple[str, ...]) == "a list of text"
    assert describe(Generator) == "a generator"


def test_plain_form_of_defaults() -> None:
    from outcross.select import Parts

    assert plain(Parts(3)) == {"use": "parts", "n": 3}
    assert plain(Mixture())["real_floor"] == 0.7
    assert plain(Sampling())["stop"] == []
    assert plain(find.snake) == "outcross.config.find:snake"
    assert plain(Path("a/b")) == "a/b"


# ── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_shipped_names_are_found_by_reading_sources() -> None:
    assert find.names(find.SELECTOR) == {name.lower(): ("outcross.select", name) for name in ("All", "Parts", "Sample")}
    assert find.find("parts", find.SELECTOR, "tasks.use", Path()).__name__ == "Parts"


@pytest.mark.parametrize("name", ["PassRate", "KLBound", "Same2Same"])
def test_snake_case_agrees_with_the_names_on_the_record(name: str) -> None:
    from outcross.stages import Stage

    assert find.snake(name) == type(name, (Stage,), {})().name


def test_an_annotation_that_only_type_checkers_see_leaves_the_others_checked() -> None:
    def thing(n: int, other: OnlyForCheckers = 3) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert parameters(thing)["n"].annotation is int
    with pytest.raises(ConfigError, match=r"x\.n is 'three'; it must be a whole number"):
        bind_call(thing, {"n": "three"}, HERE, {}, "it")
    assert bind_call(thing, {"n": 3, "other": "anything"}, HERE, {}, "it").plain["other"] == "anything"
