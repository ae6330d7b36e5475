"""Faults that a single row shows by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator

from outcross.audit.documents import Document
from outcross.curate.findings import Finding, masked
from outcross.curate.links import find_links
from outcross.curate.personal import find_personal
from outcross.curate.repetition import repetition
from outcross.curate.secrets import find_secrets
from outcross.text import normalise

# UTF-8 read as Windows-1252 (“â€™”, “Ã©”), the sign for what could not be read, and control characters
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_GARBLED = re.compile(f"â€|Ã[\x80-\xbf©¨¼¶¤±³¡­]|Â[\xa0-\xbf]|ï¿½|\ufffd|{_CONTROLS.pattern}")
_TEMPLATE = re.compile(
    r"<\|(?:im_start|im_end|endoftext|end_of_text|begin_of_text|eot_id|start_header_id|end_header_id|system|user|assistant|end)\|>"
    r"|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|^### (?:Instruction|Response|Input):|</s>",
    re.MULTILINE,
)
_STOCK = re.compile(
    r"\b(?:as an? (?:ai|artificial intelligence|(?:large )?language)(?: language)? (?:model|assistant)\b"
    r"|i(?: a|')m (?:just |only )?an? (?:ai|(?:large )?language model)\b"
    r"|i (?:do not|don't) have (?:personal (?:opinions|experiences|feelings)|real-time)"
    r"|my (?:knowledge cutoff|training data (?:only )?(?:goes|was cut)))"
)
_STOCK_WORDS = (
    "language model",
    " an ai",
    "i am ai",
    "i'm ai",
    "ai assistant",
    "have personal ",
    "have real-time",
    "my knowledge",
    "my training",
)
_ENOUGH = 20  # words under which a text cannot be called repetitive
_CLEARLY = 2.0  # times Gopher's limits, which are for web pages: worked sums and dialogues repeat phrases and are sound


def faults_of(document: Document) -> Iterator[tuple[str, str]]:
    """(kind, what was found) for each fault of the row. What secrets and personal data are is told, they are not shown."""
    if not document.readable:
        yield "unreadable", "no text where the text should be"
    for piece in document.pieces:
        for finding in find_secrets(piece):
            yield "secrets", masked(finding)
        for found in find_personal(piece):
            yield "personal", masked(found)
    for text in document.texts:
        for link in find_links(text):
            if link.unsafe:
                yield "links", f"{link.text:.80} {link.unsafe}"
        if ("<" in text or "INST]" in text or "###" in text) and (match := _TEMPLATE.search(text)):
            yield "template", f"“{match[0].strip()}”"
        if match := (_CONTROLS if text.isascii() else _GARBLED).search(text):
            yield "garbled", f"{match[0]!r} at character {match.start() + 1}"
    answer = document.answer or document.prompt
    lowered = answer.lower()
    if any(word in lowered for word in _STOCK_WORDS) and (match := _STOCK.search(lowered)):
        yield "boilerplate", f"“{match[0]}”"
    if document.rejected and normalise(document.rejected) == normalise(document.answer):
        yield "tie", "the two answers are the same"
    if answer.count(" ") + answer.count("\n") >= _ENOUGH:
        for name, value, limit in repetition(answer).above():
            if value > min(_CLEARLY * limit, 0.9):
                yield "repetition", f"{name}: {value:.0%}, Gopher's limit is {limit:.0%}"
                break


def masker(kinds: Collection[str]) -> Callable[[str], str]:
    """What replaces the passages of `secrets` and `personal` in a text by their kind, “[email]”, until none is found any more."""

    def change(text: str) -> str:
        for _ in range(4):
            found = [*(find_secrets(text) if "secrets" in kinds else ()), *(find_personal(text) if "personal" in kinds else ())]
            if not found:
                break
            text = redacted(text, found)
        return text

    return change


def redacted(text: str, findings: Iterable[Finding]) -> str:
    """The text with the kind of each finding in its place, as “[email]”. The findings are of this very text; overlapping ones are one gap."""
    pieces: list[str] = []
    done = 0
    for one in sorted(findings, key=lambda one: (one.start, -one.end)):
        if one.start >= done:
            pieces += [text[done : one.start], f"[{one.kind}]"]
        done = max(done, one.end)
    return "".join([*pieces, text[done:]])


SHOWN = masker(("secrets", "personal"))
"""How a text is shown to people."""
