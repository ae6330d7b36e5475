"""A data set and no model: generate, verify, curate, and release what stands up to real data and to what was released before."""

from __future__ import annotations

from collections.abc import Iterable

from outcross.curate.decontaminate import DecontaminateOverlap
from outcross.curate.dedup import Dedup
from outcross.curate.near_dedup import NearDedup
from outcross.evaluate.rows.diversity import RowDiversity
from outcross.evaluate.rows.length import AnswerLength, Finished
from outcross.evaluate.rows.passing import PassShare
from outcross.evaluate.rows.subgroups import Subgroups
from outcross.gate.rows.no_worse import NoWorse
from outcross.generate.draw import Draw
from outcross.recipe import Admit, Phase, Recipe, Release, TasksOnly
from outcross.select import All, Sample
from outcross.stages import Curator, Generator, RowsGate, RowsProbe, Verifier
from outcross.types import Example

PROBES = (RowDiversity(), RowDiversity("dissimilarity", margin=0.1), AnswerLength(), Finished(), Subgroups(), PassShare())


def dataset(
    bench: TasksOnly,
    *,
    generate: Generator = Draw(),
    verify: tuple[Verifier, ...] = (),
    curate: tuple[Curator, ...] = (Dedup(), NearDedup()),
    probes: tuple[RowsProbe, ...] = PROBES,
    gate: RowsGate = NoWorse(),
    against: Iterable[Example] = (),
    rounds: int = 1,
    tasks_per_round: int | None = None,
    admit: Admit = None,
) -> Recipe:
    """Each round makes rows, and releases them if the gate finds them no worse than real data (`bench.real`) and than all rows released
    before; `outcross export` writes the released rows of all rounds with their card.

    A row is an answer that was kept by every curator and passed every verifier; without a verifier all that were kept are rows, and record,
    card and report are headed *unverified*. What shares a passage with `bench.held_out`, which may hold the benchmarks of others, is set aside.
    `against`: rows of an earlier run, which count as released before. Assumes that tasks are draws from what the data set is to cover.
    """
    clean = () if bench.held_out == () else (DecontaminateOverlap(bench.held_out),)
    phase = Phase(
        "dataset",
        tasks=All() if tasks_per_round is None else Sample(tasks_per_round),
        generate=generate,
        verify=verify,
        curate=(*clean, *curate),
        rounds=rounds,
        release=Release(probes, gate, against),
        admit=admit,
    )
    return Recipe("dataset", "", bench, (phase,))
