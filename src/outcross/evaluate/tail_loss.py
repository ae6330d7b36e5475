"""How well the model still predicts what is rare in text written by people: the first thing to go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.errors import ConfigError
from outcross.evaluate.scored import losses, mean, scorer
from outcross.evaluate.undecided import refuse_undecided
from outcross.stages import Context, LogProbs, Role, Stage, TokenIds
from outcross.types import Completion, Example, Ground, Measurement, Turn


@dataclass(frozen=True)
class TailLoss(Stage):
    """The mean negative log-likelihood of the rare part of each real completion under the policy, in nats per token; lower is better.

    of: *tokens*: the mean is over the row's rare tokens; rows without one do not count. *subgroups*: over all tokens of the row, and
        only rows of a rare subgroup count.
    share: how much of all tokens, or rows, the rare ones may be: 0.1 is the rarest decile. Kinds that are equally often are rare
        together or not at all; where even the rarest are more than the share, they alone are rare. A kind not seen is rare.
    reference: real rows that frequencies are counted on; None: `real` itself. It stays the same for all models and rounds.

    Collapse begins in the tails, while the mean loss still looks well (Shumailov et al., Nature 631, 2024): rare events are the ones
    that a finite sample misses. Raises `ConfigError` when nothing is rare, or when the policy's answers are more than one token and
    it does not say which.
    """

    real: Iterable[Example]
    of: Literal["tokens", "subgroups"] = "tokens"
    share: float = 0.1
    reference: Iterable[Example] | None = None
    margin: float = 0.1
    label: str = ""
    roles: ClassVar[tuple[Role, ...]] = ("policy",)
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "fit"
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"tail_loss: share is {self.share}; allowed is a share between 0 and 1, such as 0.1")

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("tail_loss", "" if self.of == "tokens" else self.of, self.label)))

    def __call__(self, ctx: Context, /) -> Measurement:
        model = scorer(ctx, self.name, "policy")
        counted = self.real if self.reference is None else self.reference
        if self.of == "subgroups":
            groups: Counter[Hashable] = Counter(row.subgroup for row in counted if row.subgroup is not None)
            common = often(groups, self.share)
            rows = (row for row in self.real if row.subgroup is not None and row.subgroup not in common)
            found = {item: mean(values) for item, values in losses(self.name, model, map(_turn, rows), "real examples")}
        else:
            tokens = tokens_by(model)
            common = often(Counter(token for row in counted for token in tokens(row)), self.share)
            found = dict(self._rare_tokens(model, common))
        if not found and any(True for _ in self.real):
            raise ConfigError(
                f"{self.name}: no {self.of.rstrip('s')} of the real rows is rare: none is among the rarest {self.share:.0%}; give more rows"
                + (" with a `subgroup`" if self.of == "subgroups" else "")
            )
        refuse_undecided(self.name, (), len(found))
        return Measurement(self.name, tuple(found), tuple(found.values()), higher_is_better=False, unit="nats per token")

    def _rare_tokens(self, model: LogProbs, common: frozenset[Hashable]) -> Iterator[tuple[str, float]]:
        tokens = tokens_by(model)
        rare = {row.id: places for row in self.real if (places := [token not in common for token in tokens(row)]) and any(places)}
        rows = (row for row in self.real if row.id in rare)
        for item, values in losses(self.name, model, map(_turn, rows), "real examples"):
            if len(values) != len(rare[item]):
                raise ConfigError(
                    f"{self.name}: the policy scored {len(values)} tokens of {item!r} and names {len(rare[item])}; take a local language "
                    "model, whose tokens are known, or one whose answers are a token each"
                )
            yield item, mean([value for value, is_rare in zip(values, rare[item], strict=True) if is_rare])


def _turn(row: Example) -> tuple[str, Turn]:
    return row.id, Turn(row.prompt, Completion(row.completion))


def tokens_by(model: LogProbs) -> Callable[[Example], Sequence[Hashable]]:
    """The tokens of a real completion by the model's own vocabulary; a model that does not say takes the answer as one token."""
    if isinstance(model, TokenIds):  # asked once: of a protocol it takes longer than to look tokens up
        return lambda row: model.token_ids(Completion(row.completion))
    return lambda row: (str(row.completion),)


def often(counts: Mapping[Hashable, int], share: float) -> frozenset[Hashable]:
    """The kinds that are not rare. Rare are all kinds with at most c occurrences, for the largest c at which these are no more
    than `share` of all occurrences, or the smallest c there is."""
    by_count: Counter[int] = Counter()
    for count in counts.values():
        by_count[count] += count
    limit, running = 0, 0
    for count in sorted(by_count):
        running += by_count[count]
        if limit and running > share * sum(counts.values()) * (1 + 1e-12):
            break
        limit = count
    return frozenset(kind for kind, count in counts.items() if count > limit)
