"""Setting aside samples with personal data, secrets or unsafe links in them, in their prompts and their answers.

A curator changes no sample: what was found is never masked, because a masked text is another text than the one that was made and verified.
Reasons show what was found without giving it away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from outcross.curate.findings import Finding, masked
from outcross.curate.links import find_links
from outcross.curate.personal import KINDS, find_personal
from outcross.curate.quality import need, sifted
from outcross.curate.secrets import find_secrets
from outcross.errors import ConfigError, did_you_mean
from outcross.stages import Context, Stage
from outcross.text import prompt_text
from outcross.types import Drop, Group, Sample


@dataclass(frozen=True)
class NoPersonalData(Stage):
    """Keeps samples without email addresses, telephone numbers, payment cards, bank accounts, US social security numbers and public internet
    addresses in any prompt or answer (see `find_personal`; names and postal addresses are not found).

    allow: kinds that may stay, for example `[internet address]`.
    region: whose telephone numbers count without a country code.

    Needs `outcross[curate]`.
    """

    allow: tuple[str, ...] = ()
    region: str = "US"
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        need("phonenumbers", "phonenumbers", self.name)
        need("stdnum", "python-stdnum", self.name)
        for kind in self.allow:
            if kind not in KINDS:
                raise ConfigError(f"{self.name}: there is no kind {kind!r} of personal data; {did_you_mean(kind, KINDS)}")
        if not (len(self.region) == 2 and self.region.isascii() and self.region.isupper()):
            raise ConfigError(f"{self.name}: region is {self.region!r}; give two capital letters (ISO 3166), such as US or DE")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        return sifted(groups, self.name, lambda sample: _why_not(sample, "personal data", self._find))

    def _find(self, text: str) -> Sequence[Finding]:
        return _without(find_personal(text, self.region), self.allow)


@dataclass(frozen=True)
class NoSecrets(Stage):
    """Keeps samples without keys, tokens and passwords in any prompt or answer (see `find_secrets`).

    allow: kinds that may stay, as reasons name them, for example `[Hex High Entropy String]` where texts quote hashes.

    Needs `outcross[curate]`.
    """

    allow: tuple[str, ...] = ()
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        need("detect_secrets", "detect-secrets", self.name)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        return sifted(groups, self.name, lambda sample: _why_not(sample, "secret", self._find))

    def _find(self, text: str) -> Sequence[Finding]:
        return _without(find_secrets(text), self.allow)


@dataclass(frozen=True)
class NoUnsafeLinks(Stage):
    """Keeps samples without unsafe links in any prompt or answer (see `find_links`)."""

    trims: ClassVar[bool] = True

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        return sifted(groups, self.name, self._why_not)

    def _why_not(self, sample: Sample) -> str | None:
        unsafe = [link for text in _said(sample) for link in find_links(text) if link.unsafe]
        return f"unsafe link: {unsafe[0].unsafe}{_more(unsafe)}" if unsafe else None


def _why_not(sample: Sample, what: str, find: Callable[[str], Sequence[Finding]]) -> str | None:
    found = [finding for text in _said(sample) for finding in find(text)]
    return f"{what}: {masked(found[0])}{_more(found)}" if found else None


def _without(findings: Iterable[Finding], kinds: Collection[str]) -> list[Finding]:
    return [finding for finding in findings if finding.kind not in kinds]


def _more(found: Sequence[object]) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""


def _said(sample: Sample) -> Iterator[str]:
    """Every prompt and every answer that is text, each once: a dialogue repeats what was said before."""
    return iter(dict.fromkeys(prompt_text(content) for turn in sample.turns for content in (turn.prompt, turn.completion.content)))
