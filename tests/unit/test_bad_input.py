"""Bad input and a bad disk, through the command line: one clear message, an exit code that is not zero, and all that was there
stays as it was. What `test_cli.py` and `test_cli_errors.py` show already is not repeated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toys import FREE, TASKS, model, phase, play, recipe, record
from typer.testing import CliRunner

from outcross.cli.main import app
from outcross.engine.store import RunDir
from outcross.errors import OutcrossError, StoreError
from outcross.models.scripted import Scripted
from outcross.models.tabular import Tabular
from outcross.types import Task

FULL = "/dev/full"  # a device on which every write ends with "No space left on device", for everybody
ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(6) for b in range(6)]
RUN = """
name: toy
recipe: {use: expert_iteration, rounds: 2, n: 6, plan: {lr: 0.5, epochs: 2}, mix: {real_floor: 0.5, real_epochs: 50}}
bench:
  tasks: {use: files, path: tasks.jsonl}
  held_out: {use: files, path: held_out.jsonl}
  real: {use: real_files, path: real.jsonl, attested: made for a test}
  verify: exact
  probes: [{use: pass_rate, generator: {use: draw, n: 1}}]
  gate: open
models: {policy: {use: tabular, answers: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '10']}}
"""


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run file and its data in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "tasks.jsonl", ROWS[:24])
    write_rows(tmp_path / "held_out.jsonl", ROWS[24:])
    write_rows(tmp_path / "real.jsonl", [{"prompt": f"{i}=", "completion": str(i)} for i in range(10)])
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


def call(*words: str) -> tuple[int, str]:
    """Exit code and standard error of a command line."""
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_run_file_that_the_tests_below_spoil_is_a_good_one(folder: Path) -> None:
    assert call("run", "run.yaml", "--out", "there", "-q")[0] == 0
    assert [turn.record["outcome"] for turn in RunDir(folder / "there").rounds()] == ["promoted", "promoted"]


# ── data and settings ──────────────────────────────────────────────────────────────────────────────────────────────────
SPOILT: dict[str, tuple[str, Any, int, tuple[str, ...]]] = {
    "held_out, missing column": ("held_out.jsonl", [{"question": "1+1=", "completion": "2"}], 2, ("held_out.jsonl", "prompt", "question")),
    "held_out, empty": ("held_out.jsonl", [], 2, ("held_out.jsonl",)),
    "held_out, wrong type": ("held_out.jsonl", [*ROWS[24:], {"prompt": ["?"], "completion": "2"}], 2, ("held_out.jsonl", "row")),
    "real, missing column": ("real.jsonl", [{"prompt": "1="}], 2, ("real.jsonl", "row 1", "map a column to `answer`")),
    "real, wrong type": ("real.jsonl", [{"prompt": "1=", "completion": {"a": 1}}], 2, ("real.jsonl", "row")),
    "real, held out": ("real.jsonl", [{"prompt": "4+0=", "completion": "4"}], 3, ("real row", "equals a held-out prompt", "Remove it")),
    "tasks, held out": ("tasks.jsonl", [*ROWS[:3], {"prompt": " 4+0= ", "completion": "4"}], 3, ("held-out", "' 4+0= '", "Remove it")),
    "tasks, not JSON": ("tasks.jsonl", "{'prompt': 1}\n", 2, ("tasks.jsonl",)),
    "unknown key": ("run.yaml", RUN.replace("verify:", "verfiy:"), 2, ("verfiy", "did you mean", "verify")),
    "unknown key of a stage": ("run.yaml", RUN.replace("n: 6", "m: 6"), 2, ("recipe", "m", "allowed")),
    "wrong type of a setting": ("run.yaml", RUN.replace("n: 6", "n: six"), 2, ("recipe.n is 'six'; it must be a whole number",)),
    "no probe of fit": ("run.yaml", RUN.replace("gate: open", "gate: non_inferior"), 3, ("lacks a probe of diversity and of fit",)),
    "unattested": ("run.yaml", RUN.replace(", attested: made for a test", ""), 3, ("none of the 10 rows of bench.real is proved",)),
    "model folder without weights": (
        "run.yaml",
        RUN.partition("models:")[0] + "models: {policy: {use: torch_lm, path: empty}}\n",
        7,
        ("empty has no",),
    ),
}


@pytest.mark.parametrize("before", ["nothing", "a run"])
@pytest.mark.parametrize("case", SPOILT)
def test_what_is_wrong_is_told_once_and_what_was_there_stays(case: str, before: str, folder: Path) -> None:
    if before == "a run":
        assert call("run", "run.yaml", "--out", "there", "-q")[0] == 0
    name, content, code, told = SPOILT[case]
    (folder / "empty").mkdir()
    (folder / "empty" / "config.json").write_text('{"model_type": "llama"}')
    if isinstance(content, str):
        (folder / name).write_text(content)
    else:
        write_rows(folder / name, content)
    stood = everything(folder)
    found, err = call("run", "run.yaml", "--out", "there", "-q")
    assert (found, err.count("error:")) == (code, 1), err
    assert all(piece in err for piece in told), err
    assert everything(folder) == stood


# ── one run at a time ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_second_run_on_a_live_folder_is_refused_and_disturbs_nothing(folder: Path) -> None:
    """The first is a process of its own that waits in its verifier until the test writes to a pipe."""
    os.mkfifo(folder / "go")
    (folder / "slow.py").write_text(
        "waited = []\n\n\ndef patient(prompts, completions, **columns):\n    if not waited:\n"
        "        waited.append(open('go').read())\n    return [1.0] * len(prompts)\n"
    )
    command = [sys.executable, "-m", "outcross", "run", "run.yaml", "--out", "there", "-q", "--bench.verify", "slow:patient"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        with (folder / "go").open("w") as go:  # opens once the first process waits for it: the run is live
            stood = everything(folder / "there")
            second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert second.returncode == 5
            assert second.stderr.count("error:") == 1 and "Traceback" not in second.stderr
            assert f"is being run by process {first.pid}; wait for it, stop it, or choose another folder" in second.stderr
            assert everything(folder / "there") == stood
            go.write("go")
        assert first.wait(timeout=60) == 0
    assert len(RunDir(folder / "there").rounds()) == 2


# ── the disk ───────────────────────────────────────────────────────────────────────────────────────────────────────────
WRITTEN = (
    "manifest.json",
    "start/measurements.parquet",
    *(f"train/0001/{name}.parquet" for name in ("groups", "drops", "examples", "mixture", "order", "measurements")),
    *(f"train/0001/steps/{name}.json" for name in ("generate", "learn", "mix", "fit")),
    "train/0001/round.json",
)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_disk_that_is_full_when_a_file_is_written(name: str, tmp_path: Path) -> None:
    """Each file in turn is written to a device that is always full. Nothing before it is lost, and resuming completes the record."""
    made, root = recipe(phase()), tmp_path / "run"
    expected = record(play(made, tmp_path / "whole").root)
    doomed = root / f"{name}.tmp"
    doomed.parent.mkdir(parents=True)
    doomed.symlink_to(FULL)
    with pytest.raises(
        StoreError, match=r"cannot write to .*No space left on device\. What was complete is kept; free space .* `outcross resume"
    ):
        play(made, root)
    stood = {path: content for path, content in record(root).items() if path != "champion" and not path.endswith(".tmp")}
    assert stood.items() <= expected.items() and name not in stood
    doomed.unlink(missing_ok=True)
    assert record(play(made, root).root) == expected


def test_a_disk_that_is_full_when_the_journal_is_opened(tmp_path: Path) -> None:
    """Its answers were paid for: nobody is told to move it away."""
    (tmp_path / "responses.db").symlink_to(FULL)
    with pytest.raises(
        StoreError, match=r"the journal .*responses\.db cannot be written .*; free space or fix the permissions, then resume"
    ):
        play(recipe(phase()), tmp_path)


class NoRoom(Tabular):
    """Tells a full disk in the way of the library that saves it: numpy gives no error number, safetensors not even an `OSError`."""

    error: Exception

    def save(self, folder: Path, /) -> None:
        (folder / "half").write_bytes(b"half")
        raise self.error


@pytest.mark.parametrize("error", [OSError("16 requested and 0 written"), RuntimeError("I/O error: No space left on device")])
def test_a_disk_that_is_full_when_a_model_is_saved(error: Exception, tmp_path: Path) -> None:
    doomed = NoRoom(model().answers)
    doomed.error = error
    with pytest.raises(StoreError, match=r"the model cannot be saved to .*start/model .*MB free\)\. What was complete is kept; free space"):
        play(recipe(phase()), tmp_path, {"policy": doomed})
    assert not list(tmp_path.rglob("half"))
    assert len(play(recipe(phase()), tmp_path).rounds()) == 2


IN_A_NAMESPACE = """
import json, subprocess, sys
from pathlib import Path
from test_bad_input import call, everything
from toys import record

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", "disk"], check=True)

