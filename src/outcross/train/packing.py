"""Several texts in one sequence, each blind to the others, so that no padding is computed.

Every text counts its positions from 0, and where they begin anew transformers' attention masks begin anew. The losses do not change but for
rounding: they are sums over completion tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from outcross.errors import ConfigError
from outcross.train.forward import Batch, Text, log_probs, pad
from outcross.train.head import LOGITS, pieces

TOKENS = {"cpu": 512}  # of a sequence at most, unless one text alone is longer: attention grows with its square
MANY = 4096  # the same on other devices


def packed_log_probs(model: Any, texts: Sequence[Text], batch: Batch, *, plain: bool) -> Tensor:
    """What `log_probs` gives of `batch`, which holds `texts`, zero outside the mask. `plain`: whether the model `has_plain_head`."""
    found = torch.cat(
        [_sequence(model, part, batch.ids.device, plain) for part in sequences(texts, TOKENS.get(batch.ids.device.type, MANY))]
    )
    return torch.zeros(batch.mask.shape, dtype=found.dtype, device=found.device).masked_scatter(batch.mask, found)


def sequences(texts: Sequence[Text], tokens: int) -> Iterator[list[Text]]:
    """Texts in order, as many at once as have no more than `tokens` tokens together."""
    held: list[Text] = []
    for text in texts:
        if held and sum(len(item.ids) for item in held) + len(text.ids) > tokens:
            yield held
            held = []
        held.append(text)
    if held:
        yield held


def check_apart(model: Any) -> None:
    """Raises `ConfigError` for a model that mixes the texts of one sequence: tried on two of eight tokens, each of which must have the numbers that it has
    alone, and the second those that it has behind another."""
    vocabulary, training = model.config.get_text_config().vocab_size, model.training
    texts = [Text([(first + 3 * place) % vocabulary for place in range(8)], 1) for first in (1, 2)]
    near = 1e-4 if model.dtype in (torch.float32, torch.float64) else 3e-2
    batch = pad(texts, model.device)
    model.eval()
    try:
        with torch.no_grad():
            packed = _sequence(model, texts, model.device, plain=False).reshape(2, 7)
            apart = bool(torch.allclose(packed, log_probs(model, batch), rtol=near, atol=near)) and _blind(model, texts, packed[1], near)
    except TypeError:  # it takes no positions
        apart = False
    finally:
        model.train(training)
    if not apart:
        raise ConfigError(f"machine.packing: a {type(model).__name__} cannot keep texts of one sequence apart; switch packing off")


def _blind(model: Any, texts: Sequence[Text], second: Tensor, near: float) -> bool:
    """Whether the numbers of the `second` text stay when the first becomes another: next to how they change with its own first token, since an untrained
    model hardly looks at what it sees."""
    vocabulary = model.config.get_text_config().vocab_size
    one, two = (
        Text([(2 * token + 5) % vocabulary for token in text.ids[:size]] + list(text.ids[size:]), 1)
        for text, size in zip(texts, (8, 1), strict=True)
    )
    strange, moved = (_sequence(model, part, model.device, plain=False)[7:] for part in ([one, texts[1]], [texts[0], two]))
    return bool((strange - second).abs().max() <= near * (moved - second).abs().max())


def _sequence(model: Any, texts: Sequence[Text], device: torch.device, plain: bool) -> Tensor:
    """Log-probabilities of the completions' tokens, one text after the other."""
    ids = [token for text in texts for token in text.ids[:-1]]
    positions = [place for text in texts for place in range(len(text.ids) - 1)]
    starts = [sum(len(text.ids) - 1 for text in texts[:index]) for index in range(len(texts))]
    asked = [at + place for at, text in zip(starts, texts, strict=True) for place in range(text.start - 1, len(text.ids) - 1)]
    targets = torch.tensor([token for text in texts for token in text.ids[text.start :]], device=device)
    keep = torch.tensor(asked, device=device)
    given = {"input_ids": torch.tensor([ids], device=device), "position_ids": torch.tensor([positions], device=device), "use_cache": False}
    if plain and len(asked) * model.config.get_text_config().vocab_size > LOGITS:
        return pieces(model, model.get_decoder()(**given).last_hidden_state[0, keep], targets)
    logits = model(**given, logits_to_keep=keep).logits[0]
    precise = logits if logits.dtype is torch.float64 else logits.float()
    return -torch.nn.functional.cross_entropy(precise, targets, reduction="none")
