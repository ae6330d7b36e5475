"""Which isolation level a run gets: the best that the machine gives, and never less than was asked for."""

from __future__ import annotations

import shutil
import sys
from functools import cache

from outcross.errors import ConfigError
from outcross.verify.sandbox.levels import LEVELS, Level
from outcross.verify.sandbox.pool import trial


@cache
def best() -> tuple[Level, str]:
    """The strongest level that this machine gives without a command, and why not a stronger one (empty when there is none)."""
    if sys.platform != "linux":
        return "process", f"namespaces need Linux; this is {sys.platform}"
    if not shutil.which("bwrap"):
        return "process", "bubblewrap (bwrap) is not installed"
    failure = trial("namespaces")
    return ("process", f"bubblewrap does not work here: {failure}") if failure else ("namespaces", "")


def chosen(minimum: Level, command: tuple[str, ...]) -> Level:
    """The level to use when at least `minimum` is asked for. Raises `ConfigError` when the machine cannot give it."""
    if command:
        if minimum == "namespaces":
            raise ConfigError(
                f"code: minimum_level is 'namespaces', and what the command {command[0]!r} isolates cannot be checked from here; "
                "say minimum_level: container by command"
            )
        return "container by command"
    if minimum == "container by command":
        raise ConfigError(
            "code: minimum_level is 'container by command' and there is no `command`; give one that starts Python in a container"
        )
    level, why = best()
    if LEVELS.index(level) < LEVELS.index(minimum):
        raise ConfigError(
            f"code: this machine gives isolation level {level!r}, and {minimum!r} is the least allowed: {why}. Install bubblewrap "
            "(apt-get install bubblewrap) and allow user namespaces, give a `command` that starts a container, or accept minimum_level: process"
        )
    return level
