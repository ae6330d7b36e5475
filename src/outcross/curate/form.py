"""Setting aside by the form of an answer: its length, its language, and how much it repeats itself.

All look at the last turn's answer, which is what is judged and learnt. Failed requests and answers that are no text stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.curate.language import known_languages, language_of
from outcross.curate.quality import check_band, need, outside, sifted
from outcross.curate.repetition import compression_ratio, repetition
from outcross.errors import ConfigError, did_you_mean
from outcross.stages import Context, Stage
from outcross.types import Drop, Group, Sample


@dataclass(frozen=True)
class LengthBetween(Stage):
    """Keeps answers of `low` to `high` words (what stands between white space) or characters."""

    low: int | None = 1
    high: int | None = None
    unit: Literal["words", "characters"] = "words"
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_band(self.name, self.low, self.high)
        if self.unit not in ("words", "characters"):
            raise ConfigError(f"{self.name}: unit is {self.unit!r}; allowed: words, characters")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        return sifted(groups, self.name, self._why_not)

    def _why_not(self, sample: Sample) -> str | None:
        if not isinstance(sample.content, str):
            return None
        length = len(sample.text.split()) if self.unit == "words" else len(sample.text)
        return outside("length", length, self.low, self.high, f" {self.unit}")


@dataclass(frozen=True)
class NotRepetitive(Stage):
    """Keeps answers whose repetition is under every limit of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1): duplicate lines and
    paragraphs, the most frequent 2- to 4-gram, repeated 5- to 10-grams. See `repetition` for the limits and for short texts."""

    trims: ClassVar[bool] = True

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        return sifted(groups, self.name, self._why_not)

    def _why_not(self, sample: Sample) -> str | None:
        worst = max(repetition(sample.text).above(), key=lambda one: one[1] / one[2], default=None)
        return worst and f"repetition: {worst[0]} are {worst[1]:.2f}, above {worst[2]:.2f}"


@dataclass(frozen=True)
class CompressionBetween(Stage):
    """Keeps answers that zlib makes `low` to `high` times smaller (see `compression_ratio`). 4 is above all ordinary prose and code of up to
    some thousand words that we measured and below text that goes round in circles. The ratio rises with length and differs between scripts and
    subjects, and random characters have a low one: take a `low` from texts of the same kind and length."""

    low: float | None = None
    high: float | None = 4.0
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_band(self.name, self.low, self.high)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        return sifted(groups, self.name, self._why_not)

    def _why_not(self, sample: Sample) -> str | None:
        return outside("compression ratio", compression_ratio(sample.text), self.low, self.high) if sample.text else None


@dataclass(frozen=True)
class InLanguage(Stage):
    """Keeps answers in one of `languages` (ISO 639 codes, such as en), and those too short to tell.

    sure: the probability of another language from which an answer is set aside.
    letters: answers with fewer stay: names, formulae and single words are put anywhere (`language_of`).

    Needs `outcross[curate]`.
    """

    languages: tuple[str, ...]
    sure: float = 0.9
    letters: int = 60
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        need("py3langid", "py3langid", self.name)
        if not self.languages:
            raise ConfigError(f"{self.name}: languages is {self.languages!r}; give a list of ISO 639 codes, such as [en, de]")
        if not 0 < self.sure <= 1 or self.letters < 1:
            raise ConfigError(f"{self.name}: sure={self.sure}, letters={self.letters}; allowed are 0 < sure ≤ 1 and 1 letter or more")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        known = known_languages()
        for code in self.languages:
            if code not in known:
                raise ConfigError(f"{self.name}: the identifier does not know the language {code!r}; {did_you_mean(code, known)}")
        yield from sifted(groups, self.name, self._why_not)

    def _why_not(self, sample: Sample) -> str | None:
        if sum(map(str.isalpha, sample.text)) < self.letters:
            return None
        code, probability = language_of(sample.text)
        if code in self.languages or probability < self.sure:
            return None
        return f"language: {code} with probability {probability:.2f}, not {' or '.join(self.languages)}"
