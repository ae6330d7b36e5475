"""The loop: rounds of generate → verify → curate → learn → mix → fit → probe → gate. The only place that promotes a model or releases rows.

Three ways back into the loop, and no fourth: the promoted model, accepted examples into history, people's verdicts. A
round's record is complete on disk before its promotion takes effect.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from outcross.engine import admission, alarms, canaries, divergence, examined, mixing, release, steps, stopping, trackers
from outcross.engine.budget import Budget, Meter
from outcross.engine.champions import KeepModels, holder, prune, reached
from outcross.engine.conserve import Counter, ErrorRule, blamed
from outcross.engine.executor import Executor
from outcross.engine.guards import BenchFacts, check_bench, check_floor, check_plan, gate_of, probes_of, quality_checks, watched_by
from outcross.engine.past import Recorded
from outcross.engine.place import open_journal
from outcross.engine.proofs import Proof
from outcross.engine.resume import append_metric, changed_versions, check_intact, check_same, manifest_of, prepare, seconds_before
from outcross.engine.store import DISK_ERRORS, RoundDir, RoundRows, RunDir, checksums, read_measurements, save_folder, suffix, write_json
from outcross.engine.tables import MEASUREMENTS, Writer, encode_measurements
from outcross.engine.watch import Silent, Watch
from outcross.errors import StageError, StoreError
from outcross.recipe import Phase, Recipe, Release
from outcross.stages import Context, KeepsLogs, Model, Probe, Role, Runner, Trainable, parts_of
from outcross.types import Comparison, Decision, Measurement


@dataclass(frozen=True)
class Options:
    """What the run file says beside the recipe. None of it enters the fingerprint.

    keep_models: *all*, only the *champion*, or the last k promoted ones; it bounds the disk and deletes no record.
    unsafe: allows what principle forbids (replacing history), headed so in every report.
    journal: a journal that runs share; None: the run's own, or the one it was begun with. offline: nothing is asked, and a question that
        the journal does not hold ends the run. errors: how many answers a verifier may be unable to judge before the run stops.
        proofs: what shows that judges, votes and trained verifiers beat no filter. track: `engine.trackers.NAMES` to tell beside the record.
    """

    budget: Budget = Budget()
    unsafe: bool = False
    keep_models: KeepModels = "all"
    config: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    journal: Path | None = None
    offline: bool = False
    errors: ErrorRule = ErrorRule()
    proofs: tuple[Proof, ...] = ()
    track: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """How a run ended. A released round counts as promoted."""

    root: Path
    promoted: int
    refused: int
    rounds: int
    last: Decision | None


def _as_it_is(executor: Executor) -> Runner:
    return executor


def run(
    recipe: Recipe,
    models: Mapping[Role, Model],
    root: Path,
    *,
    seed: int = 0,
    options: Options = Options(),
    watch: Watch = Silent(),
    runner: Callable[[Executor], Runner] = _as_it_is,
) -> Result:
    """Run a recipe in the folder `root`, or go on with it where it stopped; a finished run returns at once. `runner` may stand before
    the executor, to ask some models otherwise (`engine/collect.py`).

    Raises `GuardError` for a plan that cannot keep the guarantees and `DataError` for unusable data, both before anything is
    spent; `ConfigError` when `root` holds another run; `RunLocked`; `BudgetReached`; `StoreError` when the disk is full.
    """
    trackers.check(options.track)
    headings = check_plan(recipe, models, unsafe=options.unsafe, proofs=options.proofs)
    facts = check_bench(recipe.bench)
    check_floor(recipe, facts)
    stopping.check(recipe, facts)
    manifest = manifest_of(recipe, models, seed, options.name or recipe.name, options.config, headings, options.keep_models)
    target = RunDir(root)
    with _disk_errors(root), target.locked():
        if target.exists:
            check_same(target, manifest)
            check_intact(target)
            if changed := changed_versions(target, manifest):
                watch.note(changed)
        with closing(open_journal(target, options.journal, offline=options.offline)) as journal:
            attempt = prepare(target, manifest)
            for model in models.values():
                if isinstance(model, KeepsLogs):
                    model.log_to(root / "logs" / f"attempt_{attempt}")
            meter = Meter(options.budget, journal, seconds_before(target))
            with trackers.tracked(options.track, target, manifest["name"], options.config, watch) as told:
                loop = _Loop(
                    recipe, dict(models), RunDir(root), seed, options, told, facts, runner(Executor(journal, meter)), meter, attempt
                )
                return loop.go()


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise StoreError(
            f"cannot write to {error.filename or root}: {error.strerror}. What was complete is kept; "
            f"free space or fix the permissions, then `outcross resume {root}`"
        ) from error


@dataclass
class _Loop:
    recipe: Recipe
    first: dict[Role, Model]
    target: RunDir
    seed: int
    options: Options
    watch: Watch
    facts: BenchFacts
    executor: Runner
    meter: Meter
    attempt: int
    champions: dict[Role, Model] = field(default_factory=dict)
    done: list[RoundDir] = field(default_factory=list)

    def go(self) -> Result:
        self.champions = dict(self.first)
        learning = any(phase.learn for phase in self.recipe.phases)
        if learning:
            self._start()
        for phase in self.recipe.phases:
            for number in range(phase.rounds):
                turn = self.target.round(phase.name, number)
                played = not turn.complete
                if played and (why := reached(self.done, phase, self.target.start)):
                    self.watch.note(f"{turn.label} is not needed: {why}")
                    break
                if played:
                    self._settle()
                    self._play(phase, turn)
                self.done.append(self.target.round(phase.name, number))
                if played:
                    self._stop_if_asked(self.done[-1])
        self._settle()
        self._claim()
        shutil.rmtree(self.target.training, ignore_errors=True)
        outcomes = [turn.record["outcome"] for turn in self.done]
        last = self.done[-1].decision if self.done else None
        return Result(
            self.target.root, outcomes.count("promoted") + outcomes.count("released"), outcomes.count("refused"), len(outcomes), last
        )

    # ── the first champion ─────────────────────────────────────────────────────────────────────────────────────────────
    def _start(self) -> None:
        """Save the first champion and measure it: every later candidate is held against it."""
        start = self.target.start
        start.mkdir(exist_ok=True)
        for role in self._taught():
            folder = start / f"model{suffix(role)}"
            model = self.first[role]
            if not folder.exists() and isinstance(model, Trainable):
                save_folder(folder, model.save)
            if not (self.target.root / f"champion{suffix(role)}").is_symlink():
                self.target.point(role, folder)
        path = start / "measurements.parquet"
        if not path.exists():
            with self._timed("start", "probe"):
                probes = {
                    probe.name: probe for phase in self.recipe.phases if phase.learn for probe in watched_by(self.recipe.bench, phase)
                }
                self._measure(list(probes.values()), self.first, path, "start")

    def _taught(self) -> list[Role]:
        return sorted({role for phase in self.recipe.phases for role in phase.learn})

    def _adopt_champions(self) -> None:
        """Load the models that hold now, where an earlier attempt promoted them."""
        for role in self._taught():
            turn = holder(self.done, role)
            current, first = self.champions[role], self.first[role]
            if turn is None:
                self.champions[role] = first
                self._follow_aliases(role, first)
                self._release([current])
                continue
            expected = turn.record["champion"][role]["id"]
            if current.id != expected and isinstance(first, Trainable):
                folder = self.target.root / turn.record["champion"][role]["folder"]
                self.champions[role] = first.load(folder)
                if self.champions[role].id != expected:
                    raise StoreError(
                        f"{folder} holds the model {self.champions[role].id}, and the record of {turn.label} promoted {expected}; "
                        "restore the folder from a copy: only recorded promotions hold"
                    )
                self._follow_aliases(role, first)
                self._release([current])

    def _release(self, models: Iterable[Model]) -> None:
        """Let go of models that nothing holds any more: a candidate is on disk, and is loaded again if it was promoted."""
        held = [*self.first.values(), *self.champions.values()]
        for model in models:
            if not any(model is other for other in held):
                model.close()

    def _follow_aliases(self, role: Role, first: Model) -> None:
        for other, model in self.first.items():
            if model is first and other not in self._taught():
                self.champions[other] = self.champions[role]

    # ── one round ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _play(self, phase: Phase, turn: RoundDir) -> None:
        if phase.learn:
            examined.check(self.target, self.done, phase, self.recipe, tell=self.watch.note if self.options.unsafe else None)
        turn.folder.mkdir(parents=True, exist_ok=True)
        admission.take_in(self.target, turn, self.done, self.recipe.phases, self.seed)
        current = dict(self.champions)
        counts: list[dict[str, Any]] = []
        fits: dict[Role, Any] = {}
        mixtures: dict[Role, Any] = {}
        used: list[Model] = []
        for k in range(phase.inner):
            part = self._part(phase, turn, k)
            taught, counted, fitted, mixed = self._turn(phase, part, current)
            counts += counted
            fits, mixtures = {**fits, **fitted}, {**mixtures, **mixed}
            current = {**current, **taught}
            used += taught.values()
        self._decide(phase, turn, current, {"counts": counts, "fits": fits, "mixtures": mixtures})
        self._release(used)

    def _part(self, phase: Phase, turn: RoundDir, k: int) -> steps.Part:
        single = phase.inner == 1
        folder = turn.folder if single else turn.folder / f"inner_{k}"
        (folder / "steps").mkdir(parents=True, exist_ok=True)
        label = turn.label if single else f"{turn.label}/{k}"
        history = admission.learnable(self.done, turn)
        phase = alarms.lifted(self.recipe.bench, phase, self.done)
        bench, buried, kept = self.recipe.bench, self.target.tombstones(), self.target.training
        return steps.Part(phase, bench, self.facts, folder, label, history, buried, self.watch, self.options.errors, training=kept)

    def _turn(
        self, phase: Phase, part: steps.Part, current: Mapping[Role, Model]
    ) -> tuple[dict[Role, Model], list[Any], dict[Role, Any], dict[Role, Any]]:
        """generate → learn → mix → fit, once; nothing is fitted when there is nothing new to learn from."""
        ctx = self._context(current, part.folder, part.label, len([t for t in self.done if t.phase == phase.name]))
        counts: list[Any] = []
        if phase.generate is not None:
            with self._timed(part.label, "generate", part.verifying):
                if part.marked("generate") is None:
                    canaries.before_batch(ctx, canaries.verifying(phase), "verify", part.folder / "steps" / "generate")
                counts += steps.generate(part, ctx)
            with self._timed(part.label, "learn"):
                learnt = {role: steps.learn(part, ctx, role, what) for role, what in phase.learn.items()}
            counts += [item["counts"] for item in learnt.values()]
            if not any(item["examples"] for item in learnt.values()):
                return {}, counts, {}, {}
            if phase.expert is not None and phase.learn:
                part = admission.through(self.target, part, phase.expert, self.seed)
                if part.held and not admission.has_news(self.done, part.folder):
                    return {}, counts, {}, {}
        taught: dict[Role, Model] = {}
        fits, mixtures = {}, {}
        for roles in self._teams(phase):
            with self._timed(part.label, "fit"):
                fitted = part.marked(f"fit{suffix(roles[0])}") is not None
                mixed = {role: mixing.mix(part, ctx, role, fitted=fitted) for role in roles}
                mixtures.update({role: facts for role, (_, facts) in mixed.items()})
                if not any(facts["records"] > 0 for _, facts in mixed.values()):
                    continue
                what = phase.learn[roles[0]]
                start = current[roles[0]] if what.start == "champion" else self._first(roles[0], what.start, ctx)
                reference = None if what.reference is None else (self.first if what.reference == "first" else current)[roles[0]]
                assert isinstance(start, Trainable)
                examples = mixing.Chain(tuple(item for item, _ in mixed.values()))
                candidate, facts = steps.fit(part, ctx, roles, what, start, reference, examples)
                folder = str((part.folder / f"model{suffix(roles[0])}").relative_to(self.target.root))
                for role in roles:
                    taught[role], fits[role] = candidate, {**facts, "folder": folder}
        return taught, counts, fits, mixtures

    def _teams(self, phase: Phase) -> list[list[Role]]:
        """The roles that a phase teaches; those that alias one model stand together and are taught in one fit."""
        teams: dict[int, list[Role]] = {}
        for role in phase.learn:
            teams.setdefault(id(self.first[role]), []).append(role)
        return list(teams.values())

    def _first(self, role: Role, start: str, ctx: Context) -> Model:
        first = self.first[role]
        if start == "first":
            return first
        return first.fresh(ctx.seed_of("scratch", role))  # type: ignore[attr-defined, no-any-return]

    def _context(self, models: Mapping[Role, Model], folder: Path, label: str, index: int) -> Context:
        real = self.recipe.bench.real if self.recipe.bench.real is not None else ()
        past = Recorded(self.target, tuple(self.done), real, folder)
        return Context(models, past, label, index, self.seed, self.executor)

    # ── probes, gate, promotion ────────────────────────────────────────────────────────────────────────────────────────
    def _measure(self, probes: list[Probe], models: Mapping[Role, Model], path: Path, label: str) -> dict[str, Measurement]:
        """All probes on `models`, written to `path`. Every model is measured under the same round name, hence the same draws."""
        if path.exists():
            return read_measurements(path)
        held = {role: model for role, model in self.first.items() if role not in self._taught()}
        ctx = self._context({**models, **held}, path.parent, "probe", 0)  # a judge that is the policy elsewhere is one ruler for all here
        canaries.before_batch(ctx, [item for probe in probes for item in parts_of(probe)], "probe", path)
        found = []
        for number, probe in enumerate(probes):
            self.watch.stage(label, f"probe {probe.name}", number, len(probes), {})
            with blamed(f"probe {probe.name}"):
                found.append(probe(ctx))
            if found[-1].probe != probe.name:
                raise StageError(f"probe {probe.name} gave a measurement called {found[-1].probe!r}; call it by the probe's name")
        with Writer(path, MEASUREMENTS, encode_measurements) as table:
            for measurement in found:
                table.add(("candidate", measurement))
        return {measurement.probe: measurement for measurement in found}

    def _decide(self, phase: Phase, turn: RoundDir, candidate: dict[Role, Model], made: dict[str, Any]) -> None:
        champion = {role: {"id": candidate[role].id, "folder": made["fits"][role]["folder"]} for role in made["fits"]}
        decision: Decision | None = None
        compared: dict[str, Any] = {}
        if phase.release is not None:
            outcome, decision, made["release"] = self._released(phase, phase.release, turn)
        elif not phase.learn:
            outcome = "data only"
        elif not made["fits"]:
            outcome = "nothing learnt"
        else:
            with self._timed(turn.label, "probe"):
                probes = list(watched_by(self.recipe.bench, phase))
                measured = self._measure(probes, candidate, turn.folder / "measurements.parquet", turn.label)
                champion_now = self._champion(probes, turn)
            comparison = self._comparison(phase, measured, champion_now)
            decision = self._gate(phase, comparison)
            compared = {probe.name: release.compared(probe.name, comparison) for probe in probes}
            made |= alarms.watch(self.recipe.bench, phase, comparison, self.done)
            apart, resting = quality_checks(self.recipe.bench, phase, self.first)
            made |= divergence.watch(self.target, turn, self.done, apart, measured, resting)
            decision = divergence.acted_on(alarms.acted_on(decision, made), made["alarms"], self.recipe.bench.divergence)
            outcome = "promoted" if decision.promote else "refused"
        self._write_record(phase, turn, outcome, decision, {**made, "measurements": compared, "champion": champion})

    def _claim(self) -> None:
        """Measure the first and the last champion on fresh items, once, when all rounds are done."""
        final = self.target.root / "final"
        if not self.recipe.bench.final or (final / "measurements.parquet").exists():
            return
        final.mkdir(exist_ok=True)
        with self._timed("final", "probe"):
            for name, models in (("measurements.first", self.first), ("measurements", self.champions)):
                self._measure(list(self.recipe.bench.final), models, final / f"{name}.parquet", "final")

    def _stop_if_asked(self, turn: RoundDir) -> None:
        """Warn of what a complete round's alarms tell, and end the run, rolled back if need be, where they ask for it."""
        for alarm in alarms.alarms_of(turn):
            if alarm.action != "note":
                self.watch.note(f"{turn.label}: {alarm.action.replace('_', ' ')}: {alarm.reason}")
        if "rolled_back" in turn.record:
            self._settle()
        alarms.stop(turn.record, self.target.root)
        divergence.stop(turn.record.get("alarms", ()), self.recipe.bench.divergence, self.target.root)

    def _released(self, phase: Phase, asked: Release, turn: RoundDir) -> tuple[str, Decision | None, dict[str, Any]]:
        """Whether the rows of a data-only round are released. What is compared is this round's rows alone."""
        with self._timed(turn.label, "probe"):
            part = replace(self._part(phase, turn, 0), folder=turn.folder, history=tuple(item for item in self.done if item.released))
            if phase.expert is not None:
                part = admission.through(self.target, part, phase.expert, self.seed)
            rows = RoundRows(tuple(turn.parts()), bool(phase.verify), part.buried)
            if part.held:
                return "refused", admission.refusal(turn), release.unmeasured(rows).shown()
            measured = release.measure(part, self._context(self.champions, turn.folder, "probe", 0), asked, rows)
        if not measured.rows:
            return "no rows", None, measured.shown()
        tests = [item.decision for item in self.done if item.decision is not None and self._phase(item).release is not None]
        planned = sum(item.rounds for item in self.recipe.phases if item.release is not None)
        left = max(0.0, asked.gate.alpha - sum(test.alpha_spent for test in tests))
        bounds = {probe.name: probe.bounds for probe in asked.probes}
        with blamed("the gate"):
            decision = asked.gate(measured.comparison(len(tests), planned, left), bounds)
        _refuse_no_decision(asked.gate, decision)
        return "released" if decision.promote else "refused", decision, measured.shown()

    def _phase(self, turn: RoundDir) -> Phase:
        return next(phase for phase in self.recipe.phases if phase.name == turn.phase)

    def _champion(self, probes: list[Probe], turn: RoundDir) -> dict[str, Measurement]:
        """The probes on the models that hold now: as they were measured for promotion, and the others now."""
        last = next((item for item in reversed(self.done) if item.promoted), None)
        known = read_measurements(self.target.start / "measurements.parquet") if last is None else last.measurements()
        unknown = [probe for probe in probes if probe.name not in known]
        if unknown:
            known |= self._measure(unknown, self.champions, turn.folder / "measurements.champion.parquet", turn.label)
        return known

    def _comparison(self, phase: Phase, measured: Mapping[str, Measurement], champion: Mapping[str, Measurement]) -> Comparison:
        first = read_measurements(self.target.start / "measurements.parquet")
        tests = [turn.decision for turn in self.done if turn.decision is not None and self._phase(turn).learn]
        planned = sum(item.rounds for item in self.recipe.phases if item.learn)
        left = gate_of(self.recipe.bench, phase).alpha - sum(test.alpha_spent for test in tests)
        names = [probe.name for probe in watched_by(self.recipe.bench, phase)]
        candidate, held, start = ({name: found[name] for name in names} for found in (measured, champion, first))
        return Comparison(candidate, held, start, len(tests), planned, max(0.0, left))

    def _gate(self, phase: Phase, comparison: Comparison) -> Decision:
        gate = gate_of(self.recipe.bench, phase)
        with blamed("the gate"):
            decision = gate(comparison, {probe.name: probe.margin for probe in probes_of(self.recipe.bench, phase)})
        _refuse_no_decision(gate, decision)
        assert isinstance(decision, Decision)
        return decision

    def _write_record(self, phase: Phase, turn: RoundDir, outcome: str, decision: Decision | None, made: dict[str, Any]) -> None:
        stages, verifiers = steps.versions(phase)
        record = {
            "format": 1,
            "phase": phase.name,
            "round": turn.number,
            "index": len(self.done),
            "label": turn.label,
            "outcome": outcome,
            "decision": None if decision is None else msgspec.to_builtins(decision),
            "stages": stages,
            "verifiers": verifiers,
            "canaries": canaries.recorded(turn),
            **admission.recorded(turn),
            **made,
            "files": checksums(turn.folder),
        }
        write_json(turn.record_path, record)
        self.watch.decided(turn.label, outcome, decision)

    def _settle(self) -> None:
        """Let recorded rollbacks and promotions take effect: the link, the model in use, the disk. Doing it again changes nothing."""
        alarms.take_effect(self.target, self.done)
        for role in self._taught():
            turn, first = holder(self.done, role), self.target.start / f"model{suffix(role)}"
            folder = first if turn is None else self.target.root / turn.record["champion"][role]["folder"]
            if turn is not None or first.exists():
                self.target.point(role, folder)
        last = next((turn for turn in reversed(self.done) if turn.released), None)
        if last is not None:
            self.target.point_release(last.folder)
        self._adopt_champions()
        monitor = self.recipe.bench.alarms
        spare = alarms.good(self.done) if monitor is not None and monitor.acts == "roll_back" else None
        prune(self.target, self.done, self._taught(), self.options.keep_models, spare)

    @contextmanager
    def _timed(self, label: str, step: str, verifying: Sequence[Counter] = ()) -> Iterator[None]:
        """Time a step, what it spent and what its verifiers took into metrics.jsonl, and stop before it when the budget is spent."""
        self.meter.check()
        began = time.monotonic()
        prompt, completion, requests = self.meter.prompt_tokens, self.meter.completion_tokens, self.meter.requests
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            append_metric(
                self.target,
                {
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                    "attempt": self.attempt,
                    "round": label,
                    "step": step,
                    "seconds": round(seconds, 3),
                    "requests": self.meter.requests - requests,
                    "tokens": {"prompt": self.meter.prompt_tokens - prompt, "completion": self.meter.completion_tokens - completion},
                    **({"verifiers": {item.name: item.took() for item in verifying}} if verifying else {}),
                    "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                },
            )


def _refuse_no_decision(gate: object, decision: object) -> None:
    if not isinstance(decision, Decision):
        raise StageError(f"the gate {type(gate).__name__} answered {decision!r:.60}, which is no Decision; nothing is promoted without one")
