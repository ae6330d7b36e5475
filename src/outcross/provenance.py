"""Rules that say where a row comes from: by what its columns name, by the day it was collected, by its file's hash or signature.

What no rule knows is of unknown origin, and unknown counts as synthetic. The first rule that holds decides. A rule that reads columns
gives *attested* origin: the row says so itself. A rule that recognises the file, byte for byte, gives *proved* origin.

    rules = (FromSource(("wikipedia", "gutenberg-*")), CollectedBefore(date(2022, 11, 30)), Registered(("9f86d0…",)))
    judge({"source": "wikipedia", "text": "…"}, rules)             # Finding("real", "attested", "source is wikipedia or gutenberg-*")
    count_by_rule(rows, rules, data_files(path))                   # {Finding(…): 812, …, NO_RULE: 40}
"""

from __future__ import annotations

import calendar
import fnmatch
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from outcross.errors import ConfigError, DataError
from outcross.types import Kind, Proof

Row = Mapping[str, object]
Claim = Literal["real", "synthetic"]
ALGORITHMS: Mapping[int, str] = {64: "sha256", 128: "blake2b"}
"""The hash functions by the number of their hexadecimal digits: SHA-256 and BLAKE2b-512."""


class Finding(NamedTuple):
    """What is known of a row's origin, and the rule that says so."""

    kind: Kind
    proof: Proof
    rule: str

    @property
    def is_real(self) -> bool:
        """Whether the row counts as real; all other rows count as synthetic."""
        return self.kind == "real" and self.proof != "none"


NO_RULE = Finding("unknown", "none", "no rule")
"""What is found of a row that no rule knows: it counts as synthetic."""


# ── rules about rows ───────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class FromSource:
    """Rows whose `column` is one of `source`, names or patterns with `*`, `?` and `[…]`; upper and lower case differ."""

    source: tuple[str, ...]
    column: str = "source"
    kind: Claim = "real"

    def __post_init__(self) -> None:
        if not self.source or not all(self.source):
            raise ConfigError(f"the rule names the sources {list(self.source)!r}; name at least one, such as wikipedia or books-*")

    @property
    def label(self) -> str:
        return f"{self.column} is {' or '.join(self.source)}"

    def test(self) -> Callable[[Row], bool]:
        """Whether a row is of one of the sources. A missing or empty value is of none."""
        known = re.compile("|".join(map(fnmatch.translate, self.source))).fullmatch
        return lambda row: bool(value := row.get(self.column)) and isinstance(value, str) and known(value) is not None


@dataclass(frozen=True)
class CollectedBefore:
    """Rows collected before a day, the first of which there were texts of language models to collect, say: 2022-11-30.

    `column` holds days, months or years as ISO 8601 writes them, with or without a time, or seconds since 1970. A month or year is before
    the day when all of it is. A value that is missing or cannot be read is not before it.
    """

    collected_before: date
    column: str = "collected"
    kind: Claim = "real"

    @property
    def label(self) -> str:
        return f"{self.column} is before {self.collected_before.isoformat()}"

    def identity(self) -> tuple[str, ...]:
        """What the rule says, as text."""
        return (self.label, self.kind)

    def test(self) -> Callable[[Row], bool]:
        return lambda row: (day := last_day(row.get(self.column))) is not None and day < self.collected_before


_ISO = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ].*)?)?)?")
_SECONDS = (10**8, 10**11)  # 1973 to 5138: years are smaller and milliseconds larger


def last_day(value: object) -> date | None:
    """The last day of what a cell says of a time, in UTC where it names a zone; None when it says nothing that can be read."""
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).date()
    if isinstance(value, date):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if _SECONDS[0] <= value < _SECONDS[1]:
            return datetime.fromtimestamp(value, UTC).date()
        return _last_of(str(value)) if isinstance(value, int) else None
    return _last_of(value.strip()) if isinstance(value, str) else None


def _last_of(text: str) -> date | None:
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    try:
        if len(text) > len("2022-11-30"):
            return last_day(datetime.fromisoformat(text))
        year, month = int(found[1]), int(found[2] or 12)
        return date(year, month, int(found[3] or calendar.monthrange(year, month)[1]))
    except (ValueError, OverflowError):
        return None


# ── rules about files ──────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Registered:
    """Rows of a file whose hash is registered: SHA-256 (64 hexadecimal digits) or BLAKE2b-512 (128) of releases of known origin."""

    registered: tuple[str, ...]
    kind: Claim = "real"

    def __post_init__(self) -> None:
        for text in self.registered or ("",):
            if len(text) not in ALGORITHMS or not re.fullmatch("[0-9a-fA-F]*", text):
                raise ConfigError(
                    f"{text!r:.40} is no registered hash: a SHA-256 has 64 and a BLAKE2b-512 has 128 hexadecimal digits; this has {len(text)}"
                )

    @property
    def label(self) -> str:
        return "file is registered"

    def holds(self, files: Sequence[Path]) -> bool:
        """Whether the files are a registered release. One changed byte makes them another."""
        known = {text.lower() for text in self.registered}
        return any(digest_of(files, ALGORITHMS[size]) in known for size in sorted({len(text) for text in known}))


