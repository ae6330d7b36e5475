"""Run directories written as the engine writes them, small and deterministic: what the report and the lineage are tested on."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from outcross.engine.store import RunDir, file_hash, write_json
from outcross.engine.tables import (
    DROPS,
    EXAMPLES,
    MEASUREMENTS,
    MIXTURE,
    ORDER,
    SAMPLES,
    Writer,
    encode_drops,
    encode_examples,
    encode_groups,
    encode_measurements,
)
from outcross.types import (
    NLL,
    Check,
    Completion,
    Decision,
    Drop,
    Example,
    Group,
    Measurement,
    Origin,
    Sample,
    Score,
    Task,
    Turn,
    content_hash,
    example_id,
    sample_id,
)

HOSTILE = '</pre><script>alert("owned")</script><img src=x onerror=alert(1)> & \x00\x1b[31m \u202egnp.exe "\'>'
ITEMS = tuple(f"held-{index:04d}" for index in range(400))
MARGIN = {"pass_rate": 0.05, "real_loss": 0.05, "diversity_entropy": 0.05}
KIND = {"pass_rate": "quality", "real_loss": "fit", "diversity_entropy": "diversity"}
UNIT = {"pass_rate": "share", "real_loss": "nats per token", "diversity_entropy": "nats over real"}


@dataclass(frozen=True)
class Level:
    """How good a model is: what its probes find."""

    rate: float
    loss: float = 2.31
    varied: float = 0.02

    def measurements(self) -> dict[str, Measurement]:
        rng = random.Random(7)
        luck = [rng.random() for _ in ITEMS]
        noise = [rng.gauss(0, 0.2) for _ in ITEMS]
        own = random.Random(str(self))
        return {
            "pass_rate": Measurement("pass_rate", ITEMS, tuple(float(value < self.rate) for value in luck), unit="share"),
            "real_loss": Measurement(
                "real_loss",
                ITEMS,
                tuple(self.loss + value + own.gauss(0, 0.05) for value in noise),
                higher_is_better=False,
                unit="nats per token",
            ),
            "diversity_entropy": Measurement(
                "diversity_entropy",
                ITEMS[:50],
                (self.varied,),
                tuple(self.varied + own.gauss(0, 0.01) for _ in range(200)),
                unit="nats over real",
            ),
        }


@dataclass(frozen=True)
class Turnout:
    """What happens in a round: how it ends, and how good its candidate is."""

    outcome: str
    level: Level = Level(0.41)


FOUR = (
    Turnout("promoted", Level(0.52, 2.31)),
    Turnout("refused", Level(0.55, 2.62, -0.40)),
    Turnout("nothing learnt"),
    Turnout("promoted", Level(0.68, 2.30, 0.03)),
)


@dataclass
class Builder:
    """Writes one run, round after round. `parts` of a real floor: `real` rows stand in each mixture."""

    root: Path
    turnouts: Sequence[Turnout] = FOUR
    name: str = "guarded"
    planned: int = 4
    start: Level = Level(0.41)
    tasks: int = 6
    samples: int = 4
    real: int = 60
    gated: bool = True
    headings: tuple[str, ...] = ()
    hostile: bool = True
    padding: str = ""  # stands before every prompt
    config: dict[str, Any] = field(
        default_factory=lambda: {"recipe": "expert_iteration", "out": "runs/guarded", "mix": {"real_floor": 0.7}}
    )
    until: Any = None
    champion: tuple[str, Level] = ("", Level(0.41))
    history: list[tuple[Example, str]] = field(default_factory=list)

    def write(self) -> RunDir:
        first = content_hash("model", self.name, "first")
        self.champion = (first, self.start)
        (self.root / "start" / "model").mkdir(parents=True)
        (self.root / "start" / "model" / "weights.bin").write_bytes(b"w" * 5000)
        self._table(self.root / "start", self.start)
        phase = {"name": "train", "rounds": self.planned, "inner": 1, "learn": ["policy"], "gate": "non_inferior", "probes": sorted(MARGIN)}
        write_json(
            self.root / "manifest.json",
            {
                "format": 1,
                "name": self.name,
                "recipe": {
                    "name": "expert_iteration",
                    "paper": "arXiv:2203.14465",
                    "fingerprint": content_hash(self.name),
                    "canonical": {"type": "outcross.recipe:Recipe", "phases": [{"name": "train", "until": self.until}]},
                },
                "config": self.config,
                "seed": 3,
                "phases": [phase],
                "models": {"policy": {"id": first, "depth": 0}},
                "headings": list(self.headings),
                "versions": {"outcross": "0.1.0", "python": "3.11.2", "torch": "2.6.0"},
                "keep_models": "all",
                "probes": [{"name": name, "kind": KIND[name], "margin": MARGIN[name], "ground": "exact"} for name in sorted(MARGIN)],
            },
        )
        for number, turnout in enumerate(self.turnouts):
            self._round(number, turnout)
        self._metrics()
        return RunDir(self.root)

    def _table(self, folder: Path, level: Level) -> None:
        with Writer(folder / "measurements.parquet", MEASUREMENTS, encode_measurements) as table:
            for measurement in level.measurements().values():
                table.add(("candidate", measurement))

    # ── one round ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _round(self, number: int, turnout: Turnout) -> None:
        label = f"train/{number:04d}"
        folder = self.root / label
        folder.mkdir(parents=True)
        groups, drops, counts = self._generate(label, turnout)
        self._write_samples(folder, groups, drops)
        examples = self._examples(label, groups) if turnout.outcome in ("promoted", "refused") else []
        learn = {"stage": "learn", "name": "imitate:policy", "in": sum(len(g.samples) for g in groups), "kept": len(examples), "failed": 0}
        learn["dropped"] = learn["in"] - learn["kept"]
        if turnout.outcome != "data only":
            counts.append({**learn, "detail": {"examples": len(examples)}})
        made: dict[str, Any] = {"mixtures": {}, "fits": {}, "measurements": {}, "champion": {}, "decision": None}
        if examples:
            made = self._train(folder, label, turnout, examples)
        record = {
            "format": 1,
            "phase": "train",
            "round": number,
            "index": number,
            "label": label,
            "outcome": turnout.outcome,
            "counts": counts,
            "verifiers": {"exact": {"version": "3", "ground": "exact"}},
            "stages": {"draw": "1", "exact": "3", "dedup": "1", "imitate": "1"},
            "files": {path.name: file_hash(path) for path in sorted(folder.glob("*.parquet"))},
            **made,
        }
        write_json(folder / "round.json", record)
        if turnout.outcome == "promoted":
            self.champion = (made["fits"]["policy"]["model"], turnout.level)
            self.history += [(example, label) for example in examples]

    def _generate(self, label: str, turnout: Turnout) -> tuple[list[Group], list[Drop], list[dict[str, Any]]]:
        rng = random.Random(label)
        model, level = self.champion
        groups, drops = [], []
        tally = {"made": 0, "error": 0, "pass": 0, "fail": 0}
        for index in range(self.tasks):
            a, b = rng.randrange(100, 1000), rng.randrange(100, 1000)
            task = Task(f"add-{label[-1]}{index:04d}", f"{self.padding}{a}+{b}=", str(a + b), subgroup="3-digit")
            made = []
            for k in range(self.samples):
                right = rng.random() < level.rate and turnout.outcome != "nothing learnt"
                text = str(a + b) if right else HOSTILE * (40 if index == 1 else 1) if self.hostile and k == 1 else str(a + b + 10)
                made.append(self._sample(label, task, k, text, model, failed=index == 2 and k == 3))
                verdict = made[-1].verdict or "error"
                tally["made"] += 1
                tally[verdict] += 1
            repeats = [sample for n, sample in enumerate(made) if sample.text in {other.text for other in made[:n]} and not sample.error]
            kept = tuple(sample for sample in made if sample not in repeats)
            groups.append(Group(task, kept))
            if repeats:
                drops.append(Drop(Group(task, tuple(repeats)), "dedup", "duplicate"))
        dropped = sum(len(drop.group.samples) for drop in drops)
        judged = tally["made"] - tally["error"]
        verdicts = {name: tally[name] for name in ("pass", "fail")}
        clean = {
            "stage": "curate",
            "name": "decontaminate",
            "in": tally["made"],
            "kept": tally["made"],
            "dropped": 0,
            "failed": 0,
            "detail": {},
        }
        return (
            groups,
            drops,
            [
                {
                    "stage": "generate",
                    "name": "draw",
                    "in": tally["made"],
                    "kept": judged,
                    "dropped": 0,
                    "failed": tally["error"],
                    "detail": {},
                },
                {"stage": "verify", "name": "exact", "in": judged, "kept": judged, "dropped": 0, "failed": 0, "detail": verdicts},
                clean,
                {**clean, "name": "dedup", "kept": tally["made"] - dropped, "dropped": dropped, "detail": {"duplicate": dropped}},
            ],
        )

    def _sample(self, label: str, task: Task, k: int, text: str, model: str, failed: bool) -> Sample:
        origin = Origin("synthetic", source=model, depth=1, round=label, parents=(task.id,))
        if failed:
            return Sample(sample_id(task.id, k, (), origin), (), origin, error="timed out after 30 s")
        turns = (Turn(task.prompt, Completion(text)),)
        right = text == task.answer
        score = Score("exact", "3", "pass" if right else "fail", float(right), "" if right else f"expected {task.answer}")
        return Sample(sample_id(task.id, k, turns, origin), turns, origin, scores=(score,))

    def _write_samples(self, folder: Path, groups: list[Group], drops: list[Drop]) -> None:
        with Writer(folder / "groups.parquet", SAMPLES, encode_groups) as kept:
            for group in groups:
                kept.add(group)
        with Writer(folder / "drops.parquet", DROPS, encode_drops) as dropped:
            for drop in drops:
                dropped.add(drop)

    def _examples(self, label: str, groups: list[Group]) -> list[Example]:
        found = []
        for group in groups:
            for sample in group.samples:
                if sample.verdict == "pass":
                    origin = Origin("synthetic", source=sample.origin.source, depth=1, round=label, parents=(sample.id,))
                    name = example_id(group.task.prompt, sample.text, NLL, origin)
                    found.append(Example(name, group.task.prompt, sample.text, origin=origin))
        return found

    def _train(self, folder: Path, label: str, turnout: Turnout, examples: list[Example]) -> dict[str, Any]:
        start, level = self.champion
        model = content_hash("model", self.name, label)
        with Writer(folder / "examples.parquet", EXAMPLES, encode_examples) as table:
            for example in examples:
                table.add((example, 8))
        rows = [(example.id, "new", n, 1, 1.0) for n, example in enumerate(examples)]
        rows += [(example.id, "history", n, 1, 1.0) for n, (example, _) in enumerate(self.history)]
        rows += [(content_hash("real", n), "real", n, 2, 1.0) for n in range(self.real)]
        with Writer(folder / "mixture.parquet", MIXTURE, lambda batch: _columns(batch, MIXTURE)) as table:
            for row in rows:
                table.add(row)
        looks = [row[0] for row in rows for _ in range(row[3])]
        random.Random(label).shuffle(looks)
        with Writer(folder / "order.parquet", ORDER, lambda batch: _columns(batch, ORDER)) as table:
            for n, name in enumerate(looks):
                table.add((n // 16, name))
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_bytes(b"w" * 5000)
        self._table(folder, turnout.level)
        return {
            "mixtures": {"policy": self._mixture(label, len(examples), start)},
            "fits": {
                "policy": {"steps": len(looks) // 16 + 1, "examples": len(looks), "start": start, "model": model, "depth": 1, "skipped": 0}
            },
            "measurements": self._compared(turnout.level, level),
            "champion": {"policy": {"id": model, "folder": f"{label}/model"}},
            "decision": msgspec.to_builtins(self._decision(turnout, level)),
        }

    def _mixture(self, label: str, new: int, model: str) -> dict[str, Any]:
        real, size = float(2 * self.real), 8.0
        part = {"kind": "synthetic", "proof": "none", "source": model, "depth": 1}
        parts = [{**part, "round": label, "records": float(new), "tokens": size * new}]
        if self.history:
            parts.append({**part, "round": "train/0000", "records": float(len(self.history)), "tokens": size * len(self.history)})
        if self.real:
            half = {"kind": "real", "source": "release-1", "depth": 0, "round": "", "records": real / 2, "tokens": 9.0 * real / 2}
            parts += [{**half, "proof": "proved"}, {**half, "proof": "attested"}]
        records, tokens = sum(p["records"] for p in parts), sum(p["tokens"] for p in parts)
        return {
            "records": records,
            "tokens": tokens,
            "real_share": {"records": real / records, "tokens": 9.0 * real / tokens},
            "floor": "rows" if self.gated else "waived: shown for comparison",
            "required": 0.7 if self.gated else None,
            "waiting": 3,
            "real_epochs": 2.0,
            "parts": parts,
        }

    def _compared(self, candidate: Level, champion: Level) -> dict[str, Any]:
        found = {}
        for name, measured in candidate.measurements().items():
            spread = 0.02
            found[name] = {
                "candidate": measured.mean,
                "champion": champion.measurements()[name].mean,
                "first": self.start.measurements()[name].mean,
                "items": len(measured.items),
                "unit": measured.unit,
                "higher_is_better": measured.higher_is_better,
                "low": measured.mean - spread,
                "high": measured.mean + spread,
            }
        return found

    def _decision(self, turnout: Turnout, champion: Level) -> Decision:
        checks = []
        for against, other in (("champion", champion), ("first", self.start)):
            for name, measured in turnout.level.measurements().items():
                sign = 1 if measured.higher_is_better else -1
                estimate = sign * (measured.mean - other.measurements()[name].mean)
                low = estimate - 0.03
                checks.append(Check(name, against, estimate, low, MARGIN[name], 0.0125, 0.83, len(measured.items), low > -MARGIN[name]))
        failed = [check for check in checks if not check.passed]
        promote = turnout.outcome == "promoted"
        reason = (
            "every probe is shown not to be worse than its margin" if not failed else f"{failed[0].probe} is not shown to be non-inferior"
        )
        return Decision(
            promote, reason if self.gated else "open gate: nothing is refused", "non_inferior", tuple(checks), 0.0125, self.gated
        )

    def _metrics(self) -> None:
        lines = []
        for number in range(len(self.turnouts)):
            for step, seconds in (("generate", 12.5), ("learn", 0.4), ("fit", 31.0), ("probe", 6.1)):
                tokens = {"prompt": 4100, "completion": 2300} if step == "generate" else {"prompt": 0, "completion": 0}
                line = {"time": "2026-01-01T10:00:00+00:00", "attempt": 1 + number // 3, "round": f"train/{number:04d}", "step": step}
                lines.append(json.dumps({**line, "seconds": seconds, "tokens": tokens, "rss_mb": 812.5 + number}))
        (self.root / "metrics.jsonl").write_text("\n".join([*lines, '{"time": "2026-01-01T10:0']))


def _columns(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in zip(zip(*rows), schema.types)], schema=schema)


def real_row(number: int) -> str:
    """The id of a real row of every mixture."""
    return content_hash("real", number)
