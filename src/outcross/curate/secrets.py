"""Secrets in texts: keys, tokens and passwords, found by the rules of `detect-secrets` and some published formats that it lacks.

Only its patterns and its checks of form are used: nothing is ever sent to a service to see whether a key works. Its regular expressions are run over
the text here, because its own string interface gives the groups of a match and not where it stands.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from outcross.curate.findings import Finding, disjoint
from outcross.errors import MissingExtra

_RULES = (
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "BasicAuthDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "IbmCloudIamDetector",
    "MailchimpDetector",
    "OpenAIDetector",
    "PypiTokenDetector",
    "SendGridDetector",
    "SlackDetector",
    "SquareOAuthDetector",
    "StripeDetector",
    "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)
_FORMATS = {
    "Private Key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:(?:[^-]|-(?!----)){1,20000}+-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)?",
    "Anthropic Token": r"sk-ant-[a-z0-9]{2,10}-[\w-]{40,120}",
    "GitHub Token": r"github_pat_\w{60,100}",
    "Google API Key": r"AIza[\w-]{35}(?![\w-])",
    "Hugging Face Token": r"hf_[A-Za-z]{34}(?!\w)",
    "NPM Token": r"npm_[A-Za-z0-9]{36}(?!\w)",
    "OpenAI Token": r"sk-(?:proj|svcacct|admin)-[\w-]{40,200}",
}
# detect-secrets' pattern leaves the signature out, and takes quadratic time on “eyJeyJeyJ…”
_WEB_TOKEN = re.compile(r"eyJ[\w\-=]++(?:\.[\w\-=]++(?:\.[\w\-+/=]+)?)?", re.ASCII)
_NAMES = ("key", "pass", "pwd", "secret", "contrase")  # what detect-secrets' names of secrets have in them
_LONG = re.compile(r"(?<![\w+/=\-])[\w+/=\-]{16}|://|\bxox")  # one of these is in whatever the rules find
_ASSIGNED = re.compile(r"\s*(?:export\s+|set\s+)?[\w.\-]{2,60}\s*[:=]\s*\S+\s*")
_PLACEHOLDER = re.compile(
    r"your|example|placeholder|change.?me|dummy|redacted|(.)\1{4}|\.\.\.|\*\*|:(?:pass(?:word|wd)?|pwd|secret)@", re.IGNORECASE
)


@dataclass(frozen=True)
class _Rule:
    kind: str
    patterns: tuple[re.Pattern[str], ...]
    valid: Callable[[str], bool]
    holds: str = ""  # what stands in every match: a text without it is not searched


def find_secrets(text: str) -> list[Finding]:
    """Private keys, access keys and tokens of well-known services, JSON web tokens, passwords in addresses, assigned passwords and quoted
    random strings, in the text's order. Placeholders for passwords (“your_password_1”, “user:password@host”) are left out; what has the
    form of a service's key is found whatever it says. Raises `MissingExtra` without `outcross[curate]`.
    """
    found: list[Finding] = []
    if _LONG.search(text) or "PRIVATE KEY" in text:
        rules = _rules()
        found += [
            Finding(rule.kind, match.start(), match.end(), match[0])
            for rule in rules
            if rule.holds in text
            for pattern in rule.patterns
            for match in pattern.finditer(text)
            if rule.valid(match[0])
        ]
        found += _random(text)
    if _named(text):
        found += _assigned(text)
    return disjoint(found)


def _random(text: str) -> Iterator[Finding]:
    """Quoted strings with more entropy per character than words or names have; 20 characters or more, since a shorter hash says little."""
    if not ('"' in text or "'" in text):
        return
    for plugin in _entropies():
        for match in plugin.regex.finditer(text):
            value = match[2]
            if (
                len(value) >= 20
                and _mixed(value)
                and plugin.calculate_shannon_entropy(value) > plugin.entropy_limit
                and _secret_like(value)
            ):
                yield Finding(plugin.secret_type, match.start(2), match.end(2), value)


def _assigned(text: str) -> Iterator[Finding]:
    """Values given to something called a key or a password: quoted ones, and unquoted ones when the line is nothing but the assignment."""
    from_code, from_settings = _keywords()
    start = 0
    for whole in text.splitlines(keepends=True):
        line = whole.rstrip()
        if len(line) <= 1000 and _named(line):
            patterns = from_settings if _ASSIGNED.fullmatch(line) else from_code
            for pattern, group in patterns.items():
                match = pattern.search(line)
                if match and len(match[group]) >= 8 and _telling(match[group]):
                    yield Finding("Secret Keyword", start + match.start(group), start + match.end(group), match[group])
                    break
        start += len(whole)


def _named(text: str) -> bool:
    lowered = text.lower()
    return any(name in lowered for name in _NAMES)


def _telling(value: str) -> bool:
    """Whether an assigned value is a secret and no word, call or description."""
    return _mixed(value) and not re.search(r"[\s()\[\]{}<>]", value) and _secret_like(value)


def _mixed(value: str) -> bool:
    return bool(re.search(r"\d", value) and re.search(r"[A-Za-z]", value))


def _secret_like(value: str) -> bool:
    heuristic = _heuristics()
    return not (
        _PLACEHOLDER.search(value)
        or heuristic.is_sequential_string(value)
        or heuristic.is_potential_uuid(value)
        or heuristic.is_templated_secret(value)
        or heuristic.is_prefixed_with_dollar_sign(value)
    )


@functools.cache
def _rules() -> tuple[_Rule, ...]:
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    except ImportError:
        raise _missing() from None
    known = {plugin.__name__: plugin for plugin in get_mapping_from_secret_type_to_class().values()}
    packaged = [known[name]() for name in _RULES]
    own = tuple(_Rule(kind, (re.compile(pattern),), _always) for kind, pattern in _FORMATS.items())
    well_formed = known["JwtTokenDetector"].is_formally_valid
    token = _Rule("JSON Web Token", (_WEB_TOKEN,), lambda value: "." in value and well_formed(".".join(value.split(".")[:2])))
    checks = {"Basic Auth Credentials": _no_placeholder}
    holds = {"OpenAI Token": "T3BlbkFJ"}  # its pattern takes quadratic time on “sk-sk-sk-…”
    return (
        *own,
        token,
        *(
            _Rule(one.secret_type, tuple(one.denylist), checks.get(one.secret_type, _always), holds.get(one.secret_type, ""))
            for one in packaged
        ),
    )


@functools.cache
def _entropies() -> tuple[Any, ...]:
    try:
        from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString, HexHighEntropyString
    except ImportError:
        raise _missing() from None
    return (HexHighEntropyString(), Base64HighEntropyString())


@functools.cache
def _keywords() -> tuple[dict[re.Pattern[str], int], dict[re.Pattern[str], int]]:
    try:
        from detect_secrets.plugins.keyword import CONFIG_DENYLIST_REGEX_TO_GROUP, QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP
    except ImportError:
        raise _missing() from None
    return QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP, CONFIG_DENYLIST_REGEX_TO_GROUP


@functools.cache
def _heuristics() -> Any:
    try:
        from detect_secrets.filters import heuristic
    except ImportError:
        raise _missing() from None
    return heuristic


def _missing() -> MissingExtra:
    return MissingExtra("detect-secrets", "curate", "finding secrets")


def _no_placeholder(value: str) -> bool:
    return not _PLACEHOLDER.search(value)


def _always(_: str) -> bool:
    return True
