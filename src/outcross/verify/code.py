"""Programs against tests, in a sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ClassVar

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Task
from outcross.verify.ahead import known, scored_ahead
from outcross.verify.each import Finding
from outcross.verify.sandbox.choice import chosen
from outcross.verify.sandbox.language import Language
from outcross.verify.sandbox.levels import LEVELS, Level
from outcross.verify.sandbox.pool import Limits, Pool

_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_LONGEST = 1_000_000  # characters of a program

_PROGRAMS = (
    "```python\ndef add(a, b):\n    return a + b\n```",
    "def add(a, b):\n    return a - b\n",
    "class Same:\n    def __eq__(self, other): return True\n\ndef add(a, b): return Same()\n",
    "import os\nos._exit(0)\n",
    "print('pass')\ndef add(a, b): raise SystemExit(0)\n",
)


@dataclass(frozen=True)
class Code(Stage):
    """Passes a program, in Python unless told otherwise, that passes the task's tests. The program is the answer's last fenced block, or the whole answer.

    The task says how it is tested, in its columns:

    - `test`: Python code with assertions. Functions of the program are called by name; with `entry_point`, only that one is the
      program's, and a function `check` of the tests is called with it (HumanEval). `setup` is code of the task's own that tests may
      use and that is put before the program (HumanEval's prompt); it needs an `entry_point`.
    - or `cases`: JSON `[[input, output], …]`. The program runs once a case; what it prints must equal the output line by line,
      white space at line ends apart. Programs in other languages are tested in this way alone.

    The verdict does not rest on anything that the program says. Tests run in a process that it cannot reach, and it sees calls, not
    tests; values it returns are read as plain data, so an object that claims to equal everything equals nothing. Objects of its own
    classes can be called and their attributes read, but no operator works on them. Packages outside the standard library are absent.

    language: another language by its commands, for example `{name: c, file: main.c, build: "gcc -O1 -o {out} {file}", run: "{out}"}`;
        see `Language`. The build counts as a process of the program: the limits are its own too. Languages that map much memory before
        they need it, such as JavaScript in node, want a larger memory_mb.
    seconds: of CPU a process; the clock may show three times as much and three more, beyond which the verdict is the *error* "timeout", since
        a busy machine is not a wrong program. Running out of CPU time is a fail.
    memory_mb: address space a process. processes: processes and threads. Output beyond what is expected and 64 KiB fails.
    minimum_level: the least isolation to run with, see `outcross doctor`; refused with `ConfigError` if the machine cannot give it.
    command: starts a Python of 3.11 or later in a container, with standard input attached, for example `("docker", "run", "--rm", "-i",
        "--network=none", "python:3.12-slim", "python3")`; what it isolates is your own affair.

    The isolation level that was used opens the evidence of every verdict. A task without tests is abstained on.
    """

    seconds: int = 5
    memory_mb: int = 512
    processes: int = 8
    minimum_level: Level = "namespaces"
    command: tuple[str, ...] = ()
    language: Language | None = None
    ground: ClassVar[Ground] = "executed"

    def __post_init__(self) -> None:
        if self.minimum_level not in LEVELS:
            raise ConfigError(f"code: minimum_level is {self.minimum_level!r}; it is one of {', '.join(LEVELS)}")
        for name, least in (("seconds", 1), ("memory_mb", 64), ("processes", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"code: {name} is {getattr(self, name)}; it is {least} or more")

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """A right program, a wrong one, and three that would cheat a naive test: by equality, by leaving early, by printing a verdict; with a
        language, its own."""
        if self.language:
            return self.language.canaries
        tested = (("test", "assert add(2, 3) == 5\nassert add(-1, 1) == 0"),)
        return (
            Canary(Task("tests", "Write add(a, b).", columns=tested), _PROGRAMS, ("pass", "fail", "fail", "fail", "fail")),
            Canary(
                Task("cases", "Print the sum of two lines.", columns=(("cases", '[["1\\n2\\n", "3\\n"], ["5\\n-5\\n", "0\\n"]]'),)),
                ("print(int(input()) + int(input()))", "print(3)"),
                ("pass", "fail"),
            ),
            Canary(Task("no tests", "Write add(a, b)."), (_PROGRAMS[0],), ("abstain",)),
        )

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        """Raises `ConfigError`, before anything is read, when the machine cannot give the minimum level or a command of the language."""
        level = chosen(self.minimum_level, self.command)
        if self.language:
            self.language.check(level)
        return self._stream(groups, level)

    def _stream(self, groups: Iterable[Group], level: Level) -> Iterator[Group]:
        limits = Limits(self.seconds, 3.0 * self.seconds + 3, self.memory_mb * 2**20, self.processes)
        pool = Pool(level, limits, self.command)

        def ask(task: Task, text: str) -> Future[Finding]:
            asked = request(task, text, self.language)
            return pool.submit(asked) if isinstance(asked, dict) else known(asked)

        try:
            yield from scored_ahead(self, groups, ask, 4 * pool.size)
        finally:
            pool.close()


def request(task: Task, text: str, language: Language | None = None) -> dict[str, Any] | Finding:
    """What a sandbox is asked about an answer, or the finding when there is nothing to ask."""
    columns = dict(task.columns)
    setup, entry, test = (columns.get(name, "") for name in ("setup", "entry_point", "test"))
    found = {**({"test": test, "setup": setup, "entry_point": entry} if test else {}), **_cases(columns.get("cases", ""))}
    if not found:
        return "abstain", "the task has no tests", ""
    if "cases" in found and (test or not found["cases"]):
        return "error", "the task's cases are not a list of [input, output], or it has tests too", columns["cases"][:100]
    if language and "cases" not in found:
        return "error", "tests that call functions are for Python; other languages need cases", language.name
    if setup and not entry:
        return "error", "the task has setup code and names no entry_point", ""
    if len(text) > _LONGEST:
        return "fail", "the program is too long", f"{len(text)} characters"
    if language:
        return {**found, "program": program_in(text), "language": language.request()}
    return {**found, "program": f"{setup}\n{program_in(text)}" if setup else program_in(text)}


def _cases(written: str) -> dict[str, Any]:
    if not written:
        return {}
    try:
        cases = json.loads(written)
        pairs = [(given, expected) for given, expected in cases if isinstance(given, str) and isinstance(expected, str)]
    except (ValueError, TypeError):
        return {"cases": []}
    return {"cases": pairs if len(pairs) == len(cases) else []}


def program_in(text: str) -> str:
    """The last fenced block of an answer, else the whole answer. Indentation stays: it may continue a function."""
    blocks = _FENCED.findall(text)
    return (blocks[-1] if blocks else text).strip("\n\r") + "\n"
