"""Key-value caches whose rows can be replaced while others go on.

All rows share their right edge: the last column of the cache is everybody's last token, and a row that joined late has
unused columns to its left, which the attention mask hides. Keys carry their own rotary position, so a column's number
means nothing but order. Columns that no living row uses are cut off on the left.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class Columns(DynamicLayer):  # type: ignore[misc]
    """Full attention in a buffer with room to grow, so that a step writes one column and does not copy the others."""

    keys: Tensor
    values: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self._buffers or end > self._buffers[0].shape[-2]:
            self._buffers = [
                self._grown(old, new, start, end + max(32, end // 4)) for old, new in ((self.keys, key_states), (self.values, value_states))
            ]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    @staticmethod
    def _grown(old: Tensor, new: Tensor, start: int, room: int) -> Tensor:
        buffer = new.new_zeros((*new.shape[:2], room, new.shape[3]))
        if start:
            buffer[:, :, :start] = old
        return buffer

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._buffers = []

    def put(self, slots: Tensor, other: DynamicLayer) -> None:
        """Replace the rows `slots` by the rows of `other`, right edges aligned. `other` has at most as many columns."""
        width, columns = other.get_seq_length(), self.get_seq_length()
        self.keys[slots, :, columns - width :] = other.keys
        self.values[slots, :, columns - width :] = other.values

    def trim(self, columns: int) -> None:
        """Forget the leftmost `columns`."""
        self.keys, self.values = self.keys[:, :, columns:], self.values[:, :, columns:]
        self._buffers = []

    def pick(self, index: Tensor) -> None:
        """Column c of row r becomes what column `index[r, c]` was."""
        index = index[:, None, :, None].expand_as(self.keys)
        self.keys, self.values = self.keys.gather(2, index), self.values.gather(2, index)
        self._buffers = []


class SlidingColumns(DynamicSlidingWindowLayer):  # type: ignore[misc]
    """Attention over a window: the last columns only, right edges aligned as well."""

    keys: Tensor
    values: Tensor

    def put(self, slots: Tensor, other: DynamicLayer) -> None:
        width, columns = other.keys.shape[-2], self.keys.shape[-2]
        self.keys[slots, :, columns - width :] = other.keys
        self.values[slots, :, columns - width :] = other.values

    def trim(self, columns: int) -> None:
        self.cumulative_length -= columns
        surplus = max(0, self.keys.shape[-2] - self.cumulative_length)
        self.keys, self.values = self.keys[:, :, surplus:], self.values[:, :, surplus:]


def new_cache(config: Any) -> DynamicCache:
    """An empty cache for the model of that configuration."""
    cache = DynamicCache(config=config)
    cache.layers = [_replaceable(layer) for layer in cache.layers]
    if not cache.layers:
        cache.layer_class_to_replicate = Columns
    return cache


def _replaceable(layer: Any) -> Any:
    if type(layer) is DynamicLayer:
        return Columns()
    if type(layer) is DynamicSlidingWindowLayer:
        return SlidingColumns(sliding_window=layer.sliding_window)
    return layer


def can_share(config: Any) -> bool:
    """Whether rows of different lengths may share a cache; false for recurrent states, which padding would change."""
    return all(isinstance(layer, Columns | SlidingColumns) for layer in new_cache(config).layers)


def can_share_prefixes(config: Any) -> bool:
    """Whether prompts of different lengths may continue one cached beginning: every layer attends to all columns."""
    return all(isinstance(layer, Columns) for layer in new_cache(config).layers)


def put(cache: DynamicCache, slots: Tensor, other: DynamicCache) -> None:
    """Replace the rows `slots` of `cache` by those of `other`."""
    for mine, theirs in zip(cache.layers, other.layers, strict=True):
        mine.put(slots, theirs)


def trim(cache: DynamicCache, columns: int) -> None:
    """Forget the leftmost `columns` of all rows."""
    for layer in cache.layers:
        layer.trim(columns)


def close_gaps(cache: DynamicCache, prefix: int, gaps: Tensor) -> None:
    """Move the first `prefix` columns of each row to the right, over the unused columns that follow them, `gaps` (rows,) of them.

    Needs full attention in every layer (`can_share_prefixes`): a window counts columns, and would have counted the gap.
    """
    column = torch.arange(cache.get_seq_length(), device=gaps.device)
    shifted = column - gaps[:, None]
    index = torch.where(shifted < prefix, shifted.clamp(min=0), column)
    for layer in cache.layers:
        layer.pick(index)


def repeated(cache: DynamicCache, rows: int, config: Any) -> DynamicCache:
    """`rows` copies of a cache that has a single row."""
    copies = new_cache(config)
    for index, layer in enumerate(cache.layers):
        copies.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
    return copies


def taken(cache: DynamicCache, rows: Tensor, width: int, config: Any) -> DynamicCache:
    """A copy of some rows, and of their last `width` columns only."""
    copies = new_cache(config)
    for index, layer in enumerate(cache.layers):
        copies.update(layer.keys[rows, :, -width:], layer.values[rows, :, -width:], index)
        _set_length(copies.layers[index], width)
    return copies


def joined(caches: list[DynamicCache], config: Any, width: int) -> DynamicCache:
    """Caches as one, rows after rows, right edges aligned; the widest has `width` columns."""
    if len(caches) == 1:
        return caches[0]
    cache = new_cache(config)
    for index, layers in enumerate(zip(*(each.layers for each in caches), strict=True)):
        most = max(layer.keys.shape[-2] for layer in layers)
        keys, values = (torch.cat([_widened(getattr(layer, name), most) for layer in layers]) for name in ("keys", "values"))
        cache.update(keys, values, index)
        _set_length(cache.layers[index], width)
    return cache


def _widened(states: Tensor, columns: int) -> Tensor:
    return functional.pad(states, (0, 0, columns - states.shape[-2], 0))


def _set_length(layer: Any, width: int) -> None:
    if isinstance(layer, SlidingColumns):
        layer.cumulative_length = width  # of which the window holds the last


def bytes_per_token(config: Any, element: int) -> int:
    """Memory of one cached token over all layers, in bytes; `element`: bytes of a number."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(text.num_hidden_layers) * int(heads) * int(size) * element


def cache_name(model: Any) -> str:
    """What the model's forward pass calls its cache: purely recurrent models have a word of their own."""
    known = inspect.signature(model.forward).parameters
    return "past_key_values" if "past_key_values" in known else "cache_params"
