"""The parts of docs/run_files.md that are read off the code: names and settings, commands, exit codes.

`python tests/reference.py` writes them into the page; tests/test_docs.py compares.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from outcross import errors
from outcross.cli.main import app
from outcross.cli.shell import INTERRUPTED, REFUSED
from outcross.config import find
from outcross.config.annotations import describe, is_value_class, parameters
from outcross.config.plain import plain
from outcross.models.http_endpoint import Price
from outcross.recipe import Mixture
from outcross.stages import FitPlan
from outcross.train.machine import Lora, Machine
from outcross.types import Sampling

PAGE = Path(__file__).parent.parent / "docs" / "run_files.md"
KINDS = (find.RECIPE, find.TASKS, find.GENERATOR, find.VERIFIER, find.CURATOR, find.OBJECTIVE, find.PROBE, find.GATE, find.MODEL)
KINDS += (find.SELECTOR, find.MONITOR, find.ROWS_PROBE, find.ROWS_GATE)
GIVEN = {find.RECIPE: ("bench", "verify"), find.PROBE: ("tasks", "verifier"), find.MODEL: ("machine", "seed")}
"""What the surroundings hand in (`runfile._bind`): it may be left out."""


def names() -> Iterator[str]:
    """One table per kind of thing that `use:` can name."""
    for kind in KINDS:
        yield from (f"### {kind.title.capitalize()}s", "", "| `use:` | what it is | settings |", "|---|---|---|")
        for name, (module, attribute) in sorted(find.names(kind).items()):
            target = getattr(importlib.import_module(module), attribute)
            yield row(f"`{name}`", first_sentence(target), settings(target, GIVEN.get(kind, ())))
        yield ""


def parts() -> Iterator[str]:
    """Settings that have settings of their own, by the name under which they stand."""
    yield from ("| setting | its settings |", "|---|---|")
    for name, target in (
        ("plan", FitPlan),
        ("mix", Mixture),
        ("sampling", Sampling),
        ("machine", Machine),
        ("lora", Lora),
        ("price", Price),
    ):
        yield row(f"`{name}`", settings(target, ()))


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield from ("| command | what it does | options |", "|---|---|---|")
    for name, command in _flat(typer.main.get_command(app)):
        arguments = [shown(item) for item in command.params if item.param_type_name == "argument"]
        options = [item.opts[0] for item in command.params if item.param_type_name == "option" and item.name != "help"]
        yield row(
            f"`{' '.join(['outcross', *name, *arguments])}`", first_sentence(command.callback), ", ".join(f"`{item}`" for item in options)
        )


def _flat(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands of a group and of the groups in it, with the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _flat(command, (*above, name))
        else:
            yield (*above, name), command


def shown(argument: Any) -> str:
    """An argument as the usage line has it."""
    word = (argument.metavar or argument.name).strip("[]").upper()
    return word if argument.required else f"[{word}]"


def exit_codes() -> Iterator[str]:
    """The tree of errors, by exit code; 0, 10 and 130 are no errors."""
    base = errors.OutcrossError
    codes = {error.exit_code: first_sentence(error) for error in base.__subclasses__()}
    codes |= {0: "Done; a refused promotion is a result and ends so too", base.exit_code: "Unexpected; `--debug` shows where"}
    codes |= {REFUSED: "A promotion was refused, with `--fail-on-refusal`", INTERRUPTED: "Stopped by Ctrl-C; the run can be resumed"}
    yield from ("| code | meaning |", "|---|---|")
    yield from (row(str(code), meaning) for code, meaning in sorted(codes.items()))


def settings(target: Any, given: tuple[str, ...]) -> str:
    shown = [setting(name, item) for name, item in parameters(target).items() if name not in given]
    handed = [f"`{name}`" for name in parameters(target) if name in given]
    return "; ".join([*shown, *([f"handed in: {', '.join(handed)}"] if handed else [])]) or "none"


def setting(name: str, item: inspect.Parameter) -> str:
    """A setting with its default, and what else it may be where that is a list of words."""
    words = describe(item.annotation)
    if item.default is inspect.Parameter.empty:
        return f"`{name}` ({words}, required)"
    if is_value_class(type(item.default)) and not callable(item.default):
        return f"`{name}` ({type(item.default).__name__})"
    choice = f" ({words})" if words.startswith("one of") else ""
    return f"`{name}: {yaml_of(plain(item.default))}`{choice}"


def yaml_of(value: Any) -> str:
    """As one would write it in a run file, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {yaml_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(yaml_of, value)) + "]"
    words = {None: "none", True: "true", False: "false", "": '""', "{prompt}": '"{prompt}"'}
    return words[value] if isinstance(value, str | bool | None) and value in words else str(value)


def first_sentence(target: Any) -> str:
    paragraph = " ".join(inspect.cleandoc(target.__doc__).partition("\n\n")[0].split())
    return re.split(r"(?<=[a-z0-9)`*]\.)\s", paragraph)[0].rstrip(".")


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


SECTIONS: dict[str, Callable[[], Iterator[str]]] = {"names": names, "parts": parts, "commands": commands, "exit codes": exit_codes}


def written(page: str) -> str:
    """The page with every generated section as the code has it now."""
    for title, make in SECTIONS.items():
        begin, end = f"<!-- {title} -->\n", f"<!-- end of {title} -->"
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"{PAGE.name} has no section between {begin.strip()!r} and {end!r}"
        page = before + begin + "\n".join(make()).rstrip() + "\n" + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
