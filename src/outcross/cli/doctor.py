"""`outcross doctor`: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from outcross.cli.host import host_memory
from outcross.cli.shell import command, say

NEEDED = ("msgspec", "numpy", "pyarrow", "pydantic", "pyyaml", "rich", "scipy", "typer")
EXTRAS = {
    "torch": ("torch", "transformers", "accelerate", "peft", "safetensors", "gguf"),
    "tasks": ("reasoning-gym",),
    "math": ("math-verify",),
    "http": ("aiohttp",),
    "tables": ("polars", "pandas", "duckdb"),
}
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and what to do when it is not well."""

    name: str
    found: str
    fix: str = ""
    stops: bool = False  # nothing works until it is fixed


@command
def doctor(folder: Path = typer.Argument(Path(), help="Where runs will go.", metavar="[FOLDER]", show_default="here")) -> None:
    """Look at this machine and say what to fix.

    Python, packages, devices, memory, disk and network settings.
    """
    findings = [*_python(), *_packages(), *_machine(), _sandbox(), *_disk(folder), *_network()]
    for item in findings:
        mark = "✗" if item.stops else "!" if item.fix else "✓"
        say(f"{mark} {item.name:<14} {item.found}")
        if item.fix:
            say(f"  {'':<14} → {item.fix}")
    if any(item.stops for item in findings):
        raise typer.Exit(1)


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    old = sys.version_info < (3, 11)
    yield Finding("python", found, "install Python 3.11 or later" if old else "", stops=old)


def _packages() -> Iterator[Finding]:
    yield Finding(
        "outcross",
        _version("outcross") or "not installed",
        "" if _version("outcross") else "pip install outcross",
        stops=not _version("outcross"),
    )
    missing = [name for name in NEEDED if not _version(name)]
    yield Finding("needed", _listed(NEEDED), f"pip install {' '.join(missing)}" if missing else "", stops=bool(missing))
    for extra, names in EXTRAS.items():
        lacking = [name for name in names if not _version(name)]
        yield Finding(f"extra {extra}", _listed(names), f"pip install 'outcross[{extra}]'" if lacking else "")


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {_version(name) or 'missing'}" for name in names)


def _machine() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", f"{usable} usable cores of {os.cpu_count()}")
    yield _memory()
    if _version("torch"):
        import torch

        if torch.cuda.is_available():
            for index in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(index)
                yield Finding(f"gpu {index}", f"{torch.cuda.get_device_name(index)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")
        elif torch.backends.mps.is_available():
            yield Finding("gpu", "Apple (mps)")
        else:
            built = (
                "this PyTorch is built without CUDA"
                if torch.version.cuda is None
                else "no GPU is visible; see nvidia-smi and CUDA_VISIBLE_DEVICES"
            )
            yield Finding("gpu", f"none: {built}; models up to about 1 B parameters train on a CPU, slowly")


def _memory() -> Finding:
    found = host_memory()
    if found is None:
        return Finding("memory", "unknown on this system")
    free, total = found
    return Finding("memory", f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free", "close other programs" if free < 1e9 else "")


def _sandbox() -> Finding:
    from outcross.verify.sandbox.choice import best

    level, why = best()
    found = f"isolation level for programs: {level}"
    fix = "install bubblewrap (apt-get install bubblewrap) and allow user namespaces, or give `code` a container command"
    return Finding("sandbox", f"{found}; {why}" if why else found, fix if why else "")


def _disk(folder: Path) -> Iterator[Finding]:
    there = next((path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir()), Path("/"))
    usage = shutil.disk_usage(there)
    tight = usage.free < 2e9
    yield Finding(
        "disk", f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free at {folder}", "free some space, or use --out" if tight else ""
    )
    try:
        with tempfile.TemporaryFile(dir=there):
            yield Finding("write", f"{folder} can be written")
    except OSError as error:
        yield Finding(
            "write",
            f"{folder} cannot be written: {error.strerror}",
            "run elsewhere, or pass --out a folder that can be written",
            stops=True,
        )


def _network() -> Iterator[Finding]:
    offline = [name for name in OFFLINE if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")]
    if offline:
        yield Finding(
            "hub", f"offline by {', '.join(offline)}: models and data must be local folders", f"unset {' '.join(offline)} to use hub names"
        )
    else:
        cache = os.environ.get("HF_HOME") or "~/.cache/huggingface"
        yield Finding("hub", f"allowed (not tried; HF_HUB_OFFLINE=1 forbids it); cache in {cache}")
    yield Finding("telemetry", "none, ever")
