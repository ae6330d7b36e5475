"""Outcross from Python: the same run, the same record, usable in a notebook.

run = outcross.run(recipe, models={"policy": model}, out="runs/first", seed=1)
run = outcross.open("runs/first")
run.table("groups", round="train/0000")
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from outcross.engine import loop
from outcross.engine.budget import Budget
from outcross.engine.champions import KeepModels
from outcross.engine.proofs import read_proofs
from outcross.engine.store import RoundDir, RunDir
from outcross.engine.watch import Silent, Watch
from outcross.errors import ConfigError, MissingExtra, StoreError, did_you_mean
from outcross.recipe import Recipe
from outcross.stages import Model, Role

if TYPE_CHECKING:
    from outcross.report.bill import Bill
    from outcross.report.read import RoundRow, Summary
    from outcross.report.trace import Trace

Engine = Literal["polars", "pandas", "arrow"]
TABLES = ("groups", "drops", "examples", "mixture", "order", "measurements")


def run(
    recipe: Recipe | str | Path,
    models: Mapping[Role, Model] | None = None,
    out: str | Path | None = None,
    *,
    seed: int | None = None,
    budget: Budget | None = None,
    unsafe: bool = False,
    keep_models: KeepModels | None = None,
    journal: str | Path | None = None,
    offline: bool = False,
    proofs: Sequence[str | Path] = (),
    watch: Watch | None = None,
) -> Run:
    """Run a recipe with `models` by role in the folder `out`, or go on where it stopped; a finished run is opened at once.

    `recipe` may be the path of a run file, which brings its own models; `seed`, `budget`, `unsafe` and `keep_models` then go before what
    the file says, and `out` defaults to runs/NAME. `journal`: one that runs share, instead of the run's own; noted in `out`.
    `proofs`: files of `outcross verifier-check`, or folders of them, for verifiers whose ground is an opinion.
    `offline`: ask nothing, and raise `ModelError` at a question that the journal does not answer. Raises what `outcross.engine.loop.run` raises.
    """
    if isinstance(recipe, Recipe):
        if models is None or out is None:
            raise ConfigError("outcross.run(recipe, …) needs `models` by role, for example {'policy': model}, and a folder `out`")
        found = read_proofs([Path(path) for path in proofs])
        kept: KeepModels = keep_models if keep_models is not None else "all"
        options = loop.Options(budget or Budget(), unsafe, kept, journal=_path(journal), offline=offline, proofs=found)
        loop.run(recipe, models, Path(out), seed=seed or 0, options=options, watch=watch or Silent())
        return open(out)
    if models is not None:
        raise ConfigError("a run file brings its own models; leave `models` out, or pass a Recipe")
    return _run_file(Path(recipe), out, watch, _changes(seed, budget, unsafe, keep_models, proofs), _path(journal), offline)


def _changes(
    seed: int | None, budget: Budget | None, unsafe: bool, keep_models: KeepModels | None, proofs: Sequence[str | Path]
) -> list[tuple[str, Any]]:
    named = [str(Path(path).resolve()) for path in proofs]
    caps = {} if budget is None else {"budget": dataclasses.asdict(budget)}
    found = {"seed": seed, "keep_models": keep_models, "unsafe": unsafe or None, "proofs": named or None, **caps}
    return [(name, value) for name, value in found.items() if value is not None]


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _run_file(
    path: Path, out: str | Path | None, watch: Watch | None, changes: Sequence[tuple[str, Any]], journal: Path | None, offline: bool
) -> Run:
    from outcross.config.runfile import load

    plan = load(path, changes)
    root = Path(out) if out is not None else Path("runs") / (plan.file.name or path.stem)
    options = plan.options(root)
    options = dataclasses.replace(options, journal=journal or options.journal, offline=offline)
    loop.run(plan.build_recipe(), plan.build_models(), root, seed=plan.file.seed, options=options, watch=watch or Silent())
    return open(root)


def open(path: str | Path) -> Run:
    """The run in a folder, finished or not. Raises `StoreError` when there is none."""
    found = RunDir(Path(path))
    if not found.exists:
        raise StoreError(f"{path} is not the folder of a run: it has no manifest.json")
    _ = found.manifest  # told now if it is damaged or of another format
    return Run(found.root)


@dataclass(frozen=True)
class Run:
    """A run's record. Everything is read from `folder` when it is asked for; a run in progress shows its complete rounds."""

    folder: Path

    @cached_property
    def _dir(self) -> RunDir:
        return RunDir(self.folder)

    @property
    def summary(self) -> Summary:
        """Verdict, headings, probes and rounds."""
        from outcross.report.read import summary

        return summary(self._dir)

    @property
    def rounds(self) -> tuple[RoundRow, ...]:
        """The complete rounds, one row each."""
        return self.summary.rounds

    @property
    def bill(self) -> Bill | None:
        """What each model was asked and what it cost, to the journal's sums; None when nobody was asked. Raises `StoreError`."""
        from outcross.report.read import read_run

        return read_run(self._dir).bill

    @property
    def champion(self) -> Path | None:
        """The folder of the policy that holds now; None for a data-only run."""
        return self._dir.champion()

    def table(self, name: str, round: str | int | None = None, engine: Engine = "polars") -> Any:
        """A table of the record: groups, drops, examples, mixture, order or measurements ("examples.judge" of another role).

        `round`: a label such as "train/0000", a number over the run, or None for all rounds in one table with a column `round`.
        Raises `ConfigError` for a name or round there is not, `MissingExtra` when the engine is not installed.
        """
        stem = name.split(".", maxsplit=1)[0]
        if stem not in TABLES:
            raise ConfigError(f"there is no table {name!r}; {did_you_mean(stem, TABLES)}")
        found = self._arrow(name, self._chosen(round))
        if engine == "arrow":
            return found
        if engine not in _CONVERT:
            raise ConfigError(f"engine {engine!r} is unknown; {did_you_mean(engine, ('arrow', *_CONVERT))}")
        try:
            return _CONVERT[engine](found)
        except ImportError as error:
            raise MissingExtra(error.name or engine, "tables", f"a table for {engine}") from error

    def trace(self, id: str, most: int = 20) -> Trace:
        """What an identifier is, where it came from and what became of it."""
        from outcross.report.trace import trace

        return trace(self._dir, id, most)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report, one offline HTML file; the default is report.html in the run's folder."""
        from outcross.report.html import write_report

        target = self.folder / "report.html" if path is None else Path(path)
        write_report([self._dir], target)
        return target

    def _chosen(self, round: str | int | None) -> list[RoundDir]:
        rounds = self._dir.rounds()
        if round is None:
            return rounds
        found = [item for index, item in enumerate(rounds) if round in (item.label, index)]
        if not found:
            raise ConfigError(
                f"{self.folder} has no complete round {round!r}; there are: {', '.join(item.label for item in rounds) or 'none'}"
            )
        return found

    def _arrow(self, name: str, rounds: Sequence[RoundDir]) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pieces = []
        for item in rounds:
            for part in [*item.parts(), *([item.folder] if item.folder not in item.parts() else [])]:
                path = part / f"{name}.parquet"
                if path.exists():
                    piece = pq.read_table(path)
                    label = pa.array([item.label] * len(piece), pa.string())
                    pieces.append(piece.add_column(0, "round", label))
        if not pieces:
            raise ConfigError(
                f"{self.folder} has no table {name!r} in {', '.join(item.label for item in rounds) or 'its rounds: none is complete'}"
            )
        return pa.concat_tables(pieces)

    def __repr__(self) -> str:
        found = self.summary
        lines = [f"Run {self.folder}", found.verdict, *(f"! {line}" for line in found.headings)]
        return "\n".join([*lines, *(f"  {row.label}  {row.outcome}  {_means(row.means)}" for row in found.rounds)])

    def _repr_html_(self) -> str:
        found = self.summary
        heads = "".join(f"<div>⚠ {html.escape(line)}</div>" for line in found.headings)
        cells = [(row.label, row.outcome, f"{row.made:,}", f"{row.kept:,}", _means(row.means)) for row in found.rounds]
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
        titles = "".join(f"<th>{name}</th>" for name in ("round", "outcome", "samples", "kept", "probes"))
        head = f"<div><b>{html.escape(found.verdict)}</b></div>{heads}<div><code>{html.escape(str(self.folder))}</code></div>"
        return f"{head}<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _means(means: Mapping[str, float]) -> str:
    from outcross.report.numbers import number, words

    return " · ".join(f"{words(name)} {number(mean)}" for name, mean in means.items())


def _to_polars(table: Any) -> Any:
    import polars

    return polars.from_arrow(table)


def _to_pandas(table: Any) -> Any:
    import pandas  # noqa: F401  told by name when it is missing

    return table.to_pandas()


_CONVERT: Mapping[str, Callable[[Any], Any]] = {"polars": _to_polars, "pandas": _to_pandas}