Path("disk").mkdir()
found = []
for size in range(8, 520, 32):
    mount("-o", f"size={size}k")
    code, err = call("run", "run.yaml", "--out", "disk/run", "-q")
    stood = everything(Path("disk"))
    mount("-o", "remount,size=64m")
    assert everything(Path("disk")) == stood
    again = call("run", "run.yaml", "--out", "disk/run", "-q")
    found.append((size, code, err, again, record(Path("disk/run")) == record(Path("out/whole"))))
    subprocess.run(["umount", "disk"], check=True)
print(json.dumps(found))
"""

READ_ONLY = """
import json, subprocess
from pathlib import Path
from test_bad_input import call

subprocess.run(["mount", "--bind", "there", "there"], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", "there"], check=True)
print(json.dumps([call("run", "run.yaml", "--out", "there", "-q"), call("resume", "there", "-q"), call("run", "run.yaml", "-o", "there/new")]))
"""


def with_tests() -> dict[str, str]:
    """The environment of a process that imports this file."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])}


def in_a_namespace(script: str) -> Any:
    """Run a script where it may mount file systems that nobody else sees; what it prints. A kernel that forbids it skips the test:
    full disks are shown by devices above, and read-only folders by permissions, everywhere."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel does not let a user mount file systems in a namespace")
    command = ["unshare", "-rm", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=with_tests(), check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_small_disk_that_fills_up_wherever_it_may_and_is_then_given_room(folder: Path) -> None:
    """Real disks of many sizes: tables, journal, models, whatever meets the end of each. The resumed record is the whole one."""
    assert call("run", "run.yaml", "--out", "out/whole", "-q")[0] == 0
    found = in_a_namespace(IN_A_NAMESPACE)
    failed = [(code, err) for _, code, err, _, _ in found if code]
    assert len(failed) > 8 and len(failed) < len(found)
    for code, err in failed:
        assert (code, err.count("error:")) == (5, 1), err
        assert "free disk space" in err or "free space" in err, err
    for size, _, _, again, same in found:
        assert again[0] == 0 and same, (size, again)


def test_a_read_only_run_directory(folder: Path) -> None:
    assert call("run", "run.yaml", "--out", "there", "-q")[0] == 0
    stood = everything(folder)
    for code, err in in_a_namespace(READ_ONLY):
        assert (code, err.count("error:")) == (5, 1)
        assert "cannot write to" in err and "there" in err and "Read-only file system" in err
        assert "choose another folder with --out, or fix its permissions" in err
    assert everything(folder) == stood


def test_a_folder_that_may_not_be_written(folder: Path) -> None:
    """By permissions; root gives up its right to pass over them first."""
    assert call("run", "run.yaml", "--out", "there", "-q")[0] == 0
    stood = everything(folder)
    for name in ("there/lock", "there"):
        (folder / name).chmod(0o444 if name.endswith("lock") else 0o555)
    humble = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    command = [*humble, sys.executable, "-c", "from test_bad_input import call; print(call('resume', 'there', '-q'))"]
    done = subprocess.run(command, capture_output=True, text=True, env=with_tests(), check=False)
    (folder / "there").chmod(0o755)
    assert done.stdout.startswith("(5, ") and done.stdout.count("error:") == 1, done
    assert "cannot write to" in done.stdout and "(Permission denied); choose another folder" in done.stdout
    assert everything(folder) == stood


def test_a_file_in_place_of_the_run_directory(folder: Path) -> None:
    (folder / "there").write_text("mine")
    code, err = call("run", "run.yaml", "--out", "there", "-q")
    assert code == 5 and "cannot write to" in err and "there (File exists); choose another folder" in err
    assert (folder / "there").read_text() == "mine"


@pytest.mark.parametrize("where", ["task", "answer"])
def test_half_a_character_is_refused_in_words(tmp_path: Path, where: str) -> None:
    half, tasks = ("\ud83d", TASKS) if where == "answer" else ("1", (Task("a", "what is \ud83d?", "1"),))
    with pytest.raises(OutcrossError, match="half of a character"):
        play(recipe(phase(rounds=1, learn={}, mix=FREE), tasks=tasks), tmp_path, {"policy": Scripted([half])})
