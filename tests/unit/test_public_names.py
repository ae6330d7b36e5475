"""The public names: pinned, few, loaded on first use."""

from __future__ import annotations

import importlib

import pytest

import outcross

NAMES = [
    "All",
    "Ask",
    "Bench",
    "Budget",
    "Canary",
    "Comparison",
    "Completion",
    "Context",
    "Decision",
    "Dialogue",
    "Drop",
    "Example",
    "FitPlan",
    "Group",
    "Learn",
    "Loss",
    "Measurement",
    "Message",
    "Mixture",
    "Origin",
    "OutcrossError",
    "Parts",
    "Phase",
    "Recipe",
    "Request",
    "Response",
    "Run",
    "Sample",
    "Sampling",
    "Score",
    "Stage",
    "Task",
    "Turn",
    "Waived",
    "fingerprint",
    "open",
    "run",
]


def test_the_public_names_are_these() -> None:
    assert outcross.__all__ == sorted(NAMES)
    assert len(NAMES) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_the_object_of_its_module(name: str) -> None:
    found = getattr(outcross, name)
    home = importlib.import_module(outcross._PLACES[name])
    assert found is getattr(home, name)
    assert name in dir(outcross)


def test_every_public_name_says_what_it_is() -> None:
    defined = [name for name in NAMES if name != "Dialogue"]  # an alias, explained where it stands
    undocumented = [name for name in defined if not (getattr(outcross, name).__doc__ or "").strip()]
    assert undocumented == []


def test_another_name_is_refused_as_usual() -> None:
    with pytest.raises(AttributeError, match="module 'outcross' has no attribute 'rnu'"):
        _ = outcross.rnu  # type: ignore[attr-defined]
