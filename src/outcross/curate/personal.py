"""Personal data in texts, found by form and check digits.

Each candidate is checked by a packaged rule: telephone numbers by `phonenumbers` (the numbering plans of all countries), bank accounts,
payment cards and US social security numbers by `python-stdnum`. Names, addresses and dates of birth have no form and are not found. Presidio
and scrubadub find some of those; the first brings spaCy and a model to be downloaded, the second pins textblob and dateparser and finds the rest
with the two packages used here.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from outcross.curate.findings import Finding, disjoint
from outcross.errors import MissingExtra

KINDS = ("email", "telephone number", "payment card", "bank account", "social security number", "internet address")
_ANY = re.compile(r"@|\d(?:[ ().\-/]{0,3}\d){6,}|\d\.\d{1,3}\.\d{1,3}\.\d|[0-9a-fA-F]:[0-9a-fA-F:]{5}")
_EMAIL = re.compile(r"(?<![\w.+%@/-])[\w+%-][\w.+%-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w@-]|:[\w/])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_CARD = re.compile(r"(?<![\w.,$])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}|3\d{3}([ -]?)\d{6}\2\d{5})(?![\w]|[.,]\d)")
_ISSUED = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|35(?:2[89]|[3-8])|6(?:011|4[4-9]|5)")
_SSN = re.compile(r"(?<![\w.-])\d{3}-\d{2}-\d{4}(?![\w-])")
_IP = re.compile(
    r"(?<![\w.:])(?<![Vv]ersion )(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,6})(?![\w:]|\.\d)"
)
_MANY = re.compile(r"(?:\d[ ().\-/]{0,3}){6,}\d")
_RESULT = re.compile(r"\s{0,3}[=*×÷]")  # after a number, and before one:
_TERM = re.compile(r"[\d)]\s{0,3}[=*×÷]\s{0,3}$")
_RESERVED = re.compile(r"@(?:.*\.)?(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)$", re.IGNORECASE)


def find_personal(text: str, region: str = "US") -> list[Finding]:
    """Email addresses, telephone numbers, payment cards, bank accounts (IBAN), US social security numbers and public internet addresses,
    in the text's order.

    `region`: whose telephone numbers count without a country code (ISO 3166, two letters). Reserved addresses are nobody's and are left out
    (example.com, RFC 2606; 192.0.2.0/24, RFC 5737; 555-0100 to 555-0199 in North America), and so are telephone numbers written as one run of
    digits or beside a sign of a sum. Raises `MissingExtra` without `outcross[curate]`.
    """
    if not _ANY.search(text):
        return []
    return disjoint([*_emails(text), *_numbered(text), *_addresses(text), *_phones(text, region)])


def _emails(text: str) -> Iterator[Finding]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if not _RESERVED.search(match[0]):
                yield _finding("email", match)


def _numbered(text: str) -> Iterator[Finding]:
    """What has check digits or a plan of its own."""
    iban, luhn, ssn = _checks()
    for match in _IBAN.finditer(text):
        if iban.is_valid(match[0]):
            yield _finding("bank account", match)
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _ISSUED.match(digits) and luhn.is_valid(digits):
            yield _finding("payment card", match)
    for match in _SSN.finditer(text):
        if ssn.is_valid(match[0]):
            yield _finding("social security number", match)


def _addresses(text: str) -> Iterator[Finding]:
    for match in _IP.finditer(text):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if address.is_global and not address.is_multicast:
            yield _finding("internet address", match)


def _phones(text: str, region: str) -> Iterator[Finding]:
    if not _MANY.search(text):
        return
    phonenumbers = _plans()
    for match in phonenumbers.PhoneNumberMatcher(text, region):
        number = match.number
        fictional = number.country_code == 1 and str(number.national_number)[3:8] == "55501"
        if not (match.raw_string.isdigit() or fictional or _in_a_sum(text, match.start, match.end)):
            yield Finding("telephone number", match.start, match.end, match.raw_string)


def _in_a_sum(text: str, start: int, end: int) -> bool:
    """Whether a run of digits is a term: “28980 - 18480 = 10500”."""
    return bool(_RESULT.match(text, end) or _TERM.search(text, max(0, start - 8), start))


def _finding(kind: str, match: re.Match[str]) -> Finding:
    return Finding(kind, match.start(), match.end(), match[0])


@functools.cache
def _checks() -> tuple[Any, Any, Any]:
    try:
        from stdnum import iban, luhn
        from stdnum.us import ssn
    except ImportError:
        raise MissingExtra("python-stdnum", "curate", "finding personal data") from None
    return iban, luhn, ssn


@functools.cache
def _plans() -> Any:
    try:
        import phonenumbers
    except ImportError:
        raise MissingExtra("phonenumbers", "curate", "finding personal data") from None
    return phonenumbers
