"""Experts before admission: which samples a person is shown, what the answers show about their batch, and the signature that admits it.

    RUN/reviews/  train-0000.0.jsonl  …  drawn samples, in which people write `reviewer`, `verdict` and `reason`; also CSV and SQLite
                  train-0000.signed.json  who signed, over which samples and verdicts

A batch is what a round would teach or release. Its samples are shown in one random order that the run's seed fixes, each once; what counts
is the part of that order that is judged without a gap, so that nobody chooses what to judge. An answer that its reviewers failed, abstained
on, or could not agree about is an error: nobody vouches for it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from outcross.engine.steps import Part
from outcross.engine.store import RoundDir, RunDir, read_json, write_json
from outcross.engine.tables import decode_groups, rows_of
from outcross.errors import ConfigError, GuardError, ReviewNeeded
from outcross.recipe import Expert, Phase
from outcross.reviews import DATABASES, Written, agreed, read_reviews
from outcross.sequential import Acceptance, Finding
from outcross.text import prompt_text
from outcross.types import Decision, Group, Review, Sample, Verdict, content_hash

Json = dict[str, Any]
Strata = Literal["subgroup", "verdict"]
FOLDER = "reviews"
SIGNED = ".signed.json"
MARKER, LATE = "admit", "admitted.json"


@dataclass(frozen=True)
class Batch:
    """What a round would teach or release: `order` holds its samples' identifiers in the order in which people see them.

    everything: all that was answered instead, set aside or not, and shown without the verifiers' verdicts, which would lead people: labels
        for `outcross verifier-check`.
    """

    run: RunDir
    turn: RoundDir
    seed: int
    everything: bool = False

    @cached_property
    def id(self) -> str:
        return content_hash("batch", self.turn.label, sorted(self.order))

    @cached_property
    def order(self) -> tuple[str, ...]:
        of = _answered if self.everything else _batch_of
        found = {sample for part in self.turn.parts() for sample in of(part)}
        return tuple(sorted(found, key=lambda sample: content_hash(self.seed, self.turn.label, sample)))

    @property
    def stem(self) -> Path:
        return self.run.root / FOLDER / f"{self.turn.label.replace('/', '-')}{'.all' if self.everything else ''}"

    @property
    def files(self) -> list[Path]:
        """What was drawn of it so far."""
        return sorted(self.stem.parent.glob(f"{self.stem.name}.[0-9]*.jsonl"))

    def verdicts(self) -> dict[str, Verdict]:
        """What people agree on, by sample, for the gapless beginning of the order."""
        said: dict[str, list[Written]] = defaultdict(list)
        for item in reviews_of(self.run):
            said[item.sample_id].append(item)
        found = {}
        for sample in self.order:
            if sample not in said:
                break
            found[sample] = agreed(said[sample])
        return found

    def look(self, verdicts: Mapping[str, Verdict], expert: Expert) -> Finding:
        """What these verdicts show about the whole batch."""
        errors = sum(verdict != "pass" for verdict in verdicts.values())
        return Acceptance(expert.limit, expert.alpha).look(errors, len(verdicts), len(self.order))

    def draw(self, n: int, by: Strata | None = None) -> tuple[Path, int]:
        """Write the next `n` samples that nobody was shown to a file; its path and how many there were. `by`: as many of each stratum
        as there are; these samples are for looking, and the order goes on counting without a gap only.

        Raises `ConfigError` when all were shown.
        """
        shown = set(_shown(self.run))
        left = [sample for sample in self.order if sample not in shown]
        if not left:
            raise ConfigError(f"all {len(self.order):,} samples of {self.turn.label} were drawn; fill in {', '.join(map(str, self.files))}")
        chosen = left[:n] if by is None else _in_turn(left, self._strata(by), n)
        path = self.stem.with_name(f"{self.stem.name}.{len(self.files)}.jsonl")
        path.parent.mkdir(exist_ok=True)
        rows = {sample.id: _shown_row(group, sample, blind=self.everything) for group, sample in self._samples(set(chosen))}
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text("".join(json.dumps(rows[sample], ensure_ascii=False) + "\n" for sample in chosen), encoding="utf-8")
        temporary.replace(path)
        return path, len(chosen)

    def _strata(self, by: Strata) -> dict[str, str]:
        wanted = set(self.order)
        return {sample.id: str(group.task.subgroup if by == "subgroup" else sample.verdict) for group, sample in self._samples(wanted)}

    def _samples(self, wanted: set[str]) -> Iterator[tuple[Group, Sample]]:
        for part in self.turn.parts():
            for name in ("groups", "drops"):
                for group in decode_groups(rows_of(part / f"{name}.parquet")):
                    yield from ((group, sample) for sample in group.samples if sample.id in wanted)

    def sign(self, reviewer: str, expert: Expert) -> Finding:
        """Put `reviewer`'s name under the decision. Raises `ConfigError` as long as there is none."""
        verdicts = self.verdicts()
        found = self.look(verdicts, expert)
        if found.decision == "go on":
            raise ConfigError(f"{self.turn.label} is not decided: {self.missing(found)}")
        signed = {"batch": self.id, "round": self.turn.label, "reviewer": reviewer, "verdicts": verdicts}
        write_json(self.stem.with_name(self.stem.name + SIGNED), {**signed, "signature": _signature(signed)})
        return found

    def missing(self, found: Finding) -> str:
        """What is still to be done, in words."""
        limit = f"; {found.more:,} more without an error would accept it" if found.more else ""
        return f"{found.seen:,} of {len(self.order):,} samples are judged in order, {found.errors:,} of them errors{limit}"


