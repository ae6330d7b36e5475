"""Starting is cheap: what is imported is checked, not the clock, so that the tests say the same on every machine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "pyarrow", "scipy", "torch", "transformers", "pydantic", "yaml", "polars", "pandas", "duckdb")


def imported(code: str) -> set[str]:
    """The modules of HEAVY, and of the command line's libraries, that a fresh interpreter holds after running `code`."""
    names = (*HEAVY, "typer", "rich", "msgspec", "rich.markdown", "outcross.engine.loop", "outcross.cli.run")
    told = f"{code}\nimport json, sys\nprint(json.dumps([name for name in {names!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert imported("import outcross") == set()


def test_the_nouns_come_without_numpy() -> None:
    assert not imported("import outcross; outcross.Task('a', 'b'); outcross.Recipe; outcross.Stage") & set(HEAVY)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys\nfrom outcross.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit as left:\n    assert not left.code"
    found = imported(code)
    assert "typer" in found and "outcross.cli.run" in found
    assert not found & {*HEAVY, "msgspec", "outcross.engine.loop"}


@pytest.mark.parametrize("command", ["run", "init", "export", "doctor"])
def test_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    code = (
        f"from outcross.cli.main import app\ntry:\n    app(['{command}', '--help'])\nexcept SystemExit as left:\n    assert not left.code"
    )
    assert not imported(code) & {*HEAVY, "outcross.engine.loop"} - {"pydantic"}  # typer itself looks for pydantic


def test_names_are_found_without_importing_what_they_name() -> None:
    code = "from outcross.config import runfile, find\nfind.names(find.MODEL)\nassert 'torch_lm' in find.names(find.MODEL)"
    assert not imported(code) & {"torch", "transformers"}
