"""Paraphrases of held-out items are found by their vectors, with both texts in the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import context, failed, group

from outcross.curate.decontaminate import DecontaminateOverlap
from outcross.curate.semantic_decontaminate import SemanticDecontaminate
from outcross.errors import ConfigError, DataError
from outcross.stages import Context
from outcross.types import Drop, Group, Task

CONCEPTS = (
    ("car", "automobile", "vehicle"),
    ("fast", "quick", "speed"),
    ("river", "stream"),
    ("cook", "boil"),
    ("egg", "eggs"),
    ("long", "minutes"),
)


@dataclass(frozen=True)
class Thesaurus:
    """A number per concept: how often one of its words occurs."""

    asked: list[str]
    id: str = "thesaurus"
    depth: int = 0

    def close(self) -> None: ...

    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        for text in texts:
            self.asked.append(text)
            spoken = text.lower().replace("?", "").split()
            yield [0.1, *(float(sum(word in concept for word in spoken)) for concept in CONCEPTS)]


TASKS = (Task("eggs", "How long do I boil an egg?"), Task("cars", "How fast is this car?", "Quick " * 13))


def seen(tmp_path: Path) -> tuple[Context, list[str]]:
    asked: list[str] = []
    return context(tmp_path, {"embedder": Thesaurus(asked)}), asked


def split(found: Iterable[Group | Drop]) -> tuple[list[str], list[str]]:
    items = list(found)
    kept = [one.text for item in items if isinstance(item, Group) for one in item.samples]
    return kept, [item.reason for item in items if isinstance(item, Drop)]


def test_a_paraphrase_without_a_common_word_is_found_and_both_texts_are_printed(tmp_path: Path) -> None:
    paraphrase = "What speed has that automobile"
    given = group("Streams have fish: river river", paraphrase, "", failed(5), prompt="Say something about a river")
    assert split(DecontaminateOverlap(TASKS)(context(tmp_path), [given]))[1] == [], "n-grams have nothing to find"
    kept, reasons = split(SemanticDecontaminate(TASKS)(seen(tmp_path)[0], [given]))
    assert kept == ["Streams have fish: river river", "", ""]
    assert reasons == [f"contaminated in meaning: cosine 1.00 of “{paraphrase}” with item cars, “How fast is this car?”"]


def test_prompts_and_long_answers_count_too(tmp_path: Path) -> None:
    stage = SemanticDecontaminate(TASKS)
    kept, (reason,) = split(stage(seen(tmp_path)[0], [group("no", "yes", prompt="How many minutes do you cook eggs")]))
    assert kept == [] and "with item eggs" in reason
    assert "with item cars, “Quick " in split(stage(seen(tmp_path)[0], [group("speed speed speed", prompt="river")]))[1][0]
    half = group("a vehicle", prompt="river")  # cosine with "How fast is this car?" is 1 / √2
    assert split(stage(seen(tmp_path)[0], [half]))[1] == []
    assert len(split(SemanticDecontaminate(TASKS, threshold=0.7)(seen(tmp_path)[0], [half]))[1]) == 1


def test_the_items_are_embedded_once(tmp_path: Path) -> None:
    stage = SemanticDecontaminate(TASKS)
    for round_, expected in enumerate((1, 0)):
        ctx, asked = seen(tmp_path)
        split(stage(ctx, [group("fish", prompt=f"p{round_}")]))
        assert asked.count("How fast is this car?") == expected
    ctx, asked = seen(tmp_path)
    split(SemanticDecontaminate((*TASKS, Task("new", "Where is the river?")))(ctx, [group("fish", prompt="p")]))
    assert "How fast is this car?" in asked, "other items, another index"


def test_nothing_to_compare_with_and_wrong_thresholds_are_refused(tmp_path: Path) -> None:
    for tasks in ((), (Task("empty", ""),)):
        with pytest.raises(DataError, match="`tasks` has no text"):
            split(SemanticDecontaminate(tasks)(seen(tmp_path)[0], [group("a")]))
    with pytest.raises(ConfigError, match="allowed is a cosine"):
        SemanticDecontaminate(TASKS, threshold=1.5)
