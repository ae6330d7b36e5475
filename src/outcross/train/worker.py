"""One of the processes of a fit on several devices; see `outcross.train.exchange` for what it reads and writes.

torchrun … -m outcross.train.worker FOLDER
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outcross.errors import OutcrossError
from outcross.train.agent import AGENT
from outcross.train.tether import die_with

if TYPE_CHECKING:
    from outcross.train.exchange import Job
    from outcross.train.stopping import Look
    from outcross.train.team import Team

WAIT = timedelta(days=7)  # for another process: the first may be waiting for a probe. One that ends is noticed at once
PATIENCE = 5.0  # seconds in which `torchrun` sees who ended first, and ends the others


def main(folder: Path) -> int:
    """Train, and write what came of it; the exit code."""
    die_with(int(os.environ[AGENT]))
    rank = int(os.environ["RANK"])
    with (folder / f"log-{rank}.txt").open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    from outcross.train.team import Deserted

    try:
        _train(folder)
    except Deserted as error:
        time.sleep(PATIENCE)
        return error.exit_code
    except OutcrossError as error:
        _write_fault(folder, rank, error)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _train(folder: Path) -> None:
    import torch
    from safetensors.torch import save_model

    from outcross.train import exchange, trainer
    from outcross.train.policy import PolicyCost
    from outcross.train.reward import RewardCost

    job, rows = exchange.read_job(folder), exchange.read_rows(folder)
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    device = torch.device(job.device, int(os.environ["LOCAL_RANK"])) if job.device == "cuda" else torch.device(job.device)
    team = _team(job, device)
    model = _loaded(folder, job).to(device)
    with (folder / exchange.STEPS).open("ab", buffering=0) as steps:

        def seen(step: int, ids: Sequence[str], **facts: float) -> None:
            if team.rank == 0:
                steps.write(exchange.line(exchange.Step(step, ids, facts)))

        adapter = trainer.train(
            model,
            rows,
            PolicyCost(rows, device, packing=job.packing) if job.read_off is None else RewardCost(rows, job.read_off),
            plan=job.plan,
            seed=job.seed,
            seen=seen,
            micro_batch=job.micro_batch,
            lora=job.lora,
            task=job.task,
            autocast=job.autocast,
            checkpointing=job.checkpointing,
            progress=exchange.progress(job, first=team.rank == 0),
            look=_look(folder, job, model, team, device),
            team=team,
        )
    if team.rank == 0:
        save_model(model, str(folder / exchange.WEIGHTS))
        if adapter is not None:
            adapter.save(folder / exchange.ADAPTER)


def _look(folder: Path, job: Job, model: Any, team: Team, device: Any) -> Look | None:
    """How the fit is looked at: the first process asks who started it, and tells the others."""
    import torch

    from outcross.train import exchange
    from outcross.train.adapter import merged
    from outcross.train.stopping import Look

    if job.stop is None:
        return None

    def measure() -> float:
        own = exchange.ask(folder, merged(model)) if team.rank == 0 else 0.0
        return float(team.added(torch.tensor([own], dtype=torch.float64, device=device))[0])

    return Look(*job.stop, measure)


def _team(job: Job, device: Any) -> Team:
    """The process group, kept to ourselves: what libraries read of `torchrun` in the environment is removed."""
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    from outcross.train.team import Team

    store, rank, size = next(iter(rendezvous("env://")))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        del os.environ[name]
    local = int(os.environ.pop("LOCAL_RANK"))
    store = distributed.PrefixStore("outcross", store)
    if device.type == "cuda":
        torch.cuda.set_device(local)
        return Team(rank, size, distributed.ProcessGroupNCCL(store, rank, size, WAIT), job.seed)
    return Team(rank, size, distributed.ProcessGroupGloo(store, rank, size, WAIT), job.seed)


def _loaded(folder: Path, job: Job) -> Any:
    """The model to train, as it was handed over."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    from outcross.train.exchange import START

    logging.disable_progress_bar()
    kind = AutoModelForCausalLM if job.task == "CAUSAL_LM" else AutoModelForSequenceClassification
    return kind.from_pretrained(folder / START, dtype=getattr(torch, job.dtype), attn_implementation=job.attention).eval()


def _write_fault(folder: Path, rank: int, error: OutcrossError) -> None:
    """Whole or not at all."""
    import msgspec

    from outcross.train.exchange import Fault

    unfinished = folder / f"error-{rank}.tmp"
    unfinished.write_bytes(msgspec.json.encode(Fault(type(error).__name__, str(error))))
    unfinished.replace(unfinished.with_suffix(".json"))


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # threads of a process group whose other members are gone may wait for them