@dataclass(frozen=True)
class Signed:
    """Rows of a file with a detached signature of a key that is trusted, made by `ssh-keygen -Y sign -f KEY -n file DATA`.

    signed_by: the public key, as its `.pub` file has it: `ssh-ed25519 AAAA… name`. It stands in the run file, so that who can change the
        data cannot change whom to trust. signature: what the data file's name is followed by. A signature by another key is of
        somebody unknown; one that does not fit the file is refused, for then the file is not what was signed.
    """

    signed_by: str
    signature: str = ".sig"
    kind: Claim = "real"

    def __post_init__(self) -> None:
        if len(self.signed_by.split()) < 2 or "\n" in self.signed_by.strip() or not self.signature:
            raise ConfigError(
                f"signed_by is {self.signed_by!r:.60} and the signature's ending {self.signature!r}; allowed are the one line of a public key "
                "file, `ssh-ed25519 AAAA… name`, and an ending such as .sig"
            )

    @property
    def label(self) -> str:
        words = self.signed_by.split()
        return f"signed by {' '.join(words[2:]) or words[1][-12:]}"

    def holds(self, files: Sequence[Path]) -> bool:
        """Whether every file has a good signature of this key. Raises `DataError` for a signature that does not fit its file, and
        `ConfigError` where OpenSSH is missing."""
        return bool(files) and all(_signed(path, path.with_name(path.name + self.signature), self.signed_by) for path in files)


_NAMESPACE = "file"


def _signed(path: Path, signature: Path, key: str) -> bool:
    if not signature.exists():
        return False
    said = _ssh(path, "check-novalidate", "-s", str(signature))
    if said.returncode:
        raise DataError(
            f"{path} does not fit its signature {signature.name} ({(said.stderr or said.stdout).strip():.120}): one of the two was changed "
            "since; get both again, or leave out the rule"
        )
    with tempfile.TemporaryDirectory() as folder:
        trusted = Path(folder, "trusted")
        trusted.write_text(f'* namespaces="{_NAMESPACE}" {key.strip()}\n', encoding="utf-8")
        return _ssh(path, "verify", "-s", str(signature), "-f", str(trusted), "-I", "signer").returncode == 0


def _ssh(path: Path, what: str, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        with path.open("rb") as data:
            return subprocess.run(
                ["ssh-keygen", "-Y", what, "-n", _NAMESPACE, *words], stdin=data, capture_output=True, text=True, check=False
            )
    except FileNotFoundError as error:
        if error.filename != "ssh-keygen":
            raise
        raise ConfigError(
            "signatures are checked by OpenSSH's ssh-keygen, which is not installed; install it, or leave out the rule"
        ) from None


def digest_of(files: Sequence[Path], algorithm: str = "blake2b") -> str:
    """Hash over the bytes of files, one after the other; hexadecimal."""
    return _digest(tuple((str(item), item.stat().st_size, item.stat().st_mtime_ns) for item in files), algorithm)


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...], algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    for name, _, _ in files:
        with Path(name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# ── judging ────────────────────────────────────────────────────────────────────────────────────────────────────────────
Rule = FromSource | CollectedBefore | Registered | Signed


def judge(row: Row, rules: Sequence[Rule], files: Sequence[Path] = ()) -> Finding:
    """Where a row comes from, by the first rule that holds; `NO_RULE` when none does. `files`: the data files that the row is from.

    Raises as `judge_of`.
    """
    return judge_of(rules, files)(row)


def judge_of(rules: Sequence[Rule], files: Sequence[Path] = ()) -> Callable[[Row], Finding]:
    """`judge` for many rows of the same files: rules about files are decided here, once.

    Raises `DataError` for a file that does not fit its signature, `ConfigError` where signatures cannot be checked.
    """
    tests: list[tuple[Callable[[Row], bool], Finding]] = []
    for rule in rules:
        if isinstance(rule, FromSource | CollectedBefore):
            tests.append((rule.test(), Finding(rule.kind, "attested", rule.label)))
        elif files and rule.holds(files):
            tests.append((lambda row: True, Finding(rule.kind, "proved", rule.label)))

    def found(row: Row) -> Finding:
        return next((finding for test, finding in tests if test(row)), NO_RULE)

    return found


def count_by_rule(rows: Iterable[Row], rules: Sequence[Rule], files: Sequence[Path] = ()) -> dict[Finding, int]:
    """How many rows each rule decided, in the order of the rules; those of no rule last. Rules that decided none are left out.

    The rows are streamed. Raises as `judge_of`.
    """
    find = judge_of(rules, files)
    counts: dict[Finding, int] = {}
    for row in rows:
        finding = find(row)
        counts[finding] = counts.get(finding, 0) + 1
    order = {rule.label: place for place, rule in reversed(list(enumerate(rules)))}
    return dict(sorted(counts.items(), key=lambda item: (item[0] == NO_RULE, order.get(item[0].rule, 0), item[0])))


def real_share(counts: Mapping[Finding, int]) -> float:
    """The share of rows that count as real; 0 without rows."""
    total = sum(counts.values())
    return sum(count for finding, count in counts.items() if finding.is_real) / total if total else 0.0
