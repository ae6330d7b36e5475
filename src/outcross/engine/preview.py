"""A preview: a few tasks of the first round, generated, verified and curated for real, and what they took.

The tasks are asked exactly as the run's first round will ask them, and their answers go into the run's own journal: what a preview
has paid for, the run finds. Nothing else of the run is begun: a folder with a preview in it is still a fresh start.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import nsmallest
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from outcross.engine import canaries, steps, stopping
from outcross.engine.budget import Meter
from outcross.engine.executor import Executor
from outcross.engine.guards import BenchFacts, check_bench, check_floor, check_plan
from outcross.engine.journal import Journal
from outcross.engine.loop import Options
from outcross.engine.past import Recorded
from outcross.engine.place import open_journal
from outcross.engine.resume import check_same, manifest_of, seconds_before
from outcross.engine.store import RunDir, read_json, write_json
from outcross.engine.tables import decode_groups, rows_of
from outcross.engine.watch import Silent, Watch
from outcross.errors import ConfigError, StoreError
from outcross.recipe import Phase, Recipe, fingerprint
from outcross.stages import Context, Dialogue, Model, Remote, Role, Runner, Selector
from outcross.types import Group, Request, Response, Sample, Task

T = TypeVar("T")
FORMAT = 1
_SEVERAL = Request("", n=2)


class Used(msgspec.Struct, frozen=True):
    """What one step (0: the generator, then verifiers and curators) asked a role about one task. `requests` are questions, whether they
    were answered by the server or by the journal."""

    task: str
    step: int
    role: Role
    requests: int
    completions: int
    prompt_tokens: int
    completion_tokens: int
    money: float


class Pace(msgspec.Struct, frozen=True):
    """How fast a model answered what was really asked. `service` is the seconds of all requests together, those that waited for one of
    the endpoint's slots not counted while they waited; `busy` the seconds in which any was under way."""

    requests: int
    completion_tokens: int
    service: float
    busy: float


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """`preview.json`. `plan` is the fingerprint of the phase's stages and their models: settings beside it may change and the
    measurements hold. `asked` counts the requests that were not found in the journal, `spent` is what they cost; `in_all` is both over all
    previews in this folder. `one_by_one`: roles whose server ignores `n`, so that a question takes a request for each completion."""

    format: int = FORMAT
    time: str
    phase: str
    round: str
    seed: int
    plan: str
    recipe: str
    tasks: int
    used: tuple[Used, ...]
    pace: Mapping[Role, Pace]
    counts: tuple[Mapping[str, Any], ...]
    asked: int
    spent: float
    in_all: tuple[int, float] = (0, 0.0)
    one_by_one: tuple[Role, ...] = ()
    expected: Any = None


@dataclass(frozen=True)
class Row:
    """A sample of a preview, and where it was dropped and why when it was."""

    sample: Sample
    curator: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Seen:
    """What a preview gave: the rows by task, in the order of the tasks, and the record."""

    rows: tuple[tuple[Task, tuple[Row, ...]], ...]
    record: Preview
    facts: BenchFacts


def preview(
    recipe: Recipe,
    models: Mapping[Role, Model],
    root: Path,
    n: int,
    *,
    seed: int = 0,
    options: Options = Options(),
    watch: Watch = Silent(),
) -> Seen:
    """Ask about `n` tasks of the first phase's first round and measure it; at most all of them.

    More tasks later include these. Raises what `outcross.engine.loop.run` raises before it trains, and `ConfigError` for a recipe that
    generates nothing.
    """
    headings = check_plan(recipe, models, unsafe=options.unsafe, proofs=options.proofs)
    facts = check_bench(recipe.bench)
    check_floor(recipe, facts)
    stopping.check(recipe, facts)
    phase = previewed(recipe)
    target = RunDir(root)
    label = f"{phase.name}/0000" if phase.inner == 1 else f"{phase.name}/0000/0"
    with target.locked():
        if target.exists:
            check_same(target, manifest_of(recipe, models, seed, recipe.name, options.config, headings, options.keep_models))
        with closing(open_journal(target, options.journal, kind=_Watched)) as journal, tempfile.TemporaryDirectory() as folder:
            assert isinstance(journal, _Watched)
            meter = Meter(options.budget, journal, seconds_before(target))
            before, notes = meter.money, _Notes()
            part = steps.Part(notes.noted(phase, n), recipe.bench, facts, Path(folder), label, (), target.tombstones(), watch)
            (part.folder / "steps").mkdir()
            past = Recorded(target, (), recipe.bench.real or (), part.folder)
            ctx = Context(models, past, label, 0, seed, Executor(journal, meter))
            canaries.check(ctx, canaries.verifying(phase), "preview")
            counts = steps.generate(part, ctx)
            rows = _rows(part.folder, notes.order)
        record = Preview(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            phase=phase.name,
            round=label,
            seed=seed,
            plan=plan_of(phase, models),
            recipe=fingerprint(recipe),
            tasks=len(notes.order),
            used=notes.summed(),
            pace=journal.paces(models),
            counts=tuple(counts),
            asked=sum(map(len, journal.came.values())),
            spent=meter.money - before,
            one_by_one=tuple(role for role, model in models.items() if isinstance(model, Remote) and model.split(_SEVERAL)),
        )
        return Seen(rows, _with_earlier(record, target), facts)


