"""New weights for a running server: the low-rank adapters that were trained since the weights it was started with.

vLLM: POST /v1/load_lora_adapter, /v1/unload_lora_adapter (started with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True).
SGLang: POST /load_lora_adapter, /unload_lora_adapter (started with --enable-lora); requests name base and adapter, `base:adapter`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from outcross.models.served_process import get

log = logging.getLogger("outcross.models.served")
LOAD_S = 120.0
ENVIRONMENT = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
_PREFIXES = ("/v1", "")  # vLLM, SGLang
Scratch = Callable[[str], Path]


class Adapters:
    """What each fit added, by model, and how the server takes it. `able`: None until it was tried."""

    def __init__(self) -> None:
        self.able: bool | None = None
        self._grown: dict[str, tuple[str, Path]] = {}  # model → the model it was fitted from, and the adapter's folder
        self._prefix = ""

    def note(self, model: str, start: str, folder: Path) -> None:
        """`model` is `start` and the adapter in `folder`."""
        self._grown[model] = (start, folder)

    def load(
        self, host: str, port: int, names: dict[str, str], base: str, model: str, unused: Iterable[str], scratch: Scratch
    ) -> str | None:
        """What the server that runs with `base` calls `model` from now on; None when it must be started with it instead."""
        parts = self._way(base, model)
        if not parts or self.able is False:
            return None
        for key in unused:
            get(host, port, f"{self._prefix}/unload_lora_adapter", {"lora_name": _adapter_name(key)}, LOAD_S)
            del names[key]
        folder = parts[0] if len(parts) == 1 else _written(parts, scratch("adapter"))
        answers = []
        for prefix in _PREFIXES if self.able is None else (self._prefix,):
            asked = {"lora_name": _adapter_name(model), "lora_path": str(folder)}
            status, said = get(host, port, f"{prefix}/load_lora_adapter", asked, LOAD_S)
            if status == 200:
                self.able, self._prefix = True, prefix
                return _adapter_name(model) if prefix else f"{names[base]}:{_adapter_name(model)}"
            answers.append(f"{prefix}/load_lora_adapter: {status} {said[:200].decode(errors='replace')}")
        if self.able is None:
            self.able = False
        log.warning("the server does not take new weights while it runs (%s); it is started anew with them", "; ".join(answers))
        return None

    def _way(self, base: str, model: str) -> list[Path]:
        """The adapters that lead from `base` to `model`, in order; none when there is no way."""
        found: list[Path] = []
        while model != base:
            if model not in self._grown:
                return []
            model, folder = self._grown[model]
            found.append(folder)
        return found[::-1]


def _adapter_name(model: str) -> str:
    return f"adapter-{model[-16:]}"


def _written(parts: list[Path], folder: Path) -> Path:
    from outcross.train.adapter import read_adapter, stacked

    stacked([read_adapter(part) for part in parts]).save(folder)
    return folder
