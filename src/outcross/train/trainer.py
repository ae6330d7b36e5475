"""The one trainer: `transformers.Trainer` with our order of examples, our losses and our way out of full memory.

One item of its data loader is one optimiser step: the rows that step sees. `training_step` cuts it into micro-batches,
which makes a step repeatable when memory runs out half way, and lets rows of similar length share a micro-batch.
"""

from __future__ import annotations

import copy
import math
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from outcross.errors import ModelError
from outcross.stages import FitPlan, Seen
from outcross.train.adapter import Adapter, taken
from outcross.train.encode import optimiser_steps
from outcross.train.forward import is_out_of_memory
from outcross.train.machine import Lora
from outcross.train.progress import Checkpoint, Progress
from outcross.train.rows import Rows
from outcross.train.stopping import FACT, Look, Looks, looked_at
from outcross.train.team import Team


def learning_rate_factor(step: int, *, steps: int, plan: FitPlan) -> float:
    """What the learning rate is multiplied with at `step` of `steps`, counted from 0.

    It rises over the first `plan.warmup` share of steps, from 1/(w+1) and not from 0, so that no step is wasted; then it
    stays (constant), falls along a line (linear) or half a cosine wave (cosine) to reach 0 just after the last step.
    """
    warm = int(plan.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(1, steps - warm)
    if plan.schedule == "linear":
        return 1.0 - done
    if plan.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


class Cost(Protocol):
    """What rows of a step add to its loss. `chosen` and `step` are places in the trainer's rows."""

    def ahead(self, model: Any, chosen: Sequence[int], micro_batch: int) -> Tensor:
        """What must be known of the whole step before its first micro-batch: numbers that add up over the rows; no gradient."""

    def of(self, model: Any, chosen: Sequence[int], step: Sequence[int], ahead: Tensor) -> Tensor:
        """What `chosen`, some rows of a step, add: added up over the step, its loss, however it was cut up. `ahead` is that of all its rows."""


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Says when an optimiser step has been taken, and stops after the one that was enough."""

    def __init__(self, taken: Callable[[], bool]) -> None:
        self.taken = taken

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= self.taken()


class OutcrossTrainer(Trainer):  # type: ignore[misc]
    """Trains on encoded rows in a given order, from the last checkpoint of `progress` on, until `looks` have seen enough. `cost` gives the losses;
    gradients clipped to norm 1.

    Raises `ModelError` when a loss or gradient is not finite, naming step and examples, and when one single row does
    not fit into memory.
    """

    def __init__(
        self,
        model: Any,
        args: Any,
        *,
        rows: Rows,
        cost: Cost,
        steps: list[list[int]],
        plan: FitPlan,
        seen: Seen,
        micro_batch: int,
        autocast: bool,
        progress: Progress | None,
        resumed: Checkpoint | None,
        looks: Looks | None,
        team: Team,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=steps, callbacks=[_Steps(self._taken)])
        self.remove_callback(PrinterCallback)
        self.rows, self.cost, self.steps, self.plan, self.seen = rows, cost, steps, plan, seen
        self.progress, self.resumed, self.looks, self.team = progress, resumed, looks, team
        self.use_cache = bool(model.config.use_cache)
        self.before = 0 if resumed is None else resumed.step  # optimiser steps taken by an earlier attempt
        self.told: list[Mapping[str, float]] = [] if resumed is None else list(resumed.facts)
        self.facts: dict[str, float] = {}  # of the step under way
        self.micro_batch = micro_batch if resumed is None else min(micro_batch, resumed.micro_batch)
        self.autocast = partial(torch.autocast, args.device.type, dtype=torch.bfloat16, enabled=autocast)

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.steps[self.before :], batch_size=None, shuffle=False)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        found: torch.optim.Optimizer = super().create_optimizer(model)
        if self.resumed is not None:
            found.load_state_dict(dict(self.resumed.optimizer))
        return found

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        self._created_lr_scheduler = True
        steps = len(self.steps)
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer, lambda step: learning_rate_factor(self.before + step, steps=steps, plan=self.plan)
        )
        return self.lr_scheduler

    @property
    def step(self) -> int:
        """The optimiser step under way, of all of the fit."""
        return self.before + int(self.state.global_step)

    def _taken(self) -> bool:
        """Look at the model that the step has led to and keep a checkpoint, where they are due, and tell of the step; whether it was enough."""
        if self.looks is not None and self.looks.due(self.step, len(self.steps)):
            with looked_at(self.model, use_cache=self.use_cache):
                self.facts[FACT] = self.looks.take(self.step, _learning(self.model))
        self.told.append(dict(self.facts))
        self.seen(self.step - 1, [self.rows.ids[row] for row in self.steps[self.step - 1]], **self.facts)
        over = self.looks is not None and self.looks.over
        if self.progress is not None and self.progress.due() and self.step < len(self.steps) and not over:
            self.progress.keep(self._checkpoint())
        return over

    def _checkpoint(self) -> Checkpoint:
        weights, optimizer, random = _learning(self.model), self.optimizer.state_dict(), _random_state(self.args.device)
        found = Checkpoint(self.step, self.told, self.micro_batch, weights, optimizer, random)
        return found if self.looks is None else replace(found, best=self.looks.best, course=self.looks.course)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def training_step(self, model: Any, inputs: list[int], num_items_in_batch: Any = None) -> Tensor:
        """Gradients of one optimiser step, and its loss. Memory that runs out halves the micro-batch and repeats the
        step with the same random numbers from gradients of zero."""
        model.train()
        if self.resumed is not None and self.state.global_step == 0:
            _restore_random_state(self.resumed.random, self.args.device)
        self.team.draw_anew(self.step)
        order = sorted(self.team.mine(inputs, self._work), key=self.rows.length)
        ahead = self.team.added(self._fitting(model, order, lambda: self._ahead(model, order)))
        loss = self._fitting(model, order, lambda: self._accumulate(model, order, inputs, ahead))
        self.team.add_gradients(model.parameters())
        loss = self.team.added(loss)
        if not bool(loss.isfinite()):
            raise self._not_finite("loss", float(loss))
        self.facts = {"loss": float(loss)}
        return loss

    def _work(self, row: int) -> int:
        """Tokens of a row, with those of the answer beside it."""
        return self.rows.length(row) + (len(self.rows.others[row].ids) if row in self.rows.others else 0)

    def _fitting(self, model: Any, order: Sequence[int], compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives for the rows of `order`, with a micro-batch that fits into memory."""
        state = _random_state(self.args.device)
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self.micro_batch = self._halved(len(order))
            model.zero_grad(set_to_none=True)
            if self.args.device.type == "cuda":
                torch.cuda.empty_cache()
            _restore_random_state(state, self.args.device)

    def _ahead(self, model: Any, order: Sequence[int]) -> Tensor:
        with self.autocast():
            return self.cost.ahead(model, order, self.micro_batch).to(self.args.device)

    def _accumulate(self, model: Any, order: Sequence[int], step: Sequence[int], ahead: Tensor) -> Tensor:
        """The loss of a step's rows in `order`, with gradients added up over micro-batches."""
        found = torch.zeros((), device=self.args.device)
        for start in range(0, len(order), self.micro_batch):
            with self.autocast():
                part = self.cost.of(model, order[start : start + self.micro_batch], step, ahead)
            part.backward()
            found += part.detach()
        return found

    def _clip_grad_norm(self, model: Any) -> Tensor:
        norm: Tensor = torch.nn.utils.clip_grad_norm_(model.parameters(), self.args.max_grad_norm)
        if not bool(norm.isfinite()):
            raise self._not_finite("gradient norm", float(norm))
        self.facts |= {"gradient_norm": float(norm), "learning_rate": self.optimizer.param_groups[0]["lr"]}
        return norm

    def _halved(self, rows: int) -> int:
        if min(self.micro_batch, rows) == 1:
            step = self.step
            longest = max(self.rows.length(row) for row in self.steps[step])
            raise ModelError(
                f"out of memory in optimiser step {step} with a single example at a time ({longest} tokens at most); "
                "lower max_length, train with LoRA, or switch gradient_checkpointing on"
            )
        return min(self.micro_batch, rows) // 2

    def _not_finite(self, what: str, value: float) -> ModelError:
        step = self.step
        names = [self.rows.ids[row] for row in self.steps[step]]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return ModelError(
            f"the {what} is {value} in optimiser step {step}, with the examples {shown}; the model was not changed. "
            "Lower the learning rate, or look at these examples and their weights."
        )


def train(
    model: Any,
    rows: Rows,
    cost: Cost,
    *,
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
    team: Team | None = None,
) -> Adapter | None:
    """Train `model` in place on `rows`: all its weights, or adapters that are merged into them at the end, and returned.

    progress: where checkpoints are kept, and one that is there is gone on from; `seen` hears of the steps before it again. look: how the fit is
    looked at, where it may end early; the best weights are kept. team: the processes that do this together, each with all of the arguments.

    A fresh AdamW, the plan's schedule, gradient norm clipped to 1. Equal arguments give bitwise equal weights on a CPU
    with a fixed number of threads. The process's random generators are left as they were. Raises `ModelError`.
    """
    steps = optimiser_steps(len(rows), plan.batch, plan.epochs, seed, shuffle=plan.shuffle)
    use_cache = model.config.use_cache
    with tempfile.TemporaryDirectory() as folder, _own_randomness(seed, model.device):
        learner = model if lora is None else _adapted(model, lora, task)
        if checkpointing:
            learner.enable_input_require_grads()
            learner.activation_checkpointing_enable()
        resumed = None if progress is None else _resumed(learner, progress)
        looks = None if look is None else Looks(look) if resumed is None else Looks(look, resumed.course, resumed.best)
        learning = list(_learning(learner).values())
        team = team or Team()
        team.begin(learning)
        for step, facts in enumerate(() if resumed is None else resumed.facts):
            seen(step, [rows.ids[row] for row in steps[step]], **facts)
        OutcrossTrainer(
            learner,
            _arguments(folder, model, plan, len(steps) - (0 if resumed is None else resumed.step), seed),
            rows=rows,
            cost=cost,
            steps=steps,
            plan=plan,
            seen=seen,
            micro_batch=micro_batch,
            autocast=autocast,
            progress=progress,
            resumed=resumed,
            looks=looks,
            team=team,
        ).train()
        if looks is not None and not looks.last_is_best:
            _put(learner, looks.best)
        team.check_equal(learning)
        if checkpointing:
            learner.activation_checkpointing_disable()
            learner.disable_input_require_grads()
        adapter = None if lora is None else taken(learner)
        if lora is not None:
            learner.merge_and_unload()
    model.requires_grad_(True).zero_grad(set_to_none=True)
    model.config.use_cache = use_cache  # the Trainer switches it off, and it would be saved so
    model.eval()
    return adapter


def _resumed(learner: Any, progress: Progress) -> Checkpoint | None:
    """The checkpoint to go on from, its weights put into `learner`."""
    found = progress.last()
    if found is not None:
        _put(learner, found.weights)
    return found


def _learning(learner: Any) -> dict[str, Tensor]:
    """The weights that learn, by name."""
    return {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}


def _put(learner: Any, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(learner.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)


def _arguments(folder: str, model: Any, plan: FitPlan, steps: int, seed: int) -> Any:
    """Of all that the Trainer offers: AdamW and the loop. No checkpoints, logs, reports or progress bars."""
    device = next(model.parameters()).device
    args = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=plan.lr,
        weight_decay=plan.weight_decay,
        optim="adamw_torch_fused" if device.type in ("cpu", "cuda") else "adamw_torch",
        max_grad_norm=1.0,
        save_strategy="no",
        logging_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        use_cpu=device.type == "cpu",
        seed=seed % 2**32,
    )
    args._n_gpu = min(1, args.n_gpu)  # otherwise several visible GPUs would split our micro-batches
    return args


def _numbers(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from `seed`; the generators of the process, which the Trainer seeds, are put back. The Trainer takes the current GPU."""
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext(), torch.random.fork_rng(devices=_numbers(device)):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def _adapted(model: Any, lora: Lora, task: str) -> Any:
    """`model` with fresh low-rank adapters: with the head of a classifier, the only part that learns."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
        task_type=task,
    )
    with warnings.catch_warnings():  # peft 0.21 still asks for the name that transformers 5.23 deprecates
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", ".*fan_in_fan_out is set to False", UserWarning)  # peft sets it itself, rightly
        return get_peft_model(model, config)


def working_copy(model: Any, *, lora: bool) -> Any:
    """A copy to train: in float32 when all of it learns, since small steps vanish in bfloat16; else as it is."""
    found = copy.deepcopy(model)
    return found if lora else found.float()
