"""Training in this process, or in several others of this machine (`Machine.processes`).

The others are started by `torchrun`, get the weights and rows through a folder (`outcross.train.exchange`), and end with this process, however it ends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from safetensors import safe_open

from outcross import errors
from outcross.errors import ModelError
from outcross.stages import FitPlan, Seen
from outcross.train import exchange, trainer
from outcross.train.adapter import Adapter, read_adapter
from outcross.train.machine import Lora, Machine
from outcross.train.progress import Progress
from outcross.train.quiet import quiet
from outcross.train.reward import RewardCost
from outcross.train.rows import Rows
from outcross.train.stopping import Look

LOOK = 0.1  # seconds between two looks at what the processes have done
CAUSE = re.compile(r"Root Cause.*?rank +: (\d+).*?exitcode +: (-?\d+)", re.DOTALL)  # in what torchrun reports
TAIL = 12  # lines of a log that an error shows


def train(
    model: Any,
    rows: Rows,
    cost: trainer.Cost,
    *,
    machine: Machine,
    plan: FitPlan,
    seed: int,
    seen: Seen,
    micro_batch: int,
    lora: Lora | None = None,
    task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM",
    autocast: bool = False,
    checkpointing: bool = False,
    progress: Progress | None = None,
    look: Look | None = None,
) -> Adapter | None:
    """What `trainer.train` does, in as many processes as `machine` says, each with its share of the rows of every step (`micro_batch` at once).

    Gradients of a step are added up before they are clipped, so that the weights are those of one process up to rounding: with dropout, of which
    each process draws its own, they are as good and not the same. Equal arguments give equal weights. Raises `ModelError` as `trainer.train` does, and
    when a process is ended from outside.
    """
    if machine.processes == 1:
        return trainer.train(
            model,
            rows,
            cost,
            plan=plan,
            seed=seed,
            seen=seen,
            micro_batch=micro_batch,
            lora=lora,
            task=task,
            autocast=autocast,
            checkpointing=checkpointing,
            progress=progress,
            look=look,
        )
    device = model.device
    job = exchange.Job(
        plan=replace(plan, stop=None),
        stop=None if look is None else (look.probe, look.every, look.patience),
        seed=seed,
        micro_batch=micro_batch,
        lora=lora,
        task=task,
        autocast=autocast,
        checkpointing=checkpointing,
        packing=machine.packing,
        device=device.type,
        dtype=str(model.dtype).removeprefix("torch."),
        attention=getattr(model.config, "_attn_implementation", None),
        threads=_threads(machine) if device.type == "cpu" else None,
        read_off=cost.read_off if isinstance(cost, RewardCost) else None,
        progress=None if progress is None else (str(progress.folder.resolve()), progress.fit, progress.seconds),
    )
    with _folder(progress) as folder:
        model.to("cpu")  # its place on the device is another process's
        exchange.write_job(folder, job)
        exchange.write_rows(folder, rows)
        with quiet():
            model.save_pretrained(folder / exchange.START)
        _run(folder, machine, seen, lambda: None if look is None else _look(folder, model, device, look))
        _take(model, folder / exchange.WEIGHTS)
        model.to(device)
        return read_adapter(folder / exchange.ADAPTER) if lora is not None else None


def _threads(machine: Machine) -> int:
    """CPU threads of each process."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return machine.threads or max(1, usable // machine.processes)


@contextmanager
def _folder(progress: Progress | None) -> Iterator[Path]:
    """An empty folder, beside the checkpoints where there are any, since those lie on a disk with room; gone afterwards."""
    if progress is None:
        with tempfile.TemporaryDirectory(prefix="outcross-fit-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    folder = progress.folder / "processes"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _look(folder: Path, model: Any, device: torch.device, look: Look) -> None:
    """Answer the processes' question, if there is one, what the weights that they have come to are worth."""
    if exchange.asked(folder):
        _take(model, folder / exchange.LOOK)
        model.to(device)
        exchange.answer(folder, look.measure())
        model.to("cpu")


def _run(folder: Path, machine: Machine, seen: Seen, between: Callable[[], None]) -> None:
    """Let the processes train, tell `seen` of each step, and do what is to be done `between` two looks at them. Whatever is raised here ends them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
    environment |= {"OMP_NUM_THREADS": str(_threads(machine)), "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    (folder / exchange.STEPS).touch()
    with (folder / "log.txt").open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "outcross.train.agent", str(os.getpid()), str(machine.processes), str(folder.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C in a terminal is ours to handle
        )
    try:
        code = _follow(agent, folder / exchange.STEPS, seen, between)
    finally:
        agent.kill()  # those it started end with it
        agent.wait()
    if code:
        raise _fault(folder)


def _follow(agent: subprocess.Popen[bytes], steps: Path, seen: Seen, between: Callable[[], None]) -> int:
    """Tell `seen` what is written, until the processes have ended; their exit code."""
    rest = b""
    with steps.open("rb") as file:
        while True:
            code = agent.poll()
            *lines, rest = (rest + file.read()).split(b"\n")
            for text in lines:
                found = msgspec.json.decode(text, type=exchange.Step)
                seen(found.step, found.ids, **found.facts)
            if code is not None:
                return code
            between()
            try:
                agent.wait(LOOK)
            except subprocess.TimeoutExpired:
                continue


def _take(model: Any, weights: Path) -> None:
    """Put trained weights into `model`, one after the other; tied ones are there once."""
    state = model.state_dict()
    with safe_open(weights, "pt") as file, torch.no_grad():
        for name in file.keys():  # noqa: SIM118  not a mapping
            state[name].copy_(file.get_tensor(name))
    model.requires_grad_(True).eval()


def _fault(folder: Path) -> errors.OutcrossError:
    """The first error that a process raised on purpose, or how the one went that was ended first."""
    told = sorted(folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if told:
        fault = msgspec.json.decode(told[0].read_bytes(), type=exchange.Fault)
        return {"ConfigError": errors.ConfigError}.get(fault.kind, ModelError)(fault.said)
    log = (folder / "log.txt").read_text(errors="replace")
    how = "the processes of a fit broke off"
    if found := CAUSE.search(log):
        own = folder / f"log-{found[1]}.txt"
        log = own.read_text(errors="replace") if own.is_file() else ""
        how = f"process {found[1]} of a fit ended with exit code {found[2]}"
    said = "\n".join(log.strip().splitlines()[-TAIL:])
    end = f"Its last words:\n{said}" if said else "It left no word."
    return ModelError(f"{how}; if memory ran out, lower processes, micro_batch or max_length. {end}")
