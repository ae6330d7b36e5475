"""Links in texts, and what makes some of them unsafe to repeat: a model that learns them will write them."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_LINK = re.compile(
    r"(?i)(?<![\w.])(?:(?:https?|ftp|file)://|www\.)[^\s<>\"“”`{}|\\^]+|\b(?:javascript|vbscript):[^\s<>\"]+|\bdata:(?:text|application|image/svg)[^\s<>\",]*,[^\s<>\"]+"
)
_MARKDOWN = re.compile(r"\[([^\[\]]{3,200})\]\($")
_HOST = re.compile(r"(?i)^(?:https?://)?((?:[\w-]+\.)+[a-z]{2,})(?:[/:?#]\S*)?$")
_OPENED = {")": "(", "]": "["}
_SCRIPTS = frozenset({"javascript", "vbscript", "data", "file"})
_PROGRAMS = re.compile(r"apk|app|bat|cmd|com|cpl|deb|dll|dmg|exe|hta|jar|js|lnk|msi|pif|pkg|ps1|reg|rpm|scr|sh|vbs|wsf|xpi")
_ARCHIVES = re.compile(r"7z|ace|arj|bz2|cab|gz|img|iso|rar|tar|tgz|xz|zip")
_SHORTENERS = re.compile(
    r"(?:www\.)?(?:adf\.ly|bit\.do|bit\.ly|bl\.ink|buff\.ly|clck\.ru|cutt\.ly|goo\.gl|is\.gd|lnkd\.in|ow\.ly|qr\.ae|rb\.gy"
    r"|rebrand\.ly|s\.id|shorturl\.at|shorte\.st|soo\.gd|t\.co|t\.ly|tiny\.cc|tinyurl\.com|tr\.im|trib\.al|u\.to|v\.gd|x\.co)"
)
# Letters of other scripts that look like Latin ones: the small alphabet of Unicode's confusables (UTS 39) that domain names have been faked with.
_LOOKALIKES = frozenset("аԁеһіјӏорԛѕսԝхуѵɡοαν")


@dataclass(frozen=True, slots=True)
class Link:
    """A link at `text[start:end]`; `unsafe` says what is wrong with it, or is empty."""

    text: str
    start: int
    end: int
    unsafe: str = ""


def find_links(text: str) -> list[Link]:
    """Every link of a text in order, and why it is unsafe: a script or data instead of an address, a bare internet address for a host, a
    user name or password in it, letters of several scripts or look-alikes in the host, a shortener that hides the target, a file that runs or
    unpacks, or a Markdown label that names another host than the link's. What a link leads to is never asked.
    """
    if ":" not in text and "www." not in text.lower():
        return []
    found = []
    for match in _LINK.finditer(text):
        link = _trimmed(match[0])
        found.append(Link(link, match.start(), match.start() + len(link), _unsafe(link) or _mislabelled(text, match.start(), link)))
    return found


def _trimmed(link: str) -> str:
    """Without the punctuation of the sentence around it, and without a bracket that it does not open."""
    while link and (link[-1] in ".,;:!?'*_~’»" or (link[-1] in _OPENED and link.count(link[-1]) > link.count(_OPENED[link[-1]]))):
        link = link[:-1]
    return link


def _unsafe(link: str) -> str:
    scheme = link.split(":", 1)[0].lower()
    if scheme in _SCRIPTS:
        return f"runs or opens what it holds: {scheme}: is no web address"
    try:
        parts = urlsplit(link if "://" in link else f"//{link}")
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return "is no valid address"
    if parts.username is not None:
        return "has a user name or password in it"
    if _is_address(host):
        return f"has the bare internet address {host} for a host"
    if faked := _faked(host):
        return faked
    if _SHORTENERS.fullmatch(host):
        return f"hides its target behind the shortener {host}"
    return _file(parts)


def _file(parts: SplitResult) -> str:
    """What the path ends in."""
    name = parts.path.rsplit("/", 1)[-1].lower()
    stem, dot, ending = name.rpartition(".")
    if dot and stem and _PROGRAMS.fullmatch(ending):
        return f"leads to a program (.{ending})"
    return f"leads to an archive (.{ending})" if dot and stem and _ARCHIVES.fullmatch(ending) else ""


def _is_address(host: str) -> bool:
    """Also as one number (http://3232235777) or in hexadecimal: browsers take both."""
    if re.fullmatch(r"\d{8,10}|0x[0-9a-f]{8}", host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _faked(host: str) -> str:
    """Whether a label of the host mixes scripts or is all look-alikes of Latin letters."""
    for label in host.split("."):
        shown = label
        if label.startswith("xn--"):
            try:
                shown = label.encode("ascii").decode("idna")
            except UnicodeError:
                return f"has a host with broken punycode ({label})"
        if shown.isascii():
            continue
        letters = {letter for letter in shown if letter.isalpha()}
        scripts = {_script(letter) for letter in letters} - {"OTHER"}
        if "LATIN" in scripts and len(scripts) > 1:
            return f"mixes {' and '.join(sorted(map(str.capitalize, scripts)))} letters in its host ({shown})"
        if letters <= _LOOKALIKES:
            return f"has a host of letters that look like Latin ones ({shown})"
    return ""


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "OTHER").split(" ")[0]
    return name if name in ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE") else "OTHER"


def _mislabelled(text: str, start: int, link: str) -> str:
    """“[bank.com](https://other.org)”: the reader is told one host and sent to another."""
    label = _MARKDOWN.search(text[max(0, start - 210) : start])
    named = _HOST.match(label[1].strip()) if label else None
    if named is None:
        return ""
    told = named[1].lower().removeprefix("www.")
    host = (urlsplit(link if "://" in link else f"//{link}").hostname or "").removeprefix("www.")
    return "" if host == told or host.endswith(f".{told}") else f"is labelled {told} and leads to {host}"
