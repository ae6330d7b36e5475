"""The weights behind a served model: in this process, in a folder, or both."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from outcross.errors import ModelError
from outcross.stages import Trainable


class Held:
    """A folder that is found again after it was renamed where it lies: models are saved under a temporary name first."""

    def __init__(self, folder: Path) -> None:
        self._parent = folder.resolve().parent
        handle = os.open(folder, os.O_RDONLY)
        self._number = os.fstat(handle).st_ino
        weakref.finalize(self, os.close, handle)  # while it is open, the file system gives its number to nobody else

    def path(self) -> Path | None:
        """Where the folder is now; None when it is gone."""
        try:
            return next((item for item in self._parent.iterdir() if item.is_dir() and item.stat().st_ino == self._number), None)
        except FileNotFoundError:
            return None


class Weights:
    """A trainable model that lets go of its memory while a server has it. Threads may share it."""

    def __init__(self, inner: Trainable, held: Held | None = None) -> None:
        self.id, self.depth = inner.id, inner.depth
        self.skipped: tuple[str, ...] = tuple(getattr(inner, "skipped", ()))
        self.disk_bytes: int | None = getattr(inner, "disk_bytes", None)
        self.inner = inner  # closed or not, it still counts tokens
        self._held, self._open = held, True
        self._lock = threading.RLock()

    def opened(self) -> Trainable:
        """The model in this process, loaded if need be. Raises `ModelError`."""
        with self._lock:
            if not self._open:
                assert self._held is not None
                folder = self._held.path()
                if folder is None:
                    raise ModelError(f"the folder of the model {self.id} is gone, and its weights are held nowhere else")
                self.inner, self._open = self.inner.load(folder), True
            return self.inner

    def save(self, folder: Path) -> None:
        """Write the model to `folder`, and know it as its place from now on."""
        with self._lock:
            self.opened().save(folder)
            self._held = Held(folder)

    def folder(self, scratch: Callable[[str], Path]) -> Path:
        """A folder that holds the model, made under `scratch` where nobody has saved it."""
        with self._lock:
            found = self._held.path() if self._held else None
            if found is None:
                found = scratch("model")
                self.save(found)
            return found

    def let_go(self, scratch: Callable[[str], Path]) -> None:
        """Free the memory; the model stays in its folder."""
        with self._lock:
            if self._open:
                self.folder(scratch)
                self.inner.close()
                self._open = False

    def close(self) -> None:
        with self._lock:
            if self._open:
                self.inner.close()
            self._open = False
