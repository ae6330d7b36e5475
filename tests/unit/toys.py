"""A small plan on the toy model, for tests to bend: a bench, a recipe of one phase, a gate that says what it is told, and a judge."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from outcross.curate.dedup import Dedup
from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.evaluate.diversity import Diversity
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.generate.draw import Draw
from outcross.models.tabular import Tabular
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe, Waived
from outcross.stages import Context, FitPlan, Model, Seen, Stage
from outcross.train.objectives import Imitate
from outcross.types import NLL, Comparison, Decision, Example, Ground, Group, Loss, Origin, Sample, Score, Task
from outcross.verify.exact import Exact

PAIRS = [(a, b) for a in range(7) for b in range(7)]
HELD_OUT = tuple(Task(f"{a}+{b}", f"{a}+{b}=", str(a + b)) for a, b in PAIRS if (a * 5 + b) % 4 == 0)
TASKS = tuple(Task(f"{a}+{b}", f"{a}+{b}=", str(a + b)) for a, b in PAIRS if (a * 5 + b) % 4)
ATTESTED = Origin("real", "attested", "toy", note="the test's author")
REAL = tuple(Example(f"real-{i}", f"{i}=", str(i), origin=ATTESTED) for i in range(10))  # shorter than what is drawn
PROBES = (PassRate(HELD_OUT, Draw(n=2), Exact()), Diversity(HELD_OUT, Draw(n=1), replicates=20), RealLoss(REAL))
PLAN = FitPlan(lr=0.5, epochs=2, batch=16)
LEARN = Learn(Imitate(), PLAN)
MIX = Mixture(real_floor=0.5, real_epochs=50)
FREE = Mixture(floor=Waived("a test"))
CLOCKS = ("responses.db", "responses.db-wal", "responses.db-shm", "responses.db.lock", "metrics.jsonl", "lock", "logs")


@dataclass(frozen=True)
class Says(Stage):
    """A gate that promotes (p) or refuses (r), one letter a decision; the last one counts for all after it."""

    letters: str = "p"
    alpha: float = 0.0

    def __call__(self, comparison: Comparison, margins: Mapping[str, float], /) -> Decision:
        letter = self.letters[min(comparison.round, len(self.letters) - 1)]
        return Decision(letter == "p", f"round {comparison.round}", self.name, gated=self.alpha > 0)


def bench(**more: Any) -> Bench:
    return Bench(**{"tasks": TASKS, "held_out": HELD_OUT, "real": REAL, "probes": PROBES, "gate": Says(), **more})


def phase(name: str = "train", **more: Any) -> Phase:
    fields = {"generate": Draw(n=6), "learn": {"policy": LEARN}, "verify": (Exact(),), "curate": (Dedup(),), "mix": MIX, "rounds": 2}
    return Phase(name, **{**fields, **more})


def recipe(*phases: Phase, **of_bench: Any) -> Recipe:
    return Recipe("toy", "", bench(**of_bench), phases or (phase(),))


def model() -> Tabular:
    return Tabular([str(i) for i in range(13)])


def play(made: Recipe, root: Path, models: Mapping[str, Model] | None = None, *, seed: int = 3, **options: Any) -> RunDir:
    """Run, or go on with, a recipe; its record."""
    run(made, models or {"policy": model()}, root, seed=seed, options=Options(**options))
    return RunDir(root)


def outcomes(found: RunDir) -> list[str]:
    return [turn.record["outcome"] for turn in found.rounds()]


def record(folder: Path) -> dict[str, bytes]:
    """Every byte of a run but clocks, attempts and the journal's pages."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if inside.parts[0] not in CLOCKS:
            if path.is_symlink():
                found[str(inside)] = os.fsencode(path.readlink())
            elif path.is_file():
                found[str(inside)] = path.read_bytes()
    return found


class AnyLoss(Tabular):
    """The toy model, learning by "nll" whatever the loss is called: for the way of examples that it could not learn."""

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> AnyLoss:
        plain = (Example(e.id, e.prompt, e.completion, NLL, e.weight, origin=e.origin) for e in examples)
        return self._own(super().fit(plain, plan=plan, reference=reference, seed=seed, seen=seen))

    def load(self, folder: Path, /) -> AnyLoss:
        return self._own(super().load(folder))

    @staticmethod
    def _own(made: Tabular) -> AnyLoss:
        made.__class__ = AnyLoss
        assert isinstance(made, AnyLoss)
        return made


@dataclass(frozen=True)
class Judge(Stage):
    """A verifier that claims to ask the model in `roles`; it passes even answers."""

    roles: tuple[str, ...] = ()  # type: ignore[misc]
    label: str = "judge"
    version: str = "1"  # type: ignore[misc]
    ground: Ground = "judged"

    @property
    def name(self) -> str:
        return self.label

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple(map(self._judged, group.samples)))

    def _judged(self, sample: Sample) -> Sample:
        passed = sample.text[-1:] in tuple("02468")
        score = Score(self.name, self.version, "pass" if passed else "fail", float(passed))
        return sample if sample.error else Sample(sample.id, sample.turns, sample.origin, sample.seat, (*sample.scores, score))


@dataclass(frozen=True)
class Bent(Stage):
    """A stage that does what `how` does to its input: `how` takes and gives lists."""

    how: Callable[[list[Any]], list[Any]]
    inner: Any = None
    ground: ClassVar[Ground] = "exact"
    trims: ClassVar[bool] = False
    uses_peers: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return getattr(self.inner, "name", "bent")

    def __call__(self, ctx: Context, items: Iterable[Any], /) -> Iterator[Any]:
        given = list(items) if self.inner is None else list(self.inner(ctx, items))
        return iter(self.how(given))


def with_loss(name: str) -> Bent:
    """An objective: imitate what passed, under another loss."""
    return Bent(_under_pg if name == "pg" else list, Imitate())


def _under_pg(examples: list[Example]) -> list[Example]:
    return [Example(e.id, e.prompt, e.completion, Loss("pg"), e.weight, origin=e.origin) for e in examples]
