"""What probes of likelihood begin with: the losses of given texts, token by token, and refusals of models that give none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from outcross.errors import ConfigError, StageError
from outcross.stages import Context, LogProbs, Role
from outcross.types import Turn

CEILING = 100.0  # nats: what a token of probability zero counts, so that one of them does not make every mean infinite


def scorer(ctx: Context, probe: str, role: Role) -> LogProbs:
    """The model of a role that is to score texts. Raises `ConfigError` when it gives no log-probabilities."""
    model = ctx.model(role)
    if not isinstance(model, LogProbs):
        raise ConfigError(f"{probe} needs log-probabilities, which the {role} {model.id!r} does not give; take a local model")
    return model


def losses(probe: str, model: LogProbs, turns: Iterable[tuple[str, Turn]], what: str) -> Iterator[tuple[str, Sequence[float]]]:
    """Each text's name and its losses in nats, one per token, at most 100. `turns` are named; `what` they are, for messages.

    Raises `StageError` when the model gives none for a text, or one that is not a number. Memory: one name per text.
    """
    names: list[str] = []
    wrong: list[str] = []
    count = 0

    def said() -> Iterator[Turn]:
        for name, turn in turns:
            names.append(name)
            yield turn

    for count, log_probs in enumerate(model.log_probs(said()), 1):
        if count > len(names):
            break
        found = [min(-float(log_prob), CEILING) for log_prob in log_probs]
        if found and all(map(math.isfinite, found)):
            yield names[count - 1], found
        else:
            wrong.append(names[count - 1])
    if count != len(names):
        raise StageError(f"{probe}: the model scored {count:,} of {len(names):,} {what}; each needs one answer")
    if wrong:
        raise StageError(
            f"{probe}: the model gave no token, or a log-probability that is no number at most 0, for {len(wrong):,} "
            f"of {len(names):,} {what}, first {wrong[0]!r}; correct its `log_probs`"
        )


def mean(values: Sequence[float]) -> float:
    """The mean of at least one number."""
    return sum(values) / len(values)
