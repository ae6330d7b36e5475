"""Comparisons among real examples, put to another use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from outcross.errors import DataError
from outcross.types import NLL, Example, Loss, example_id


@dataclass(frozen=True)
class Pairs:
    """The comparisons of `real` (examples with a `rejected` answer), to be learnt by `loss`: "bt" for a reward model, "dpo" or "ipo" for a policy.

    learn: `both`: the pair; `chosen`: what people chose alone, by likelihood. Rows that are no comparisons are passed over; raises
    `DataError` when there is no other.
    """

    real: Iterable[Example]
    loss: Loss = Loss("bt")
    learn: Literal["both", "chosen"] = "both"

    def __iter__(self) -> Iterator[Example]:
        count = 0
        for example in self.real:
            if example.rejected is not None:
                count += 1
                yield self._turned(example)
        if not count:
            raise DataError("pairs: none of the real rows is a comparison; give rows with prompt, chosen and rejected")

    def _turned(self, example: Example) -> Example:
        rejected = example.rejected if self.learn == "both" else None
        loss = self.loss if self.learn == "both" else NLL
        identifier = example_id(example.prompt, example.completion, loss, example.origin, rejected)
        return msgspec.structs.replace(example, id=identifier, loss=loss, rejected=rejected)