def decide(batch: Batch, expert: Expert) -> Json:
    """Whether the batch is admitted: its entry in the round's record.

    Raises `GuardError` when what was signed is not what the files say.
    """
    path = batch.stem.with_name(batch.stem.name + SIGNED)
    entry: Json = {"batch": batch.id, "size": len(batch.order), "limit": expert.limit, "alpha": expert.alpha}
    if not path.exists():
        found = batch.look(batch.verdicts(), expert)
        told = batch.missing(found) if found.decision == "go on" else f"the sample would {found.decision} it and nobody has signed it"
        return {**entry, **_numbers(found), "decision": "go on", "reason": told}
    signed = read_json(path)
    verdicts: dict[str, Verdict] = signed["verdicts"]
    current = dict(list(batch.verdicts().items())[: len(verdicts)])
    if signed["signature"] != _signature(signed) or signed["batch"] != batch.id or current != verdicts:
        changed = next(
            (f" (sample {sample} is judged otherwise now)" for sample in verdicts if current.get(sample) != verdicts[sample]), ""
        )
        raise GuardError(
            f"{path} does not fit the reviews of {batch.turn.label}{changed}; "
            f"sign anew: outcross review {batch.run.root} --round {batch.turn.label} --sign NAME"
        )
    found = batch.look(verdicts, expert)
    low, high = found.interval
    share = f"{found.errors:,} of {found.seen:,} samples of {len(batch.order):,} are errors, {low:.1%} to {high:.1%} of the batch"
    reason = f"{signed['reviewer']} signed: {share}; the limit is {expert.limit:.1%}"
    return {
        **entry,
        **_numbers(found),
        "decision": found.decision,
        "reason": reason,
        **{key: signed[key] for key in ("reviewer", "signature", "verdicts")},
    }


def through(run: RunDir, part: Part, expert: Expert, seed: int) -> Part:
    """The part as people let it go on: held when they have not admitted its batch, and without the samples that they failed.

    Raises `ReviewNeeded` when the run is to wait for them; the file that they have to fill in is there then.
    """
    batch = Batch(run, RoundDir(part.folder, part.phase.name, int(part.folder.name)), seed)
    if not batch.order:
        return part
    entry = part.marked(MARKER)
    if entry is None:
        entry = decide(batch, expert)
        files = batch.files
        if entry["decision"] == "go on" and not files:
            fewest = Acceptance(expert.limit, expert.alpha).look(0, 0, len(batch.order)).more or len(batch.order)
            files = [batch.draw(fewest)[0]]
        if entry["decision"] == "go on" and expert.wait:
            raise ReviewNeeded(
                f"{batch.turn.label} waits for an expert: {entry['reason']}. Fill in `verdict` (pass or fail) and `reviewer` in "
                f"{', '.join(map(str, files))}, then: outcross review {run.root} --sign NAME, and: outcross resume {run.root}"
            )
        bury_failed(run, part.label)
        entry = part.mark(MARKER, entry)
    return replace(part, held=entry["decision"] != "accept", buried=run.tombstones())


def recorded(turn: RoundDir) -> Json:
    """The round's admission, for its record; nothing where nobody was asked."""
    path = turn.folder / "steps" / f"{MARKER}.json"
    return {"admission": read_json(path)} if path.exists() else {}


def refusal(turn: RoundDir) -> Decision:
    """The decision of a round whose rows people did not admit."""
    return Decision(False, f"not admitted: {recorded(turn)['admission']['reason']}", "expert")


def take_in(run: RunDir, turn: RoundDir, done: Sequence[RoundDir], phases: Iterable[Phase], seed: int) -> None:
    """Copy what people have said into the record of a round that begins: their verdicts (reviews.json), of which every fail is a tombstone,
    and the batches of earlier rounds that they have admitted since (admitted.json). A round that has begun keeps what it began with."""
    if any(turn.folder.rglob("steps/*.json")) or not (run.root / FOLDER).is_dir():
        return
    bury_failed(run, turn.label)
    write_json(turn.folder / "reviews.json", [Review(item.sample_id, item.reviewer, item.verdict, item.reason) for item in reviews_of(run)])
    experts = {phase.name: phase.expert for phase in phases}
    entries = {}
    for earlier in done:
        expert = experts[earlier.phase]
        if expert is not None and earlier.record.get("admission", {}).get("decision") == "go on":
            entries[earlier.label] = decide(Batch(run, earlier, seed), expert)
    if entries:
        write_json(turn.folder / LATE, entries)


