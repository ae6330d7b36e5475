"""Programs in other languages: which file they are written to, and the commands that build and run it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from typing import Any

from outcross.errors import ConfigError
from outcross.types import Canary, Task
from outcross.verify.sandbox.levels import Level

_INSIDE = "/usr/bin:/bin"
_PLACES = {"file", "out", "folder"}


@dataclass(frozen=True)
class Language:
    """A language by its commands. Words are split as a shell does, and no shell runs: `{file}` is the program's file, `{out}` what is
    built from it, `{folder}` the folder that holds both and is the current one.

    name: for messages. file: what the program's file is called, for example "main.c". run: for example "{out}", or "perl {file}".
    build: run once before the cases, for example "gcc -O1 -o {out} {file} -lm"; empty for languages that need none.
    copies: a program in the language that prints its input as it is. It is tried before every batch, so that a compiler that broke does
        not look like a policy that did.
    """

    name: str
    file: str
    run: str
    build: str = ""
    copies: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w+-][\w.+-]*", self.file):
            raise ConfigError(f"code: the file of language {self.name!r} is {self.file!r}; give a bare name such as main.c")
        for key in ("run", "build"):
            text = getattr(self, key)
            try:
                words = shlex.split(text)
            except ValueError as error:
                raise ConfigError(f"code: {key} of language {self.name!r} is {text!r}, which cannot be split into words: {error}") from None
            unknown = set(re.findall(r"\{(\w*)\}", text)) - _PLACES
            if (key == "run" and not words) or unknown:
                raise ConfigError(
                    f"code: {key} of language {self.name!r} is {text!r}; name a command, with no places but {{file}}, {{out}}, {{folder}}"
                )

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """The copying program, which passes where its input is expected and fails elsewhere, and a text that is no program."""
        bad = Canary(Task(f"no program in {self.name}", "", columns=(("cases", '[["1\\n", "2"]]'),)), ("(no program",), ("fail",))
        if not self.copies:
            return (bad,)
        right, wrong = (("cases", f'[["4 2\\n", "{said}"]]') for said in ("4 2", "4 3"))
        return (
            Canary(Task(f"copies its input in {self.name}", "", columns=(right,)), (self.copies,), ("pass",)),
            Canary(Task(f"copies what is not expected in {self.name}", "", columns=(wrong,)), (self.copies,), ("fail",)),
            bad,
        )

    def request(self) -> dict[str, Any]:
        """The language as the sandbox is told it."""
        return {"file": self.file, "build": shlex.split(self.build), "run": shlex.split(self.run)}

    def check(self, level: Level) -> None:
        """Raises `ConfigError` when a command is not where the sandbox can see it; in a container of yours only the sandbox can tell."""
        if level == "container by command":
            return
        path = _INSIDE if level == "namespaces" else os.environ.get("PATH", os.defpath)
        for words in map(shlex.split, (self.build, self.run)):
            if words and "{" not in words[0] and not shutil.which(words[0], path=path):
                raise ConfigError(
                    f"code: {words[0]!r}, which language {self.name!r} needs, is not installed in {' or '.join(path.split(':'))}, all that a "
                    f"sandbox of level {level!r} sees; install it there (apt-get install …), or give a `command` that starts a container with it"
                )
