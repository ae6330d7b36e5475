"""Reading prompts into a key-value cache: what several prompts begin with is read once.

A few-shot template or system prompt that many prompts of a batch share is read by itself; each prompt then reads only its own end.
Prompts that share nothing are read together, padded on the left to the longest of their part.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from outcross.models import cache as columns
from outcross.models.cache import cache_name

Ids = tuple[int, ...]

PREFILL_TOKENS = 1 << 14  # prompt tokens in one forward pass
KEPT_TOKENS = 1 << 12  # of shared beginnings whose keys and values are kept
LEAST_PREFIX = 32  # a shorter beginning is not worth a forward pass of its own
LEAST_SAVED = 256  # nor is one that saves fewer tokens than these


def shared_prefixes(prompts: Collection[Ids]) -> dict[Ids, int]:
    """How many of its first tokens each prompt shares with others; prompts that share none are left out.

    Prompts next to each other in alphabetical order share the most. Of all runs of neighbours the one that saves the most
    tokens, its common length times its members but one, is taken first: the largest rectangle under the histogram of common lengths.
    """
    ordered = sorted(set(prompts))
    common = [_common(one, other) for one, other in pairwise(ordered)]
    found: dict[Ids, int] = {}
    spans = [(0, len(common))]
    while spans:
        begin, end = spans.pop()
        left, right, length = _largest_rectangle(common, begin, end)
        if length * (right - left) < LEAST_SAVED:
            continue
        found |= dict.fromkeys(ordered[left : right + 1], length)
        spans += [(begin, left - 1), (right + 1, end)]
    return found


def _common(one: Ids, other: Ids) -> int:
    """How many first tokens two prompts have in common, so that each keeps at least one of its own; 0 if it is not worth it."""
    most = min(len(one), len(other)) - 1
    length = next((at for at in range(most) if one[at] != other[at]), most)
    return length if length >= LEAST_PREFIX else 0


def _largest_rectangle(heights: Sequence[int], begin: int, end: int) -> tuple[int, int, int]:
    """(left, right, height) of the largest rectangle under `heights[begin:end]`, over the bars from left up to right − 1."""
    best = (begin, begin, 0)
    rising: list[tuple[int, int]] = []  # (first bar it covers, height)
    for at in range(begin, end + 1):
        height = heights[at] if at < end else 0
        first = at
        while rising and rising[-1][1] >= height:
            first, tall = rising.pop()
            if tall * (at - first) > best[2] * (best[1] - best[0]):
                best = (first, at, tall)
        rising.append((first, height))
    return best


class Reader:
    """Reads prompts of one queue for a model. Kept keys and values are bounded, and gone with the reader."""

    def __init__(self, model: Any, prompts: Collection[Ids]) -> None:
        self.model, self.device = model, model.device
        self.cache_name = cache_name(model)
        self.shared = shared_prefixes(prompts) if columns.can_share_prefixes(model.config) else {}
        self._prefixes: OrderedDict[Ids, Any] = OrderedDict()
        self._last: tuple[Ids, Any, Tensor] | None = None

    def read(self, wanted: Sequence[Ids], following: Ids | None) -> tuple[Any, Tensor]:
        """The cache after reading each of `wanted`, right edges aligned, and the logits of what follows, (rows, vocabulary).

        Equal prompts are read once. `following`: the prompt that will be wanted next; if it is read now, it is kept for then.
        """
        unique = list(dict.fromkeys(wanted))
        order: list[Ids] = []
        caches, logits = [], []
        for part, cache, found in self._parts(unique):
            order += part
            caches.append(cache)
            logits.append(found)
        cache = columns.joined(caches, self.model.config, max(map(len, unique)))
        heads = torch.cat(logits)
        place = {ids: row for row, ids in enumerate(order)}
        self._last = None
        if following in place and columns.can_share(self.model.config):
            row = torch.tensor([place[following]], device=self.device)
            self._last = (following, columns.taken(cache, row, len(following), self.model.config), heads[row])
        if order != list(wanted):
            index = torch.tensor([place[ids] for ids in wanted], device=self.device)
            cache.reorder_cache(index)
            heads = heads[index]
        return cache, heads

    def _parts(self, prompts: Sequence[Ids]) -> Iterator[tuple[Sequence[Ids], Any, Tensor]]:
        """Prompts with a common beginning, as many as one forward pass takes, with their cache and logits."""
        by_prefix: dict[Ids, list[Ids]] = {}
        for ids in prompts:
            if self._last is not None and ids == self._last[0]:
                yield [ids], *self._last[1:]
            else:
                by_prefix.setdefault(ids[: self.shared.get(ids, 0)], []).append(ids)
        for prefix, members in by_prefix.items():
            members.sort(key=len, reverse=True)
            while members:
                rows = max(1, PREFILL_TOKENS // len(members[0]))
                part, members = members[:rows], members[rows:]
                yield part, *self._read(prefix, part)

    def _read(self, prefix: Ids, prompts: Sequence[Ids]) -> tuple[Any, Tensor]:
        """Read what follows `prefix` in each of `prompts`, the longest of which comes first."""
        known, width = len(prefix), len(prompts[0]) - len(prefix)
        padding = torch.tensor([len(prompts[0]) - len(ids) for ids in prompts])
        ids = torch.tensor([(0,) * (len(prompts[0]) - len(each)) + each[known:] for each in prompts])
        positions = (torch.arange(width) - padding[:, None]).clamp(min=0) + known
        padded = bool(padding.any())
        column = torch.arange(-known, width)
        mask = ((column < 0) | (column >= padding[:, None])).to(self.device) if padded else None
        cache = columns.repeated(self._prefix(prefix), len(prompts), self.model.config) if prefix else columns.new_cache(self.model.config)
        logits = self.forward(ids.to(self.device), positions.to(self.device), mask, cache)
        if prefix and padded:
            columns.close_gaps(cache, known, padding.to(self.device))
        return cache, logits

    def _prefix(self, prefix: Ids) -> Any:
        """The cache of a shared beginning, one row. Those used last are kept, as many as `KEPT_TOKENS` hold and at least one."""
        if prefix not in self._prefixes:
            cache = columns.new_cache(self.model.config)
            self.forward(torch.tensor([prefix], device=self.device), torch.arange(len(prefix), device=self.device)[None], None, cache)
            self._prefixes[prefix] = cache
            while len(self._prefixes) > 1 and sum(map(len, self._prefixes)) > KEPT_TOKENS:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(prefix)
        return self._prefixes[prefix]

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        """Logits of what follows the last column, (rows, vocabulary), in float32; `cache` takes in all columns."""
        out = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=True, logits_to_keep=1, **{self.cache_name: cache}
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits
