"""What a step of a language model's training costs: forward passes over its rows, and their losses added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from outcross.train.forward import Batch, Text, log_probs, pad
from outcross.train.head import LOGITS, completion_log_probs, has_plain_head
from outcross.train.losses import PAIRED, Terms, log_ratio, total
from outcross.train.packing import check_apart, packed_log_probs
from outcross.train.rows import Rows
from outcross.types import Loss


class PolicyCost:
    """Losses of a causal language model's rows (`outcross.train.losses.POLICY_LOSSES`); a step may mix them.

    Kinds of losses count by their share of the step's rows: "nll" is a mean over the completion tokens of its rows, any other a mean over
    its rows. For a step of n rows, m of them "nll" with T completion tokens: L = (m/n) · Σ nll/T + Σ others/n.
    """

    def __init__(self, rows: Rows, device: torch.device, *, packing: bool = False) -> None:
        self.rows, self.device, self.packing = rows, device, packing
        self._plain: bool | None = None
        self._apart = False

    def ahead(self, model: Any, chosen: Sequence[int], micro_batch: int) -> Tensor:
        """Of which KTO's z is made: the log π/π_ref of answers to other prompts, added up over the rows that have one, and how many these are."""
        ratios, asked = [], [row for row in chosen if self.rows.losses[row].name == "kto" and row in self.rows.others]
        for start in range(0, len(asked), micro_batch):
            part = asked[start : start + micro_batch]
            texts = [self.rows.others[row] for row in part]
            batch = pad(texts, self.device)
            with torch.no_grad():
                found = self._log_probs(model, batch, texts)
            ratios.append(log_ratio(found, by_column([self.rows.references[row][1] for row in part], batch.mask), batch.mask))
        found = torch.zeros(2, dtype=torch.promote_types(model.dtype, torch.float32), device=self.device)
        for part in ratios:
            found += torch.stack([part.sum(), torch.full_like(part[0], len(part))])
        return found

    def of(self, model: Any, chosen: Sequence[int], step: Sequence[int], ahead: Tensor) -> Tensor:
        """What some rows of a step add to its loss; z is the mean of `ahead`, not below 0."""
        divergence = (ahead[0] / ahead[1].clamp(min=1)).clamp(min=0)
        pairs = [row for row in chosen if self.rows.losses[row].name in PAIRED]
        texts = [*map(self.rows.text, chosen), *(self.rows.others[row] for row in pairs)]
        batch = pad(texts, self.device)
        terms = self._terms(chosen, pairs, batch, self._log_probs(model, batch, texts), divergence)
        found = torch.zeros((), device=self.device)
        for loss in dict.fromkeys(self.rows.losses[row] for row in chosen):
            mine = [index for index, row in enumerate(chosen) if self.rows.losses[row] == loss]
            found = found + total(loss, _part(terms, mine)) * self._scale(loss, step)
        return found

    def _log_probs(self, model: Any, batch: Batch, texts: Sequence[Text]) -> Tensor:
        if self.packing:
            if not self._apart:
                check_apart(model)
                self._plain, self._apart = has_plain_head(model), True
            return packed_log_probs(model, texts, batch, plain=bool(self._plain))
        if batch.mask.numel() * model.config.get_text_config().vocab_size <= LOGITS:
            return log_probs(model, batch)
        if self._plain is None:
            self._plain = has_plain_head(model)
        return (completion_log_probs if self._plain else log_probs)(model, batch)

    def _scale(self, loss: Loss, step: Sequence[int]) -> float:
        if loss.name != "nll":
            return 1 / len(step)
        mine = [row for row in step if self.rows.losses[row].name == "nll"]
        return len(mine) / len(step) / sum(map(self.rows.tokens, mine))

    def _terms(self, chosen: Sequence[int], pairs: Sequence[int], batch: Batch, found: Tensor, divergence: Tensor) -> Terms:
        count, rows = len(chosen), self.rows
        own = Batch(batch.ids[:count], batch.mask[:count], batch.first)
        places = torch.tensor([chosen.index(row) for row in pairs], dtype=torch.long, device=found.device)
        other, other_mask = torch.zeros_like(found[:count]), torch.zeros_like(own.mask)
        other, other_mask = other.index_copy(0, places, found[count:]), other_mask.index_copy(0, places, batch.mask[count:])
        of_pairs = by_column([rows.references[row][1] for row in pairs], batch.mask[count:])
        numbers = [weight if isinstance(weight, float | int) else 0.0 for weight in (rows.weights[row] for row in chosen)]
        return Terms(
            log_probs=found[:count],
            reference=by_column([rows.references.get(row, ((), ()))[0] for row in chosen], own.mask),
            old=by_column([rows.old.get(row, ()) for row in chosen], own.mask),
            weights=self._weights(chosen, own),
            mask=own.mask,
            other=other,
            other_reference=torch.zeros_like(other).index_copy(0, places, of_pairs),
            other_mask=other_mask,
            target=torch.tensor([rows.targets[row] for row in chosen], dtype=torch.float32, device=found.device),
            row_weights=torch.tensor(numbers, dtype=torch.float32, device=found.device),
            divergence=divergence,
        )

    def _weights(self, chosen: Sequence[int], batch: Batch) -> Tensor:
        """Weights by column, zero outside the completions."""
        scalars = [weight if isinstance(weight, float | int) else 0.0 for weight in (self.rows.weights[row] for row in chosen)]
        found = batch.mask * torch.tensor(scalars, dtype=torch.float32, device=batch.mask.device)[:, None]
        for index, row in enumerate(chosen):
            weight = self.rows.weights[row]
            if isinstance(weight, tuple):
                found[index, batch.mask[index]] = torch.tensor(weight, device=found.device)
        return found


def by_column(numbers: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    """Numbers of completion tokens at their columns; zero elsewhere, and in rows that have none."""
    found = torch.zeros(mask.shape, device=mask.device)
    for index, row in enumerate(numbers):
        if len(row):
            found[index, mask[index]] = torch.tensor(row, dtype=torch.float32, device=mask.device)
    return found


def _part(terms: Terms, rows: Sequence[int]) -> Terms:
    """Some rows of all terms."""
    if len(rows) == len(terms.mask):
        return terms
    return Terms(**{name: value if name == "divergence" else value[rows] for name, value in vars(terms).items()})
