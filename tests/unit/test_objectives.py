"""Imitate learns what passed, and nothing that failed, broke or was never looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import context, failed, group, sample, score

from outcross.errors import ConfigError
from outcross.train.objectives import Imitate
from outcross.types import Group


def learnt(objective: Imitate, *samples: Any) -> list[object]:
    return [example.completion for example in objective(context(Path()), [group(*samples)])]


GRADED = [
    sample("mid", 0, scores=(score("fail", 0.6),)),
    sample("best", 1, scores=(score("pass", 1.0),)),
    sample("also best", 2, scores=(score("pass", 1.0),)),
    sample("low", 3, scores=(score("fail", 0.1),)),
    sample("broken", 4, scores=(score("error"),)),
    sample("unsure", 5, scores=(score("pass", 1.0), score("abstain", None, "other"))),
    sample("unseen", 6),
    failed(7),
]


def test_only_what_passed_is_learnt() -> None:
    assert learnt(Imitate(), *GRADED) == ["best", "also best"]


def test_unverified_samples_are_learnt_only_when_that_is_said() -> None:
    assert learnt(Imitate(), "a", "b", failed(9)) == []
    assert learnt(Imitate(require_verified=False), "a", failed(9), "b") == ["a", "b"]
    assert learnt(Imitate(require_verified=False), *GRADED) == ["best", "also best", "unseen"]


def test_a_threshold_chooses_by_value() -> None:
    assert learnt(Imitate(threshold=0.5), *GRADED) == ["mid", "best", "also best"]


def test_best_of_takes_the_highest_values_and_caps_take_the_first() -> None:
    assert learnt(Imitate(best_of=1), *GRADED) == ["best"]
    assert learnt(Imitate(threshold=0.0, best_of=3), *GRADED) == ["best", "also best", "mid"]
    assert learnt(Imitate(per_task=1), *GRADED) == ["best"]
    assert [Imitate(best_of=1).uses_peers, Imitate(per_task=1).uses_peers, Imitate().uses_peers] == [True, False, False]


def test_an_example_names_its_sample_and_inherits_its_origin() -> None:
    one = sample("4", scores=(score("pass", 1.0),))
    (example,) = Imitate()(context(Path()), [group(one, subgroup="easy")])
    assert (example.prompt, example.completion, example.loss.name, example.weight, example.subgroup) == ("2+2=", "4", "nll", 1.0, "easy")
    origin = example.origin
    assert (origin.kind, origin.source, origin.depth, origin.round, origin.parents) == ("synthetic", "model", 1, "phase/0000", (one.id,))
    twin = sample("4", 1, scores=(score("pass", 1.0),))
    assert example.id != next(Imitate()(context(Path()), [group(twin)])).id


def test_groups_are_streamed() -> None:
    taken: list[int] = []

    def source() -> Iterator[Group]:
        for index in range(3):
            taken.append(index)
            yield group(sample("4", scores=(score("pass", 1.0),)))

    examples = Imitate()(context(Path()), source())
    next(examples)
    assert taken == [0]


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Imitate(per_task=0)
    with pytest.raises(ConfigError, match="unverified samples lack"):
        Imitate(best_of=1, require_verified=False)