def previewed(recipe: Recipe) -> Phase:
    """The phase that a preview is of: the first that generates. Raises `ConfigError` when none does."""
    for phase in recipe.phases:
        if phase.generate is not None:
            return phase
    raise ConfigError(
        f"the recipe {recipe.name!r} generates nothing, so there is nothing to preview; `outcross run` asks no model for data"
    )


def plan_of(phase: Phase, models: Mapping[Role, Model]) -> str:
    """What a preview's measurements depend on."""
    stages = (phase.generate, *phase.verify, *phase.curate)
    return fingerprint((stages, {role: model.id for role, model in models.items()}))


def keep(target: RunDir, record: Preview) -> None:
    """Write the record where `validate` and `run --dry-run` look for it."""
    with target.locked():
        write_json(target.root / "preview.json", record)


def kept(target: RunDir, recipe: Recipe, models: Mapping[Role, Model]) -> Preview | None:
    """The preview of this plan that the run's folder holds, or None. Of another plan it says nothing, nor does a damaged one."""
    found = _read(target)
    if found is None or not any(phase.generate for phase in recipe.phases):
        return None
    return found if found.plan == plan_of(previewed(recipe), models) else None


def takes_n(seen: Preview) -> frozenset[Role]:
    """The roles whose model gave several completions to one request."""
    return frozenset(item.role for item in seen.used if item.completions > item.requests) - set(seen.one_by_one)


def _read(target: RunDir) -> Preview | None:
    path = target.root / "preview.json"
    try:
        return msgspec.convert(read_json(path), Preview) if path.exists() else None
    except (StoreError, msgspec.ValidationError):
        return None


def _with_earlier(record: Preview, target: RunDir) -> Preview:
    """With what earlier previews spent. One that found all its answers in the journal measured no time; an earlier one of the plan did."""
    earlier = _read(target)
    asked, spent = (0, 0.0) if earlier is None else earlier.in_all
    pace = {**earlier.pace, **record.pace} if earlier is not None and earlier.plan == record.plan else record.pace
    return msgspec.structs.replace(record, pace=pace, in_all=(asked + record.asked, spent + record.spent))


def _rows(folder: Path, order: Sequence[Task]) -> tuple[tuple[Task, tuple[Row, ...]], ...]:
    found: dict[str, list[Row]] = {task.id: [] for task in order}
    for group in decode_groups(rows_of(folder / "groups.parquet")):
        found[group.task.id] += [Row(sample) for sample in group.samples]
    for row in rows_of(folder / "drops.parquet"):
        (group,) = decode_groups([row])
        found[group.task.id].append(Row(group.samples[0], row["curator"], row["reason"]))
    return tuple((task, tuple(found[task.id])) for task in order)


# ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class _Few:
    """`n` of the tasks that `inner` selects, in its order; of a larger `n` they are a part. Memory: `n` tasks."""

    n: int
    inner: Selector
    chosen: list[Task] = field(default_factory=list)

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Task]:
        numbered = ((ctx.seed_of("preview", task.id), place, task) for place, task in enumerate(self.inner(ctx, tasks)))
        few = nsmallest(self.n, numbered, key=lambda item: item[:2])
        self.chosen.extend(task for _, _, task in sorted(few, key=lambda item: item[1]))
        return iter(self.chosen)

    def at_most(self, tasks: int, /) -> int:
        return min(self.n, self.inner.at_most(tasks))


