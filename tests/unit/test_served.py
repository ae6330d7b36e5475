"""Servers of the user's command: started when asked, found healthy, asked, started again when they die, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from served_tools import PROGRAM, TESTS, lives, runs, until

from outcross.errors import ConfigError, ModelError
from outcross.models.served import Served, ServerPlace, served
from outcross.stages import Completes, Trainable
from outcross.types import Message, Request


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTCROSS_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "model"
    made.mkdir()
    (made / "answer.txt").write_text("yes")
    return made


@contextmanager
def serving(folder: Path, more: str = "", **settings: Any) -> Iterator[Served]:
    model = served(PROGRAM, folder=str(folder), options=f"--lives {folder.parent / 'lives'} {more}", **settings)
    assert isinstance(model, Served)
    with closing(model):
        yield model


def said(model: Served, prompt: Any = "x", **more: Any) -> str:
    response = model.submit(Request(prompt, **more)).result(20)
    return response.error or str(response.completions[0].content)


def test_the_server_starts_at_the_first_request_and_stops_with_its_children(folder: Path) -> None:
    child = folder.parent / "child"
    with serving(folder, f"--child {child}") as model:
        assert isinstance(model, Completes) and not isinstance(model, Trainable)
        assert not lives(folder.parent / "lives")
        assert said(model, seed=7) == "yes text 7"
        ((pid, _, _),) = lives(folder.parent / "lives")
        assert said(model) == "yes text 0" and len(lives(folder.parent / "lives")) == 1
        assert runs(pid) and runs(int(child.read_text()))
    assert not runs(pid) and until(lambda: not runs(int(child.read_text())))
    with pytest.raises(ModelError, match="closed"):
        model.submit(Request("x"))
    assert [step for step, _ in model.steps] == ["start", "stop"] and all(0 < seconds < 20 for _, seconds in model.steps)


def test_texts_go_as_they_are_and_conversations_through_the_chat_template(folder: Path) -> None:
    talk = (Message("user", "x"),)
    with serving(folder) as model:
        assert (said(model), said(model, talk)) == ("yes text 0", "yes chat 0")
        assert "array" not in said(model) and "cannot carry messages" not in said(model, talk)
    with serving(folder, api="chat") as model:
        assert (said(model), said(model, talk)) == ("yes chat 0", "yes chat 0")
    with serving(folder, api="completions") as model:
        assert "cannot carry messages" in said(model, talk)


def test_threads_share_one_server(folder: Path) -> None:
    with serving(folder) as model, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda seed: said(model, seed=seed), range(64)))
        assert found == [f"yes text {seed}" for seed in range(64)]
        assert len(lives(folder.parent / "lives")) == 1


# ── identity ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_shapes_answers_is_the_identity_and_nothing_else(folder: Path) -> None:
    def of(command: str = PROGRAM, **more: Any) -> str:
        model = served(command, folder=str(more.pop("folder", folder)), **more)
        with closing(model):
            return model.id

    first = of()
    assert first == of(options="--slow 0", start_s=1, place=ServerPlace("cuda:1", "0.0.0.0", 1234), in_flight=3, environment={"A": "b"})
    assert first == of(PROGRAM.replace(sys.executable, Path(sys.executable).name))
    assert len({first, of(PROGRAM + " --slow 0"), of(api="chat")}) == 3
    other = folder.parent / "other"
    other.mkdir()
    (other / "answer.txt").write_text("yes")
    assert of(folder=other) == first
    (other / "answer.txt").write_text("yea")
    assert of(folder=other) != first
    assert of(folder="owner/name") != first


@pytest.mark.parametrize(
    ("command", "settings", "told"),
    [
        ("python {folder}", {}, r"must hold \{port\}"),
        ("python --port {port}", {}, r"\{folder\} or \{file\}"),
        ("python {folder} {prot} {port}", {}, r"holds \{prot\}, which nothing fills in; there are \{folder\}"),
        ("no-such-program {folder} {port}", {}, "'no-such-program' .* is not installed here"),
        ("python 'x {folder} {port}", {}, "check its quotes"),
        (PROGRAM, {"folder": None}, "either `folder`.*or `model`"),
        (PROGRAM, {"folder": "./nowhere"}, "there is no model folder or file ./nowhere"),
    ],
)
def test_a_command_that_cannot_work_is_refused_before_anything_starts(
    folder: Path, command: str, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        served(command, **{"folder": str(folder), **settings})


def test_braces_that_are_no_placeholder_stay(folder: Path) -> None:
    """JSON in a command is not ours to read, and no shell sees `;` or `$`."""
    script = (
        "import sys, subprocess; subprocess.run([sys.executable, *sys.argv[2:]]) if sys.argv[1] == '{\"a\": 1}; $HOME' else sys.exit(9)"
    )
    command = f'{sys.executable} -c "{script.replace(chr(34), chr(92) + chr(34))}" \'{{"a": 1}}; $HOME\' {TESTS / "served_program.py"} {{folder}} --port {{port}}'
    with closing(served(command, folder=str(folder))) as model:
        assert isinstance(model, Served) and said(model) == "yes text 0"


def test_the_gguf_file_of_a_folder_is_filled_in(folder: Path) -> None:
    command = PROGRAM.replace("{folder}", "{file}")
    with closing(served(command, folder=str(folder))) as model:
        assert isinstance(model, Served)
        with pytest.raises(ModelError, match="holds 0 GGUF files"):
            said(model)


# ── health ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_server_without_a_health_page_is_asked_for_its_models(folder: Path) -> None:
    with serving(folder, "--no-health") as model:
        assert said(model) == "yes text 0"


def test_a_server_that_ends_at_its_start_is_told_with_its_log(folder: Path) -> None:
    with serving(folder, "--crash") as model, pytest.raises(ModelError, match=r"did not start: .*exit code 1(.|\n)*out of luck"):
        said(model)
    assert len(lives(folder.parent / "lives")) == 1


def test_a_server_that_is_never_ready_is_ended_at_the_deadline(folder: Path) -> None:
    with serving(folder, "--never-ready", start_s=1.5) as model, pytest.raises(ModelError, match=r"not ready within 1.5 s(.|\n)*listening"):
        said(model)
    ((pid, _, _),) = lives(folder.parent / "lives")
    assert not runs(pid)


def test_a_port_that_somebody_took_is_changed_for_another(folder: Path) -> None:
    with serving(folder, "--in-use-lives 2") as model:
        assert said(model) == "yes text 0"
    assert len({port for _, port, _ in lives(folder.parent / "lives")}) == 3


def test_a_stranger_on_a_given_port_is_never_asked(folder: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        place = ServerPlace(port=stranger.getsockname()[1])
        with serving(folder, place=place) as model, pytest.raises(ModelError, match=f"port {place.port} .* is taken by another program"):
            said(model)
    assert not lives(folder.parent / "lives")


def test_devices_are_what_the_server_may_see(folder: Path) -> None:
    with serving(folder, place=ServerPlace("cuda:2,3")) as model:
        said(model)
    with serving(folder, place=ServerPlace("cpu")) as model:
        said(model)
    assert [devices for _, _, devices in lives(folder.parent / "lives")] == ["2,3", "none"]


# ── death ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_server_that_dies_is_started_once_more_and_everything_is_asked_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(folder, "--die-after 5 --die-lives 1 --slow 0.05") as model:
        waiting = [model.submit(Request("x", seed=seed)) for seed in range(40)]
        found = [future.result(30) for future in waiting]
        assert [response.completions[0].content for response in found] == [f"yes text {seed}" for seed in range(40)]
        assert len(lives(folder.parent / "lives")) == 2
    assert "exit code 7" in caplog.text and "I am dying" in caplog.text and "started once more" in caplog.text


def test_one_that_dies_again_is_reported_with_its_log(folder: Path) -> None:
    with serving(folder, "--die-after 2 --slow 0.01") as model:
        waiting = [model.submit(Request("x", seed=seed)) for seed in range(20)]
        found = [future.result(30) for future in waiting]
        failed = [response.error for response in found if response.error]
        assert len(failed) >= 16  # two lives of two answers each
        assert all("died again" in reason and "exit code 7" in reason and "I am dying" in reason for reason in failed)
        assert len(lives(folder.parent / "lives")) == 2
        with pytest.raises(ModelError, match=r"died again(.|\n)*I am dying"):
            model.submit(Request("x"))


def test_one_that_is_killed_between_requests_is_started_again(folder: Path) -> None:
    with serving(folder) as model:
        said(model)
        os.kill(lives(folder.parent / "lives")[0][0], signal.SIGKILL)
        assert until(lambda: len(lives(folder.parent / "lives")) == 2)
        assert said(model, seed=3) == "yes text 3"


def test_a_server_deaf_to_sigterm_is_killed_after_its_grace(folder: Path) -> None:
    with serving(folder, "--deaf", grace_s=0.5) as model:
        said(model)
    ((pid, _, _),) = lives(folder.parent / "lives")
    assert not runs(pid) and 0.5 <= dict(model.steps)["stop"] < 5


def test_requests_under_way_end_with_a_reason_when_the_model_is_closed(folder: Path) -> None:
    with serving(folder, "--slow 30") as model:
        future = model.submit(Request("x"))
    assert "closed before this was answered" in future.result(10).error


def test_a_request_that_was_not_sent_can_be_cancelled_and_one_under_way_not(folder: Path) -> None:
    with serving(folder, "--slow 0.3", in_flight=1) as model:
        first, second = model.submit(Request("x", seed=1)), model.submit(Request("x", seed=2))
        assert until(first.inner.running)  # type: ignore[attr-defined]
        assert second.cancel() and not first.cancel()
        assert first.result(20).completions[0].content == "yes text 1"
        assert said(model, seed=3) == "yes text 3"


# ── no orphans ─────────────────────────────────────────────────────────────────────────────────────────────────────────
OWNER = """
import sys, time
from outcross.models.served import served
from outcross.types import Request
model = served(sys.argv[1], folder=sys.argv[2], options=sys.argv[3])
model.submit(Request("x")).result(20)
print("asked", flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "ended_by"),
    [
        ("", None),  # the interpreter's end
        ("raise SystemExit(3)", None),
        ("time.sleep(100)", signal.SIGINT),
        ("time.sleep(100)", signal.SIGTERM),
        ("time.sleep(100)", signal.SIGKILL),
        ("import os; os.fork(); time.sleep(100)", signal.SIGKILL),  # a child that inherits all our pipes
    ],
)
def test_no_server_outlives_its_owner(folder: Path, then: str, ended_by: signal.Signals | None) -> None:
    note, child = folder.parent / "lives", folder.parent / "child"
    command = [sys.executable, "-c", OWNER.format(then=then), PROGRAM, str(folder), f"--lives {note} --child {child}"]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "asked\n"
        ((pid, _, _),) = lives(note)
        if ended_by is not None:
            assert runs(pid)
            owner.send_signal(ended_by)
        assert until(lambda: not runs(pid)) and until(lambda: not runs(int(child.read_text())))
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.communicate()


# ── logs ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_logs_go_to_the_run_and_elsewhere_to_the_cache(folder: Path) -> None:
    with serving(folder) as model:
        said(model)
    assert "listening" in next((folder.parent / "cache" / "served").glob("*_0001.log")).read_text()
    logs = folder.parent / "logs"
    with serving(folder) as model:
        model.log_to(logs)
        said(model)
        os.kill(lives(folder.parent / "lives")[1][0], signal.SIGKILL)
        assert until(lambda: len(list(logs.glob("*_0002.log"))) == 1) and said(model)
    steps = [json.loads(line) for line in (logs / "served.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == ["start", "start", "stop"] and all(step["seconds"] > 0 for step in steps)