def learnable(done: Sequence[RoundDir], turn: RoundDir) -> tuple[RoundDir, ...]:
    """The earlier rounds whose rows `turn` may learn from: those that were promoted, and those that people admitted afterwards. A promotion
    that a round of `done` rolled back is none; one that was rolled back later still was one when `turn` learnt."""
    late, known = _late(turn.folder), {item.label for item in done}
    stood = (item for item in done if item.record["outcome"] == "promoted" and item.undone_by not in known and not _held(item))
    allowed = {*late, *(item.label for item in stood)}
    return tuple(item for item in done if item.label in allowed)


def has_news(done: Sequence[RoundDir], folder: Path) -> bool:
    """Whether a batch was admitted late, when the round in `folder` began, that no fit has seen yet."""
    seen = {label for item in done if item.record["fits"] for label in _late(item.folder)}
    return bool(_late(folder) - seen)


def _held(turn: RoundDir) -> bool:
    entry = turn.record.get("admission")
    return entry is not None and entry["decision"] != "accept"


def _late(folder: Path) -> set[str]:
    path = folder / LATE
    return {label for label, entry in read_json(path).items() if entry["decision"] == "accept"} if path.exists() else set()


def reviews_of(run: RunDir) -> list[Written]:
    """All verdicts that people wrote into the files of the run, in the order of the files' names."""
    return [item for path in _files(run) for item in read_reviews(path) if item.sample_id]


def bury_failed(run: RunDir, label: str) -> None:
    """Tombstone the samples that people failed, each once."""
    said: dict[str, list[Written]] = defaultdict(list)
    for item in reviews_of(run):
        said[item.sample_id].append(item)
    failed = {sample for sample, items in said.items() if agreed(items) == "fail"} - run.tombstones()
    if failed:
        run.bury(sorted(failed), {"review": label})


def _files(run: RunDir) -> list[Path]:
    return sorted(path for path in (run.root / FOLDER).glob("*") if path.suffix in (".jsonl", ".csv", *DATABASES))


def _shown(run: RunDir) -> Iterator[str]:
    for path in _files(run):
        if path.suffix == ".jsonl":
            yield from (json.loads(line)["sample_id"] for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        else:
            yield from (item.sample_id for item in read_reviews(path))


def _batch_of(part: Path) -> Iterator[str]:
    """The samples of a part of a round that would be taught; where nothing is, those that would be rows."""
    taught = sorted(part.glob("examples*.parquet"))
    parents = {parent for path in taught for row in rows_of(path, ["outcross"]) for parent in row["outcross"]["parents"]}
    for row in rows_of(part / "groups.parquet", ["id", "verdict", "error"]):
        if not row["error"] and (row["id"] in parents if taught else row["verdict"] in ("pass", None)):
            yield row["id"]


def _answered(part: Path) -> Iterator[str]:
    """All samples of a part of a round that hold an answer."""
    for name in ("groups", "drops"):
        yield from (row["id"] for row in rows_of(part / f"{name}.parquet", ["id", "error"]) if not row["error"])


def _in_turn(left: Sequence[str], strata: Mapping[str, str], n: int) -> list[str]:
    """`n` samples, one of each stratum after the other as long as it lasts."""
    ranks: dict[str, int] = defaultdict(int)
    placed = []
    for place, sample in enumerate(left):
        placed.append((ranks[strata[sample]], place, sample))
        ranks[strata[sample]] += 1
    return [sample for _, _, sample in sorted(placed)[:n]]


def _shown_row(group: Group, sample: Sample, *, blind: bool) -> Json:
    said = {score.verifier: f"{score.verdict}{f' ({score.reason})' if score.reason else ''}" for score in sample.scores}
    return {
        "sample_id": sample.id,
        "task_id": group.task.id,
        "subgroup": group.task.subgroup,
        "prompt": prompt_text(group.task.prompt),
        "answer": sample.text,
        "reference": group.task.answer,
        "model": sample.origin.source,
        **({} if blind else {"verdicts": said}),
        "reviewer": "",
        "verdict": "",
        "reason": "",
    }


def _signature(signed: Mapping[str, Any]) -> str:
    return content_hash("admission", *(signed[key] for key in ("batch", "round", "reviewer")), sorted(signed["verdicts"].items()))


def _numbers(found: Finding) -> Json:
    return {"errors": found.errors, "seen": found.seen, "low": found.interval.low, "high": found.interval.high, "more": found.more}
