"""Which language a text is in."""

from __future__ import annotations

import functools
import math
from typing import Any

from outcross.errors import MissingExtra

_LONGEST = 600  # characters looked at: more hardly change anything and cost time


def language_of(text: str) -> tuple[str, float]:
    """The ISO 639 code of a text's language and its probability, by py3langid, whose model is in its package.

    ("und", 0.0) for a text without letters. The probability is the classifier's own and is near 1 for most sentences; a few words, names
    or formulae are often put anywhere, so ask for a length before believing it. Raises `MissingExtra` without `outcross[curate]`.
    """
    seen = text[:_LONGEST]
    if not any(map(str.isalpha, seen)):
        return "und", 0.0
    code, probability = _identifier().classify(seen)
    probability = float(probability)
    return str(code), 0.0 if math.isnan(probability) else probability


def known_languages() -> frozenset[str]:
    """The codes that `language_of` can give, besides *und*. Raises `MissingExtra` without `outcross[curate]`."""
    return frozenset(map(str, _identifier().labels))


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingExtra("py3langid", "curate", "telling languages apart") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
