"""Cutting documents: nothing is lost, nothing is too long, headings lead, code stays whole, and memory stays flat."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.errors import ConfigError
from outcross.tasks.blocks import MOST, Block, markdown_blocks, page_blocks, plain_blocks
from outcross.tasks.chunks import Chunk, Limits, chunks

GUIDE = """---
title: "The guide"
---
# Guide

A first sentence. A second one follows it.

## Install
### Linux

Use the manager.

```sh
# no heading
pm update

pm install it
```

Windows
-------

Use the installer. It has many pages. Read none of them.
"""


def cut(text: str, limits: Limits) -> list[Chunk]:
    return list(chunks(markdown_blocks(text.splitlines(keepends=True)), limits))


_BLOCKS = (
    "# A\n",
    "## B c\n",
    "#### \n",
    "\n",
    "\n\n\n",
    "```py\nx = 1\n\ny\n```\n",
    "```\nunclosed ",
    "~~~\na\n~~~\n",
    "    code\n",
    "---\n",
    "===\n",
)
_TEXTS = ("word ", "A sentence. ", "Why?) ", "verylongword" * 4, "line\n", "title: x\n", "é。日本語。", "\r\n", "\t", "\ufeff", "🙂")
pieces = st.sampled_from((*_BLOCKS, *_TEXTS))
documents = st.lists(pieces | st.text(max_size=12), max_size=30).map("".join)
limits_ = st.integers(1, 60).flatmap(
    lambda size: st.builds(Limits, st.just(size), st.sampled_from(["characters", "words"]), st.integers(0, size // 2), st.integers(0, size))
)


@settings(max_examples=300, deadline=None)
@given(documents, limits_, st.sampled_from([markdown_blocks, plain_blocks]))
def test_the_bodies_of_all_chunks_are_the_document_and_none_is_too_long(text: str, limits: Limits, read: object) -> None:
    lines = text.splitlines(keepends=True)
    blocks = list(read(lines))  # type: ignore[operator]
    found = list(chunks(blocks, limits))
    assert "".join(block.text for block in blocks) == text
    assert "".join(chunk.body for chunk in found) == text
    assert all(limits.length(chunk.text.strip()) <= limits.size for chunk in found)
    if not limits.overlap:
        assert all(chunk.text == chunk.body for chunk in found)


def test_headings_begin_chunks_and_lead_to_them() -> None:
    found = cut(GUIDE, Limits(2000))
    assert [(chunk.trail, chunk.text.strip().splitlines()[0]) for chunk in found] == [
        (("Guide",), "---"),
        (("Guide", "Install", "Linux"), "## Install"),
        (("Guide", "Windows"), "Windows"),
    ]
    assert {chunk.title for chunk in found} == {"The guide"}
    assert "```sh\n# no heading\npm update\n\npm install it\n```" in found[1].text


def test_a_deeper_heading_after_a_higher_one_forgets_what_was_below() -> None:
    found = cut("# A\na\n### C\nc\n## B\nb\n# D #\nd\n", Limits(100))
    assert [chunk.trail for chunk in found] == [("A",), ("A", "C"), ("A", "B"), ("D",)]


def test_text_is_cut_after_sentences_then_words_and_then_anywhere() -> None:
    found = [chunk.body for chunk in cut("One sentence here. Another one there. And so on and on.\n", Limits(30))]
    assert found == ["One sentence here. ", "Another one there. ", "And so on and on.\n"]
    assert [chunk.body for chunk in cut("aaaa bbbb cccc\n", Limits(9))] == ["aaaa bbbb", " cccc\n"]
    assert [chunk.body for chunk in cut("abcdefghij", Limits(4))] == ["abcd", "efgh", "ij"]
    assert [chunk.body for chunk in cut("a b c d e", Limits(2, "words"))] == ["a b ", "c d ", "e"]


def test_code_is_cut_only_when_it_does_not_fit_and_then_between_lines() -> None:
    code = "```\n" + "".join(f"line {i}\n" for i in range(8)) + "```\n"
    whole = cut("Before it. " * 5 + "\n\n" + code, Limits(90))
    assert whole[-1].body == code
    parts = [chunk.body for chunk in cut(code, Limits(30))]
    assert len(parts) > 2 and all(part.endswith("\n") for part in parts)


def test_an_overlap_is_the_end_of_the_chunk_before_in_whole_words_and_never_crosses_a_heading() -> None:
    found = cut("# A\n" + "alpha beta gamma delta. " * 8 + "\n# B\nomega\n", Limits(60, overlap=12))
    for before, after in pairwise(found[:-1]):
        shared = after.text.removesuffix(after.body)
        assert shared and before.body.endswith(shared) and len(shared) <= 12 and not before.body.removesuffix(shared)[-1:].isalnum()
    assert found[-1].text == "# B\nomega\n"
    words = list(chunks(plain_blocks(["a b c d e f g h\n"]), Limits(4, "words", overlap=2)))
    assert [chunk.text.split() for chunk in words] == [list("ab"), list("abcd"), list("cdef"), list("efgh")]


def test_short_sections_are_joined_up_to_least_and_a_heading_never_ends_a_chunk() -> None:
    text = "# A\n" + "".join(f"## S{i}\nshort {i}.\n" for i in range(6))
    assert len(cut(text, Limits(60))) == 6
    joined = cut(text, Limits(60, least=30))
    assert len(joined) == 3 and joined[1].trail == ("A",)
    assert all(not chunk.text.rstrip().splitlines()[-1].startswith("#") for chunk in joined)


def test_pages_are_sections() -> None:
    found = list(chunks(page_blocks(["one", "two"]), Limits(100)))
    assert [(chunk.trail, chunk.text) for chunk in found] == [(("page 1",), "one\n"), (("page 2",), "two\n")]


@pytest.mark.parametrize("wrong", [{"size": 0}, {"overlap": 6}, {"overlap": -1}, {"least": 11}, {"unit": "tokens"}])
def test_limits_that_cannot_be_kept_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"documents: (size|unit)"):
        Limits(**{"size": 10, **wrong})  # type: ignore[arg-type]


def test_a_paragraph_or_a_fence_without_end_comes_in_parts() -> None:
    def endless(first: str) -> Iterator[str]:
        yield first
        for _ in range(3 * MOST // 10):
            yield "123456789\n"

    for first, kind in (("text\n", "text"), ("```\n", "fence")):
        blocks: list[Block] = list(markdown_blocks(endless(first)))
        assert len(blocks) >= 3 and {block.kind for block in blocks} == {kind} and max(len(block.text) for block in blocks) <= MOST


def test_blank_lines_and_front_matter_alone_are_kept() -> None:
    for text in ("", "\n\n", "---\ntitle: x\n---\n", "# only a heading\n", "---\n\nafter a rule\n"):
        assert "".join(chunk.body for chunk in cut(text, Limits(random.Random(text).randint(3, 50)))) == text
