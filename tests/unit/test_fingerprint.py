"""A recipe's identity: stable everywhere, sensitive to every literal, and loud about what has none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from outcross.errors import FingerprintError
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe, Waived, canonical, fingerprint
from outcross.select import Parts
from outcross.stages import FitPlan
from outcross.types import Loss, Task


@dataclass(frozen=True)
class Thing:
    value: Any
    version = "1"


def named(prompts: list[str]) -> list[float]:
    return [1.0 for _ in prompts]


GOLDEN = {
    "mixture": (Mixture(), "e5d962226e27ceeba51e8d66457fcad8"),
    "plan": (FitPlan(lr=3e-4), "388edbc22824d8dbc40bdafb61d1cb76"),
    "record": ((Task("a", "1+1=", "2"), Loss("dpo", beta=0.1)), "646e65c09d7a85e3921634edc0211bac"),
    "plain": ([1, 0.1, "é", None, True, {"b": 1, "a": (2,)}, frozenset({3, 1})], "9d3e0324b15e186e51a27c2a7b4c339d"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_fingerprints_never_change(name: str) -> None:
    value, expected = GOLDEN[name]
    assert fingerprint(value) == expected


def test_fingerprints_are_the_same_under_another_hash_seed() -> None:
    code = "from outcross.recipe import fingerprint; print(fingerprint([frozenset('abcdef'), {'x': 0.1, 'y': 2}]))"
    found = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in "012"
    }
    assert len(found) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        (0.1, 0.1 + 1e-17 * 2),
        ([1], [[1]]),
        ({"a": None}, {}),
        (Mixture(), Mixture(real_floor=0.71)),
        (Mixture(floor=Waived("a")), Mixture(floor=Waived("b"))),
        (Parts(2), Parts(3)),
    ],
)
def test_what_differs_has_another_fingerprint(one: Any, other: Any) -> None:
    if one == other and type(one) is type(other):
        assert fingerprint(one) == fingerprint(other)
    else:
        assert fingerprint(one) != fingerprint(other)


def test_a_stage_that_changes_its_version_is_another_stage() -> None:
    later = type("Thing", (Thing,), {"version": "2", "__module__": Thing.__module__, "__qualname__": "Thing"})
    assert fingerprint(Thing(1)) != fingerprint(later(1))


def test_every_part_of_a_recipe_counts() -> None:
    def recipe(**changes: Any) -> Recipe:
        bench = Bench((Task("t", "p"),), (Task("h", "q"),), (), (), Thing("gate"))  # type: ignore[arg-type]
        phase = Phase("train", Thing("draw"), {"policy": Learn(Thing("imitate"))})  # type: ignore[arg-type]
        return Recipe("r", "paper", bench, (replace(phase, **changes),))

    variants = [
        recipe(),
        recipe(rounds=2),
        recipe(mix=Mixture(budget=3)),
        recipe(verify=(Thing("v"),)),
        recipe(learn={"policy": Learn(Thing("imitate"), FitPlan(lr=1.0))}),
    ]
    assert len({fingerprint(item) for item in variants}) == len(variants)


def test_a_function_is_its_source() -> None:
    assert canonical(Thing(named))["value"]["function"] == "named"
    assert fingerprint(Thing(named)) == fingerprint(Thing(named))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"recipe\.value is <object.* has no stable serialisation"),
        (Path("data.jsonl"), r"recipe\.value is .*data\.jsonl.* name the data by its content"),
        (float("nan"), r"recipe\.value is nan; use a finite number"),
        ([1, {"deep": {2: 3}}], r"recipe\.value\[1\]\['deep'\] has the key 2 of type int"),
        (lambda x: x, r"recipe\.value is a lambda"),
    ],
)
def test_a_value_without_identity_is_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(FingerprintError, match=message):
        fingerprint(Thing(value))


def test_a_function_that_captures_is_refused_by_name() -> None:
    threshold = 3

    def captures(x: int) -> bool:
        return x > threshold

    with pytest.raises(FingerprintError, match="captures threshold from outside"):
        fingerprint(Thing(captures))


def test_data_is_known_by_its_own_identity() -> None:
    class File:
        def __init__(self, path: str, digest: str) -> None:
            self.path, self.digest = path, digest

        def identity(self) -> object:
            return self.digest

    assert fingerprint(File("a", "1")) == fingerprint(File("b", "1"))
    assert fingerprint(File("a", "1")) != fingerprint(File("a", "2"))