class _Watched(Journal):
    """The run's journal, which notes when a question was looked up in vain and when its answer came: what was really asked."""

    def __init__(self, path: Path, run: str = "", *, writes: bool = True, holder: Path | None = None) -> None:
        super().__init__(path, run, writes=writes, holder=holder)
        self.looked: dict[bytes, float] = {}
        self.came: dict[str, list[tuple[float, float, int]]] = {}  # by model: begun, ended, tokens written

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Response]:
        found = super().get(keys)
        now = time.monotonic()
        for key in keys:
            if key not in found:
                self.looked.setdefault(key, now)
        return found

    def put(self, answers: Iterable[tuple[bytes, str, Response]]) -> None:
        given, now = list(answers), time.monotonic()
        for key, model, answer in given:
            self.came.setdefault(model, []).append((self.looked.pop(key, now), now, answer.usage.completion_tokens))
        super().put(given)

    def paces(self, models: Mapping[Role, Model]) -> dict[Role, Pace]:
        return {
            role: pace(self.came[model.id], getattr(model, "in_flight", None)) for role, model in models.items() if model.id in self.came
        }


@dataclass
class _Notes:
    """What the stages of a preview ask, noted by task, step and role."""

    used: list[Used] = field(default_factory=list)
    order: list[Task] = field(default_factory=list)

    def noted(self, phase: Phase, n: int) -> Phase:
        """The phase on `n` tasks, watched."""
        stages = [_Noted(stage, number, self) for number, stage in enumerate((phase.generate, *phase.verify, *phase.curate))]
        verify, curate = tuple(stages[1 : 1 + len(phase.verify)]), tuple(stages[1 + len(phase.verify) :])
        few = _Few(n, phase.tasks, self.order)
        return dataclasses.replace(phase, tasks=few, generate=stages[0], verify=verify, curate=curate)

    def watched(self, ctx: Context, dialogue: Dialogue[T], task: str, step: int) -> Dialogue[T]:
        """The same dialogue; each question and answer is noted on the way through."""
        answer = None
        while True:
            try:
                ask = next(dialogue) if answer is None else dialogue.send(answer)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            answer = yield ask
            usage = answer.usage
            counts = (len(answer.completions), usage.prompt_tokens, usage.completion_tokens, usage.money)
            self.used.append(Used(task, step, ask.role, 1, *counts))

    def summed(self) -> tuple[Used, ...]:
        """By task, step and role, in the order of the tasks."""
        place = {task.id: index for index, task in enumerate(self.order)}
        found: dict[tuple[int, int, str], list[Used]] = {}
        for item in self.used:
            if item.task not in place:  # asked once, before the tasks: whether a model keeps a schema, say
                continue
            found.setdefault((place[item.task], item.step, item.role), []).append(item)
        return tuple(_sum(found[key]) for key in sorted(found))


def _sum(items: Sequence[Used]) -> Used:
    return Used(
        items[0].task,
        items[0].step,
        items[0].role,
        sum(item.requests for item in items),
        sum(item.completions for item in items),
        sum(item.prompt_tokens for item in items),
        sum(item.completion_tokens for item in items),
        sum(item.money for item in items),
    )


def pace(asked: Sequence[tuple[float, float, int]], in_flight: int | None) -> Pace:
    """The pace of (begun, ended, tokens written) of each request, when at most `in_flight` are under way at once."""
    changes = sorted([(began, 1) for began, _, _ in asked] + [(ended, -1) for _, ended, _ in asked])
    service = busy = 0.0
    under_way, last = 0, changes[0][0]
    for now, change in changes:
        service += (now - last) * min(under_way, in_flight or under_way)
        busy += (now - last) * (under_way > 0)
        under_way, last = under_way + change, now
    return Pace(len(asked), sum(tokens for _, _, tokens in asked), service, busy)


@dataclass(frozen=True)
class _Noted:
    """A stage of a preview: the stage itself, with its questions noted for the task that it took last."""

    stage: Any
    number: int
    notes: _Notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)

    def __call__(self, ctx: Context, items: Iterable[Task | Group], /) -> Iterator[Any]:
        taken = [""]

        def told() -> Iterator[Task | Group]:
            for item in items:
                taken[0] = item.task.id if isinstance(item, Group) else item.id
                yield item

        def run(inner: Context, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]:
            return ctx.runner(ctx, (self.notes.watched(inner, dialogue, taken[0], self.number) for dialogue in dialogues))

        runner: Runner = run
        return iter(self.stage(dataclasses.replace(ctx, runner=runner), told()))
