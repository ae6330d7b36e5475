"""Every error Outcross raises on purpose.

    OutcrossError
    ├── ConfigError          a run file or an argument is wrong; nothing has been spent          exit code 2
    │   ├── FingerprintError a value of a recipe cannot be serialised
    │   └── DataError        a data file lacks a column, holds a wrong type, is empty …
    ├── GuardError           the plan breaks a guarantee; refused before anything is spent       exit code 3
    ├── StageError           a stage broke its contract or raised; what it made so far is kept   exit code 4
    │   ├── CanaryFailed     a verifier was wrong about an answer whose verdict is known
    │   └── TooManyErrors    a verifier could not judge more answers than the run allows
    ├── StoreError           the run directory cannot be written, is damaged, or is in use       exit code 5
    │   └── RunLocked        another process is running this run
    ├── BudgetReached        a cap on tokens, requests or time; the run can be resumed           exit code 6
    ├── ReviewNeeded         people have to look before the run goes on; it can be resumed       exit code 8
    ├── ModelError           a model cannot be loaded, trained or asked                          exit code 7
    └── MissingExtra         an optional dependency is not installed                             exit code 2

A message holds the value seen, what was allowed, and the next step. A refused promotion is not an error: the run ends
with exit code 0 (or 10 with `--fail-on-refusal`); Ctrl-C ends it with 130.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

HALF = (
    "a text holds half of a character (a surrogate such as \\ud83d without the one that belongs to it), which no file can hold; repair the text, "
    "for example `text.encode(errors='replace').decode()`"
)
"""What is wrong with a text that has no UTF-8, and what to do."""


class OutcrossError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1


class ConfigError(OutcrossError):
    """A run file, an argument or an override is wrong."""

    exit_code = 2


class FingerprintError(ConfigError):
    """A value of a recipe has no stable serialisation."""


class DataError(ConfigError):
    """A data file cannot be used as asked."""


class MissingExtra(ConfigError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(f"{what} needs the package {package!r}, which is not installed: pip install 'outcross[{extra}]'")


class GuardError(OutcrossError):
    """The plan, or a round, breaks one of the engine's guarantees."""

    exit_code = 3


class StageError(OutcrossError):
    """A stage raised, or lost, doubled or reordered records."""

    exit_code = 4


class CanaryFailed(StageError):
    """A verifier was wrong about an answer whose verdict is known: nothing it says can be trusted."""


class TooManyErrors(StageError):
    """A verifier could not judge more answers than the run allows; the run stopped and can be resumed."""


class StoreError(OutcrossError):
    """The run directory cannot be used."""

    exit_code = 5


class RunLocked(StoreError):
    """Another live process holds the run directory."""


class BudgetReached(OutcrossError):
    """A cap was reached; the run stopped cleanly and can be resumed with a higher cap."""

    exit_code = 6


class ReviewNeeded(OutcrossError):
    """A batch waits for people's verdicts; the run stopped cleanly and can be resumed when they are signed."""

    exit_code = 8


class ModelError(OutcrossError):
    """A model cannot be loaded, trained or asked."""

    exit_code = 7


def did_you_mean(seen: str, allowed: Iterable[str]) -> str:
    """A clause for error messages: the nearest allowed name, then all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(seen, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(names) if names else 'nothing'}"
