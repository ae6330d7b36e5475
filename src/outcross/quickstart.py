"""The quickstart: one small transformer, trained from scratch until more real-only steps no longer help, then the same start in
several arms with the same number of optimiser rows (less empty answers, which only unverified arms hold), with and without the guards.

Each arm is a run file in the output folder and an ordinary run; this module writes the files, trains the start, runs the arms
side by side and reads their records. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from outcross.engine.store import RoundDir, RunDir, read_measurements, save_folder
from outcross.errors import ConfigError, OutcrossError, did_you_mean
from outcross.stages import Seen
from outcross.types import Comparison, Decision, Measurement

ALPHABET = "0123456789+="
MODEL = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}
REAL_ROWS, HELD_OUT, PROMPTS, ROUNDS = 1000, 1000, 2000, 4
REAL_EASY = 0.8  # of the real rows; of the problems that are asked it is one half
BATCH, STEPS = 128, 120  # optimiser steps a round, the same in every arm
MARGIN, ALPHA = 0.03, 0.05
PROBE = "pass_rate"


@dataclass(frozen=True)
class Arm:
    """One arm: its name in tables, what it is, its recipe section, and settings beside it."""

    name: str
    about: str
    recipe: Mapping[str, Any]
    gated: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "_").replace("-", "_")


PLAN = {"lr": 1e-3, "epochs": 1, "batch": BATCH, "schedule": "linear", "warmup": 0.1, "max_length": 32}
BUDGET = BATCH * STEPS
DRAWS = {"rounds": ROUNDS, "tasks_per_round": PROMPTS, "temperature": 1.3, "max_tokens": 6, "plan": PLAN}
UNVERIFIED = {"n": 1, **DRAWS}
VERIFIED = {"n": 8, **DRAWS}


def _floored(**more: Any) -> dict[str, Any]:
    return {"floor": "rows", "real_floor": 0.7, "real_epochs": 100, "synthetic_epochs": 10, "budget": BUDGET, **more}


def _unfloored(**more: Any) -> dict[str, Any]:
    return {"floor": {"waived": "an arm of the quickstart that shows what the floor does"}, "budget": BUDGET, **more}


ARMS = (
    Arm("guarded", "verified answers, 70 % real rows, gate", {"use": "expert_iteration", **VERIFIED, "mix": _floored()}, gated=True),
    Arm(
        "real-only",
        "the same number of steps on the real rows alone",
        {"use": "real_only", "rounds": ROUNDS, "plan": PLAN, "budget": BUDGET},
    ),
    Arm("unverified accumulate", "own answers unchecked, pooled with real rows", {"use": "collapse", **UNVERIFIED, "mix": _unfloored()}),
    Arm(
        "unverified replace",
        "own answers unchecked, and nothing else",
        {"use": "collapse", **UNVERIFIED, "mix": _unfloored(history="replace")},
        more={"unsafe": True},
    ),
    Arm(
        "verified without floor",
        "verified answers pooled with real rows, no gate",
        {"use": "expert_iteration", **VERIFIED, "mix": _unfloored()},
    ),
    Arm("unverified with floor", "own answers unchecked, 70 % real rows", {"use": "collapse", **UNVERIFIED, "mix": _floored()}),
)
FIRST_FOUR = ARMS[:4]


def arms_named(text: str) -> tuple[Arm, ...]:
    """`four`, `all`, or names separated by commas. Raises `ConfigError` for an unknown one."""
    if text in ("four", "all"):
        return FIRST_FOUR if text == "four" else ARMS
    known = {arm.folder: arm for arm in ARMS}
    wanted = [name.strip().replace(" ", "_").replace("-", "_") for name in text.split(",")]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--arms: no arm is called {name!r}; {did_you_mean(name, [*known, 'four', 'all'])}")
    return tuple(known[name] for name in wanted)


# ── run files ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def problems(split: str, n: int, seed: int) -> dict[str, Any]:
    """A task set of the quickstart: sums, half of 2-digit and half of 3-digit numbers, the answer's digits reversed."""
    return {"use": "together", "parts": [_sums("arithmetic", digits, n // 2, seed, split=split) for digits in (2, 3)]}


def real_rows(seed: int) -> dict[str, Any]:
    """The real data of the quickstart: solved sums, mostly of 2-digit numbers: people have written down less of what is hard."""
    easy = round(REAL_EASY * REAL_ROWS)
    return {"use": "together", "parts": [_sums("arithmetic_real", 2, easy, seed), _sums("arithmetic_real", 3, REAL_ROWS - easy, seed)]}


def _sums(use: str, digits: int, n: int, seed: int, **more: Any) -> dict[str, Any]:
    return {"use": use, "digits": digits, "width": 3, "uneven": True, "reversed_digits": True, "n": n, "seed": seed, **more}


def run_file(arm: Arm, seed: int) -> dict[str, Any]:
    """The arm as a run file; the start model lies beside it in `start/model`."""
    answers = {"use": "draw", "n": 1, "sampling": {"temperature": 0.0, "max_tokens": 6}}
    held_out = problems("held_out", HELD_OUT, seed)
    bench = {
        "tasks": problems("train", ROUNDS * PROMPTS, seed),
        "held_out": held_out,
        "real": real_rows(seed),
        "verify": [{"use": "exact"}],
        "probes": [
            {"use": "pass_rate", "generator": answers, "verifier": {"use": "exact"}, "margin": MARGIN},
            {"use": "real_loss", "real": {"use": "answers", "tasks": held_out}, "margin": 0.5},
            {"use": "diversity", "generator": answers, "statistic": "entropy", "margin": 0.3},
        ],
        "gate": {"use": "non_inferior", "alpha": ALPHA} if arm.gated else {"use": "open"},
    }
    return {
        "name": arm.name,
        "recipe": {**arm.recipe},
        "bench": bench,
        "models": {"policy": {"use": "torch_lm", "path": "start/model"}},
        "machine": {"micro_batch": BATCH, "sample_batch": 2000, "threads": 1},
        "seed": seed,
        "keep_models": "champion",
        **arm.more,
    }


def write_run_file(arm: Arm, folder: Path, seed: int) -> Path:
    """Write the arm's run file, with a heading that says what it is."""
    path = folder / f"{arm.folder}.yaml"
    text = f"# {arm.name}: {arm.about}.\n# outcross run {path.name} --out {arm.folder}\n"
    path.write_text(text + yaml.safe_dump(run_file(arm, seed), sort_keys=False), encoding="utf-8")
    return path


# ── the start ──────────────────────────────────────────────────────────────────────────────────────────────────────────
START_LR, START_EPOCHS = 2e-3, 77.0  # 600 steps

Say = Callable[[str], None]


def train_start(folder: Path, seed: int, say: Say) -> None:
    """Train the start from scratch on the real rows; that more of it no longer helps is what the real-only arm shows. Nothing
    is done when the start is there."""
    if (folder / "start" / "model").exists():
        return
    from outcross.config.runfile import plan
    from outcross.models.torch_lm import from_config
    from outcross.stages import FitPlan
    from outcross.train.machine import Machine

    bench = plan(run_file(ARMS[0], seed), folder).build_bench()
    assert bench.real is not None
    model = from_config(MODEL, alphabet=ALPHABET, seed=seed, machine=Machine(micro_batch=BATCH, threads=1))
    recipe = FitPlan(START_LR, START_EPOCHS, BATCH, "linear", 0.1, 32)
    model = model.fit(bench.real, plan=recipe, reference=None, seed=seed, seen=_told(say))
    (folder / "start").mkdir(parents=True, exist_ok=True)
    save_folder(folder / "start" / "model", model.save)


def _told(say: Say) -> Seen:
    total = round(START_EPOCHS * REAL_ROWS / BATCH)

    def seen(step: int, ids: Sequence[str], **facts: float) -> None:
        if (step + 1) % 100 == 0:
            say(f"start                   step {step + 1} of {total}")

    return seen


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ── the arms ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def run_arms(arms: Sequence[Arm], folder: Path, seed: int, say: Say) -> None:
    """Run the arms, as many side by side as there are cores and one thread each; each round is told as it is decided.

    Raises `OutcrossError` with the end of its log when an arm fails; the others are stopped and can be resumed.
    """
    waiting = [(arm, write_run_file(arm, folder, seed)) for arm in arms]
    running: dict[str, tuple[Arm, subprocess.Popen[bytes]]] = {}
    told: dict[str, int] = {arm.name: 0 for arm in arms}
    try:
        while waiting or running:
            while waiting and len(running) < max(1, _cores()):
                arm, path = waiting.pop(0)
                running[arm.name] = (arm, _started(arm, path, folder))
            time.sleep(0.2)
            for arm, process in list(running.values()):
                ended = process.poll()
                told[arm.name] = _tell(arm, folder, told[arm.name], say)
                if ended is not None:
                    del running[arm.name]
                    if ended != 0:
                        raise OutcrossError(f"the arm {arm.name!r} ended with exit code {ended}:\n{_log_end(folder, arm)}")
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def _started(arm: Arm, path: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "outcross", "run", str(path), "--out", str(folder / arm.folder), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with (folder / f"{arm.folder}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)


def _log_end(folder: Path, arm: Arm) -> str:
    lines = (folder / f"{arm.folder}.log").read_text(errors="replace").splitlines()
    return "\n".join(lines[-12:])


def _tell(arm: Arm, folder: Path, told: int, say: Say) -> int:
    run = RunDir(folder / arm.folder)
    if not run.exists:
        return told
    rounds = run.rounds()
    for turn in rounds[told:]:
        found = turn.record["measurements"].get(PROBE)
        outcome = turn.record["outcome"] if arm.gated else "done"
        score = f": {found['champion']:.1%} → {found['candidate']:.1%} of held-out problems" if found else ""
        say(f"{arm.name:<23} round {turn.number} {outcome}{score}")
    return len(rounds)


# ── what they show ─────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Ending:
    """How an arm ended: shares of held-out problems solved by the start and by the model that held at the end, how many of its
    rounds were promoted, and the seconds its steps took."""

    arm: Arm
    start: float
    end: float
    promoted: int
    rounds: int
    seconds: float


def endings(arms: Sequence[Arm], folder: Path) -> list[Ending]:
    """The arms' endings, from their records."""
    return [_ending(arm, RunDir(folder / arm.folder)) for arm in arms]


def _ending(arm: Arm, run: RunDir) -> Ending:
    from outcross.engine.resume import seconds_before

    first = read_measurements(run.start / "measurements.parquet")[PROBE].mean
    rounds = run.rounds()
    promoted = [turn for turn in rounds if turn.promoted]
    end = promoted[-1].measurements()[PROBE].mean if promoted else first
    return Ending(arm, first, end, len(promoted), len(rounds), seconds_before(run))


def replayed_gate(run: RunDir) -> Iterator[tuple[RoundDir, Decision]]:
    """What the quickstart's gate says of each round of a run, from the record alone: against the model that the gate would
    have kept, and the first. Nothing is asked or trained."""
    from outcross.gate.non_inferior import NonInferior

    gate = NonInferior(alpha=ALPHA)
    first = read_measurements(run.start / "measurements.parquet")
    margins = {probe["name"]: probe["margin"] for probe in run.manifest["probes"]}
    champion: Mapping[str, Measurement] = first
    spent = 0.0
    rounds = run.rounds()
    for number, turn in enumerate(rounds):
        candidate = turn.measurements()
        decision = gate(Comparison(candidate, champion, first, number, len(rounds), ALPHA - spent), margins)
        spent += decision.alpha_spent
        if decision.promote:
            champion = candidate
        yield turn, decision


def write_picture(arms: Sequence[Arm], folder: Path) -> Path:
    """The report that shows the arms side by side; the headline is guarded minus real-only."""
    from outcross.report.compare import Contrast
    from outcross.report.html import write_report

    names = [arm.name for arm in arms]
    asked = [
        ("guarded", "real-only", "what learning from verified output adds to the same steps on real data"),
        ("guarded", "unverified with floor", "what verification adds (and the gate does) beside the floor"),
        ("guarded", "verified without floor", "what the floor and the gate cost or add"),
        ("guarded", "unverified accumulate", "what all guards add to the same own answers"),
        ("unverified accumulate", "real-only", "what unverified output does when real data stay"),
        ("unverified replace", "real-only", "what unverified output does when real data go"),
    ]
    contrasts = [Contrast(one, other, question) for one, other, question in asked if one in names and other in names]
    path = folder / "report.html"
    write_report([RunDir(folder / arm.folder) for arm in arms], path, contrasts)
    return path
