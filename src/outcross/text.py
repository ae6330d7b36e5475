"""Text as sets: normalising, n-gram hashing and matching. The engine decontaminates with it; curators reuse it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from outcross.types import Prompt

_WORD = re.compile(r"\w+", re.UNICODE)


def prompt_text(prompt: Prompt) -> str:
    """What a prompt says, as one text: the contents of its messages joined by newlines; empty for arrays."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, tuple):
        return "\n".join(message.content for message in prompt)
    return ""


def words(text: str) -> list[str]:
    """Lower-cased words and numbers; punctuation counts as space (Phi-4, arXiv:2412.08905, appendix B)."""
    return _WORD.findall(text.lower())


def normalise(text: str) -> str:
    """Unicode text with case folded and runs of white space as one space: equal up to layout means equal."""
    return " ".join(text.casefold().split())


def digest(text: str) -> int:
    """64 bits of BLAKE2b of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def ngrams(text: str, n: int) -> set[int]:
    """Hashes of all word n-grams of a text; empty when it has fewer than `n` words."""
    found = words(text)
    return {digest(" ".join(found[i : i + n])) for i in range(len(found) - n + 1)}


class HeldOutIndex:
    """Which texts stand in the held-out set: by equality up to layout, or by a shared 13-gram of words.

    `n` = 13 is the length used by GPT-3 and Phi-4 (arXiv:2412.08905, appendix B, algorithm 1).
    """

    def __init__(self, texts: Iterable[str], n: int = 13) -> None:
        self.n = n
        self._exact: dict[str, str] = {}
        self._grams: set[int] = set()
        for text in texts:
            self._exact.setdefault(normalise(text), text)
            self._grams |= ngrams(text, n)

    def __len__(self) -> int:
        return len(self._exact)

    def match(self, text: str) -> str | None:
        """Why `text` counts as held out, or None."""
        if normalise(text) in self._exact:
            return "equals a held-out prompt"
        if self._grams and len(text) >= 2 * self.n - 1:
            found = words(text)
            for i in range(len(found) - self.n + 1):
                gram = " ".join(found[i : i + self.n])
                if digest(gram) in self._grams:
                    return f"shares the {self.n}-gram “{gram}” with a held-out item"
        return None
