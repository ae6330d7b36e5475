"""Sampling in batches: rows of many requests share forward passes and a key-value cache.

Rows wait in a queue, longest prompt first. A batch starts with as many as fit; when a quarter of its slots are idle they
are given to the next rows of the queue, and when the queue is empty the batch shrinks. Samples of one prompt share its
first pass, and prompts of one queue what they begin with (`prefill`). What a row draws depends on its own seed, not on its neighbours,
except through rounding. The host waits for the device once a token, to learn whether a row has ended, and once more with stop strings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from outcross.models import cache as columns
from outcross.models.draw import Settings, draw, uniforms
from outcross.models.prefill import Reader
from outcross.types import Sampling


@dataclass(frozen=True, eq=False)
class Row:
    """One completion to draw: what the model reads first, how much it may add, and its random numbers' seed."""

    ids: tuple[int, ...]
    limit: int
    sampling: Sampling
    seed: int
    sample: int
    prefix: tuple[int, ...] = ()  # the end of `ids` that belongs to the completion


@dataclass(frozen=True)
class Drawn:
    """What a row came to. `finished`: it ended by itself, with an end token or, at character `cut`, a stop string."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finished: bool
    cut: int | None = None


@dataclass
class State:
    """Rows in flight, one entry per slot in each tensor; a slot whose row has ended is not `alive` and computes on, unread."""

    token: Tensor  # the last token, which the next pass reads
    length: Tensor  # tokens read and drawn so far
    start: Tensor  # first column of the cache that is the row's own
    count: Tensor  # tokens drawn
    limit: Tensor
    alive: Tensor
    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    greedy: Tensor
    stop: Tensor  # which set of stop strings, 0 for none
    random: Tensor  # (slots, width)
    tokens: Tensor  # (slots, width + 1)
    log_probs: Tensor

    def select(self, slots: Tensor) -> State:
        return State(*(getattr(self, item.name)[slots] for item in fields(self)))

    def put(self, slots: Tensor, other: State) -> None:
        for item in fields(self):
            getattr(self, item.name)[slots] = getattr(other, item.name)


class Batch:
    """One run of the loop over a queue of rows, all of which have at least one token to draw."""

    def __init__(
        self,
        model: Any,
        rows: Sequence[Row],
        slots: int,
        *,
        end_ids: frozenset[int],
        text: Callable[[Sequence[int]], str],
        pieces: Callable[[], list[str]],
    ) -> None:
        self.model, self.device = model, model.device
        self.queue = deque(sorted(rows, key=lambda row: (-len(row.ids), row.ids)))
        self.slots, self.text = slots, text
        self.reader = Reader(model, {row.ids for row in rows})
        self.width = max(row.limit for row in rows)
        self.vocabulary = model.config.get_text_config().vocab_size
        self.ends = torch.zeros(self.vocabulary, dtype=torch.bool, device=self.device)
        self.ends[[token for token in end_ids if token < self.vocabulary]] = True
        stops = _stop_tables(rows, pieces, self.vocabulary, self.device)
        self.stops, self.may_stop = list(stops), torch.stack(list(stops.values()))
        self.rows: list[Row] = []
        self.filtered = any(row.sampling.top_p < 1 or row.sampling.top_k for row in rows)
        self.greedy = all(row.sampling.temperature <= 0 for row in rows)

    def run(self, emit: Callable[[Row, Drawn], None]) -> None:
        """Draw every row and hand each over as it ends."""
        while self.queue:
            self.rows, state, cache = self._admit(self.slots, emit)
            self._decode(state, cache, emit)

    def _decode(self, state: State, cache: Any, emit: Callable[[Row, Drawn], None]) -> None:
        """Draw token after token until no row is alive, giving idle slots to waiting rows on the way."""
        width, living, padded = len(self.rows[0].ids), int(state.alive.sum()), True
        while living:
            refill = self.queue and len(self.rows) - living >= max(1, len(self.rows) // 4)
            if refill or (not self.queue and 2 * living <= len(self.rows)):
                if not refill:
                    state = self._shrink(state, cache)
                width -= self._trim(state, cache, width)
                if refill:
                    self._refill(state, cache, width, emit)
                    living = int(state.alive.sum())
                padded = True
            padded = padded and bool((state.start > 0).any())
            logits = self._step(state, cache, width if padded else None)
            width += 1
            living -= self._advance(self.rows, state, logits, emit)

    def _admit(self, count: int, emit: Callable[[Row, Drawn], None]) -> tuple[list[Row], State, Any]:
        """The next rows of the queue, their prompts read and their first tokens drawn."""
        rows = [self.queue.popleft() for _ in range(min(count, len(self.queue)))]
        cache, logits = self.reader.read([row.ids for row in rows], self.queue[0].ids if self.queue else None)
        state = self._state(rows)
        self._advance(rows, state, logits, emit)
        return rows, state, cache

    def _state(self, rows: list[Row]) -> State:
        settings = Settings.of([row.sampling for row in rows], self.vocabulary, self.device)
        length = torch.tensor([len(row.ids) for row in rows], device=self.device)
        random = torch.zeros((len(rows), self.width))
        for index, row in enumerate(rows):
            random[index, : row.limit] = uniforms(row.seed, row.sample, row.limit)
        shape = (len(rows), self.width + 1)
        return State(
            token=torch.zeros_like(length),
            length=length,
            start=int(length.max()) - length,
            count=torch.zeros_like(length),
            limit=torch.tensor([row.limit for row in rows], device=self.device),
            alive=torch.ones(len(rows), dtype=torch.bool, device=self.device),
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            greedy=settings.greedy,
            stop=torch.tensor([self.stops.index(row.sampling.stop) for row in rows], device=self.device),
            random=random.to(self.device),
            tokens=torch.zeros(shape, dtype=torch.long, device=self.device),
            log_probs=torch.zeros(shape, device=self.device),
        )

    def _refill(self, state: State, cache: Any, width: int, emit: Callable[[Row, Drawn], None]) -> None:
        """Give idle slots to the next rows of the queue. Their prompts are no longer than those before them, so they fit."""
        idle = (~state.alive).nonzero()[:, 0]
        rows, fresh, read = self._admit(len(idle), emit)
        idle = idle[: len(rows)]
        fresh.start += width - len(rows[0].ids)
        columns.put(cache, idle, read)
        state.put(idle, fresh)
        for slot, row in zip(idle.tolist(), rows, strict=True):
            self.rows[slot] = row

    def _shrink(self, state: State, cache: Any) -> State:
        """Keep the living rows only."""
        living = state.alive.nonzero()[:, 0]
        cache.reorder_cache(living)
        self.rows = [self.rows[slot] for slot in living.tolist()]
        return state.select(living)

    def _trim(self, state: State, cache: Any, width: int) -> int:
        """Cut off columns that neither a living row nor the next prompt needs; how many."""
        unused = int(state.start[state.alive].min())
        unused = min(unused, width - len(self.queue[0].ids)) if self.queue else unused
        if unused < max(8, width // 8):
            return 0
        columns.trim(cache, unused)
        state.start -= unused
        return unused

    def _step(self, state: State, cache: Any, width: int | None) -> Tensor:
        """Logits after reading the last tokens; `width`: columns in the cache if some are not everybody's, else None."""
        mask = None if width is None else torch.arange(width + 1, device=self.device) >= state.start[:, None]
        return self.reader.forward(state.token[:, None], (state.length - 1)[:, None], mask, cache)

    def _advance(self, rows: list[Row], state: State, logits: Tensor, emit: Callable[[Row, Drawn], None]) -> int:
        """Draw one token for each slot, note it, and hand over the rows that end with it; how many do."""
        at = state.count[:, None]
        settings = Settings(state.temperature, state.top_p, state.top_k, state.greedy)
        random = state.random.gather(1, at.clamp(max=self.width - 1))[:, 0]
        token, log_prob = draw(logits, random, settings, filtered=self.filtered, greedy=self.greedy)
        state.tokens.scatter_(1, at, token[:, None])
        state.log_probs.scatter_(1, at, log_prob[:, None])
        state.token = token
        state.count = state.count + state.alive
        state.length = state.length + state.alive
        ended = state.alive & self.ends[token]
        cut = self._stopped(rows, state, token) if len(self.stops) > 1 else {}
        over = state.alive & (ended | (state.count >= state.limit))
        if cut:
            over[list(cut)] = True
        count = int(over.sum())
        if count:
            self._hand_over(rows, state, over, ended, cut, emit)
            state.alive = state.alive & ~over
        return count

    def _hand_over(
        self, rows: list[Row], state: State, over: Tensor, ended: Tensor, cut: dict[int, int], emit: Callable[[Row, Drawn], None]
    ) -> None:
        slots = over.nonzero()[:, 0]
        longest = int(state.count[slots].max())
        found = zip(
            slots.tolist(),
            state.count[slots].tolist(),
            state.tokens[slots, :longest].tolist(),
            state.log_probs[slots, :longest].tolist(),
            ended[slots].tolist(),
            strict=True,
        )
        for slot, count, tokens, log_probs, by_end in found:
            finished = by_end or slot in cut
            emit(rows[slot], Drawn(tuple(tokens[:count]), tuple(log_probs[:count]), finished, cut.get(slot)))

    def _stopped(self, rows: list[Row], state: State, token: Tensor) -> dict[int, int]:
        """Slots whose text now holds one of their stop strings, and the character where it begins. Only tokens that hold
        the last character of a stop string are looked at."""
        found: dict[int, int] = {}
        for slot in (state.alive & self.may_stop[state.stop, token]).nonzero()[:, 0].tolist():
            row = rows[slot]
            text = self.text([*row.prefix, *state.tokens[slot, : int(state.count[slot])].tolist()])
            given = len(self.text(row.prefix)) if row.prefix else 0
            hits = [text.find(stop, max(0, given - len(stop) + 1)) for stop in row.sampling.stop]
            if any(hit >= 0 for hit in hits):
                found[slot] = min(hit for hit in hits if hit >= 0)
        return found


def _stop_tables(
    rows: Sequence[Row], pieces: Callable[[], list[str]], vocabulary: int, device: torch.device
) -> dict[tuple[str, ...], Tensor]:
    """For each set of stop strings, which tokens may complete one: those that hold the last character of a stop string.

    A space may vanish when a token is decoded by itself, and part of a character shows as U+FFFD: such tokens all count.
    """
    tables: dict[tuple[str, ...], Tensor] = {(): torch.zeros(vocabulary, dtype=torch.bool, device=device)}
    for stops in dict.fromkeys(row.sampling.stop for row in rows if row.sampling.stop):
        last = {stop[-1] for stop in stops if stop} | {"\ufffd"}
        may = [" " in last or not last.isdisjoint(piece) for piece in pieces()]
        may = (may + [False] * vocabulary)[:vocabulary]
        tables[stops] = torch.tensor(may, device=device)
    return tables
