"""Every wrong input ends with one clear message on standard error, no traceback, a non-zero exit, and leaves things as they were."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from outcross.cli.main import app
from outcross.cli.shell import command
from outcross.errors import BudgetReached, ConfigError, GuardError, ModelError, OutcrossError, StageError, StoreError


def call(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line."""
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(*words: str) -> str:
    """The one message of a command that must fail."""
    code, _, err = call(*words)
    assert code != 0
    assert "Traceback" not in err
    assert err.count("error:") == 1 or "Usage:" in err
    return err


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTCROSS_DEBUG", raising=False)


@pytest.mark.parametrize("words", [["show"], ["resume"], ["report"], ["du"], ["export"], ["trace"], ["recall"]])
def test_a_run_folder_that_does_not_exist(words: list[str]) -> None:
    more = {"trace": ["absent", "abcdef"], "recall": ["exact", "--run", "absent"]}.get(words[0], ["absent"])
    assert "there is no folder absent; `outcross list`" in refused(*words, *more)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert "plain is not a run: it has no manifest.json" in refused("show", "plain")


def test_a_damaged_manifest(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert "is damaged" in refused("show", "broken")
    assert (tmp_path / "broken" / "manifest.json").read_text() == "{"


@pytest.mark.parametrize("name", ["run", "validate", "generate"])
def test_a_run_file_that_does_not_exist(name: str) -> None:
    assert "there is no run file absent.yaml; write one with `outcross init absent.yaml`" in refused(name, "absent.yaml")


def test_no_run_file_and_two_run_files() -> None:
    assert "no run file is given" in refused("run", "--mix.real_floor", "0.8")
    assert "more than one run file is given: a.yaml, b.yaml" in refused("run", "a.yaml", "b.yaml")


def test_init_does_not_write_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("mine")
    assert "run.yaml exists; name another file, or pass --force" in refused("init")
    assert (tmp_path / "run.yaml").read_text() == "mine"


def test_an_unknown_command_or_option() -> None:
    assert "No such command" in refused("rnu")
    assert "No such option" in refused("show", "--wrong", "x")


def test_a_list_of_nothing_says_how_to_begin() -> None:
    code, out, err = call("list")
    assert (code, out) == (0, "")
    assert "outcross init" in err
    assert "there is no folder absent" in refused("list", "absent")


def test_sample_without_a_prompt_or_a_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "neither a Hugging Face model folder nor inside a run; it holds nothing" in refused("sample", "empty", "hello")
    assert "standard input holds no prompt" in refused("sample", "empty")


# ── how errors end a command ───────────────────────────────────────────────────────────────────────────────────────────
def ends(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    @command
    def failing() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        failing()
    return caught.value.exit_code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("kind", "code"),
    [(OutcrossError, 1), (ConfigError, 2), (GuardError, 3), (StageError, 4), (StoreError, 5), (BudgetReached, 6), (ModelError, 7)],
)
def test_each_kind_of_error_has_its_exit_code(kind: type[OutcrossError], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(kind("what, where, what to do"), capsys) == (code, "error: what, where, what to do")


def test_a_full_disk_and_a_read_only_folder(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = ends(OSError(errno.ENOSPC, "No space left on device", "runs/a/groups.parquet"), capsys)
    assert code == 5
    assert told == "error: disk full: runs/a/groups.parquet; free some space and try again. What was complete is kept"
    assert "no permission: x; choose another place" in ends(PermissionError(errno.EACCES, "Permission denied", "x"), capsys)[1]


def test_an_interrupt_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(KeyboardInterrupt(), capsys) == (130, "error: stopped")


def test_what_nobody_foresaw_is_not_hidden() -> None:
    @command
    def failing() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTCROSS_DEBUG", "1")
    with pytest.raises(StoreError):
        call("show", "absent")
    monkeypatch.delenv("OUTCROSS_DEBUG")
    with pytest.raises(StoreError):
        call("--debug", "show", "absent")
    assert os.environ.pop("OUTCROSS_DEBUG") == "1"


def test_version_and_help() -> None:
    assert call("--version")[1].startswith("outcross ")
    code, out, _ = call("--help")
    assert code == 0
    for name in (
        "init",
        "validate",
        "run",
        "resume",
        "generate",
        "list",
        "show",
        "trace",
        "report",
        "du",
        "sample",
        "eval",
        "export",
        "doctor",
    ):
        assert name in out
        assert call(name, "--help")[0] == 0


def test_doctor_looks_at_everything_and_ends_well() -> None:
    code, out, _ = call("doctor")
    assert code == 0
    for name in ("python", "outcross", "needed", "cpu", "memory", "disk", "write", "hub", "telemetry"):
        assert name in out


def test_doctor_says_how_to_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    from outcross.cli import doctor

    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("numpy", "peft") else "1.0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor, "_machine", lambda: iter(()))
    code, out, _ = call("doctor")
    assert code == 1
    assert "✗ needed" in out and "→ pip install numpy" in out
    assert "! extra torch" in out and "→ pip install 'outcross[torch]'" in out
    assert "offline by HF_HUB_OFFLINE" in out
