"""Kill a run with a real transformer at moments of its work, and resume it.

Run as a program: `lm_killer.py FIRST WORKDIR`. A forked child runs to the end and counts events: a batch begun, a token drawn,
a batch answered, answers about to be committed and committed, an optimiser step, a file or folder about to get its name. Then,
for events of each kind spread over the run, one child dies there by SIGKILL and a second one resumes; one JSON line a kill.

All of them share this process's imports. It computes nothing itself, and has one thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_run
from killer import in_child, watch_writes

from outcross.engine.journal import Journal, request_key
from outcross.models.sampler import Batch
from outcross.models.torch_lm import TorchLM
from outcross.train.trainer import OutcrossTrainer

KILLS = {"batch begins": 1, "token drawn": 2, "batch answered": 1, "commit": 1, "committed": 1, "optimiser step": 2, "rename": 3}


def watch(on_event: Callable[[str], None]) -> None:
    """Call `on_event` at every event of this process."""

    def around(owner: Any, method: str, before: str, after: str) -> None:
        function = getattr(owner, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            on_event(before)
            found = function(*args, **kwargs)
            on_event(after)
            return found

        setattr(owner, method, wrapped)

    around(Batch, "run", "batch begins", "batch answered")
    around(Batch, "_step", "token drawn", "")
    around(Journal, "put", "", "committed")
    around(OutcrossTrainer, "training_step", "optimiser step", "")
    names = {"os.rename": "rename", "sqlite COMMIT": "commit"}
    watch_writes(lambda write: on_event(names.get(write, "")))


def note_answers(path: Path) -> None:
    """Add a line to `path` for every request that a model has answered: its key in the journal."""
    submit = TorchLM.submit
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def noted(self: TorchLM, request: Any) -> Any:
        future = submit(self, request)
        line = request_key(self.id, request, getattr(self, "client_version", "")).hex() + "\n"
        future.add_done_callback(lambda _: os.write(handle, line.encode()))
        return future

    TorchLM.submit = noted  # type: ignore[method-assign]


def main(first: Path, workdir: Path) -> None:
    def attempt(run: str, log: str, on_event: Callable[[str], object], end: Callable[[], object] = lambda: None) -> int:
        def work() -> None:
            note_answers(workdir / log)
            watch(on_event)
            lm_run.start(first, workdir / run)
            end()

        return in_child(work)

    counts: Counter[str] = Counter()
    tally = workdir / "events.json"
    if attempt("whole", "whole.answers", lambda event: counts.update([event]), lambda: tally.write_text(json.dumps(counts))):
        sys.exit("the uninterrupted run failed")
    counts.update(json.loads(tally.read_text()))
    kills = [(event, 1 + (2 * k + 1) * counts[event] // (2 * n)) for event, n in KILLS.items() for k in range(n)]
    for number, (event, nth) in enumerate(kills):
        run = f"kill_{number}"
        status = attempt(run, f"{run}.first", Killer(event, nth))
        for path in (workdir / run).glob("responses.db*"):
            shutil.copy(path, workdir / path.name.replace("responses", run))  # as the killed process left it
        resumed = attempt(run, f"{run}.second", lambda event: None)
        line = {"run": run, "event": event, "nth": nth, "of": counts[event], "signal": os.WTERMSIG(status), "resumed": resumed}
        print(json.dumps(line), flush=True)


class Killer:
    """Dies at the `nth` event of a kind. Events are counted by kind: those of two threads have no order between them."""

    def __init__(self, event: str, nth: int) -> None:
        self.event, self.left = event, nth

    def __call__(self, event: str) -> None:
        if event == self.event:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
