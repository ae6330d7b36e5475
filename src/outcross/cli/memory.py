"""What training on this machine will take of its memory, told before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from outcross.cli.host import host_memory

if TYPE_CHECKING:
    from outcross.recipe import Learn, Recipe
    from outcross.stages import Model, Role
    from outcross.train.memory import Memory

PAIRS = frozenset({"dpo", "ipo", "bt"})  # losses of which a row has two texts


def memory_lines(recipe: Recipe, models: Mapping[Role, Model]) -> Iterator[str]:
    """A line for each fit of a model that trains here, and one more where it will not fit; nothing of models that train in no time."""
    told: set[str] = set()
    for phase in recipe.phases:
        for role, learn in phase.learn.items():
            for line in _lines(role, learn, models[role], again=recipe_rounds(recipe, role) > 1):
                if line not in told:
                    told.add(line)
                    yield line


def recipe_rounds(recipe: Recipe, role: Role) -> int:
    """How often a role is taught: from the second time on its first model is there beside the one that holds."""
    return sum(phase.rounds * phase.inner for phase in recipe.phases if role in phase.learn)


def _lines(role: Role, learn: Learn, model: Model, *, again: bool) -> Iterator[str]:
    ask = getattr(model, "training_memory", None)
    if ask is None:
        return
    loss = getattr(learn.objective, "loss", None)
    found: Memory = ask(learn.plan, texts=2 if getattr(loss, "name", "") in PAIRS else 1, held=1 + again)
    free, total = _memory_of(found.device) or (None, None)
    place = "GPU memory" if found.device == "cuda" else "memory"
    has = f", of {_size(total)}" if total else ""
    yield f"{place} to train {role}: about {_size(found.total)}{has}: {_parts(found)}"
    if total and found.total > total:
        yield f"! training {role} will not fit into {_size(total)} of {place}; {remedies(model, found, learn.plan.max_length)}"
    elif free is not None and found.total - found.held > free:
        yield f"! training {role} may not fit: {_size(free)} of {place} are free now; end what else runs, or {remedies(model, found, learn.plan.max_length)}"


def _parts(found: Memory) -> str:
    parts = [
        ("libraries", found.libraries),
        ("models held", found.held),
        ("weights that are trained", found.weights),
        ("gradients", found.gradients),
    ]
    parts += [("optimiser", found.optimizer), (f"activations of {found.rows} × {found.length} tokens", found.activations)]
    each = f"; in each of {found.processes} processes, and one waits for them" if found.processes > 1 else ""
    return ", ".join(f"{name} {_size(amount)}" for name, amount in parts if amount) + each


def remedies(model: Model, found: Memory, length: int) -> str:
    """What to change in the run file, what helps most first."""
    machine = getattr(model, "machine", None)
    small = [f"machine.micro_batch below {found.rows}"] if found.rows > 1 else []
    again = [] if getattr(machine, "gradient_checkpointing", True) else ["machine.gradient_checkpointing: true"]
    shorter = [f"a plan.max_length below {length}"]
    fewer = [f"machine.processes below {found.processes}"] if found.processes > 1 and found.device == "cpu" else []
    low = ["lora on the model"] if getattr(model, "lora", None) is None else []
    state = found.weights + found.gradients + found.optimizer
    order = [*low, *fewer, *small, *again, *shorter] if state > found.activations else [*small, *again, *shorter, *fewer, *low]
    return f"set {', or '.join(order)}"


def _memory_of(device: str) -> tuple[int, int] | None:
    """Bytes free and in all; of GPUs, of the one with least."""
    if device == "cpu":
        return host_memory()
    if device == "cuda":
        import torch

        found = [torch.cuda.mem_get_info(index) for index in range(torch.cuda.device_count())]
        return min(free for free, _ in found), min(total for _, total in found)
    return None


def _size(amount: float) -> str:
    from outcross.report.numbers import size

    return size(amount)
