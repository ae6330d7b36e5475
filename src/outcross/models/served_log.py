"""Where a server's output goes, and how long it took to start, to take an adapter and to stop.

In a run: `logs/attempt_n/` of its folder. Elsewhere: `served/` in the cache (`OUTCROSS_CACHE`, or `~/.cache/outcross`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from outcross.models.gguf import cache_folder

log = logging.getLogger("outcross.models.served")


@dataclass
class Noted:
    """Whether the step that is timed came to something."""

    done: bool = True


class ServerLog:
    """One file per life of the server, `NAME_0001.log` and so on, and one line per step in `served.jsonl`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder: Path | None = None
        self.steps: list[tuple[str, float]] = []

    def new(self) -> Path:
        """A new, empty file."""
        folder = self._folder()
        number = 1
        while True:
            path = folder / f"{self.name}_{number:04d}.log"
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                number += 1
                continue
            return path

    @contextmanager
    def timed(self, step: str, model: str) -> Iterator[Noted]:
        """Time a step; it is noted when it succeeds."""
        began, noted = time.monotonic(), Noted()
        yield noted
        seconds = time.monotonic() - began
        if not noted.done:
            return
        self.steps.append((step, seconds))
        log.info("%s: %s took %.2f s", self.name, step, seconds)
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "server": self.name, "step": step, "seconds": round(seconds, 3)}
        with (self._folder() / "served.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "model": model}) + "\n")

    def _folder(self) -> Path:
        folder = self.folder or cache_folder() / "served"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
