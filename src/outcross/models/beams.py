"""Beam search: the completions that a model finds most likely, as transformers' own `generate` searches for them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from outcross.models.sampler import Drawn, Row
from outcross.models.score import score
from outcross.train.forward import Text
from outcross.types import Request

Key = TypeVar("Key", bound=Hashable)


def refusal(request: Request) -> str:
    """Why a beam search cannot answer `request`; empty when it can."""
    sampling = request.sampling
    if request.n > sampling.beams:
        return f"n is {request.n} and beams {sampling.beams}: a beam search ends with as many completions as it has beams; ask for no more"
    for name, default in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 0), ("stop", ())):
        if getattr(sampling, name) != default:
            return f"a beam search draws nothing and ends at the end token: leave {name} ({getattr(sampling, name)!r:.60}) out, or beams"
    return ""


def best(model: Any, rows: Mapping[Key, Row], end_ids: Collection[int], slots: int) -> Iterator[tuple[Key, Sequence[Drawn]]]:
    """For each row as many completions as it has beams, the most likely first; `slots` of them are computed at once.

    As `generate(num_beams=…, do_sample=False)` with its defaults: hypotheses are ranked by log-probability over length, and the search ends
    when no beam can still beat the worst of those kept. The log-probabilities are the model's at temperature 1.
    """
    alike: dict[tuple[int, int, int], list[Key]] = {}
    for key, row in rows.items():
        alike.setdefault((len(row.ids), row.limit, row.sampling.beams), []).append(key)
    for (_, limit, beams), keys in alike.items():
        step = max(1, slots // beams)
        for start in range(0, len(keys), step):
            part = keys[start : start + step]
            found = _searched(model, [rows[key].ids for key in part], beams, limit, sorted(end_ids))
            yield from zip(part, _drawn(model, [rows[key].ids for key in part], found, beams, frozenset(end_ids)), strict=True)


def _searched(model: Any, prompts: Sequence[Sequence[int]], beams: int, limit: int, ends: list[int]) -> Tensor:
    """What follows the prompts, all of one length: (prompts · beams, tokens), filled up after an end token."""
    from transformers import GenerationConfig

    ids = torch.tensor([list(prompt) for prompt in prompts], device=model.device)
    settings = GenerationConfig(
        num_beams=beams,
        num_return_sequences=beams,
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )
    made: Tensor = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    return made[:, ids.shape[1] :]


def _drawn(model: Any, prompts: Sequence[Sequence[int]], found: Tensor, beams: int, ends: frozenset[int]) -> Iterator[Sequence[Drawn]]:
    said = [_ended(row, ends) for row in found.tolist()]
    texts = [Text([*prompts[index // beams], *tokens], len(prompts[index // beams])) for index, tokens in enumerate(said)]
    values = score(model, texts)
    for start in range(0, len(said), beams):
        part = range(start, start + beams)
        yield [Drawn(tuple(said[index]), tuple(values[index]), said[index][-1] in ends) for index in part]


def _ended(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """Up to the first end token, which is kept."""
    at = next((index for index, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: at + 1]
