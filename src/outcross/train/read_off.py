"""What is read off a sequence classifier: a number per text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Output = Literal["logit", "log_odds", "probability"]


@dataclass(frozen=True)
class ReadOff:
    """(model, token ids of texts) → a number per text, (texts,), in float32: `output` of the label at place `label`."""

    label: int
    output: Output

    def __call__(self, model: Any, texts: Sequence[Sequence[int]]) -> Tensor:
        import torch

        lengths = torch.tensor([len(text) for text in texts])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.full(mask.shape, int(model.config.get_text_config().pad_token_id), dtype=torch.long)
        ids[mask] = torch.tensor([token for text in texts for token in text])
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device)).logits.float()
        return read_off(logits, self.label, self.output)


def read_off(logits: Tensor, label: int, output: Output) -> Tensor:
    """A number per row of (rows, labels): the label's logit, its log-odds against all others, or its probability; of a single label, which
    is one against none, the logit is the log-odds."""
    chosen = logits[:, label]
    if output == "logit":
        return chosen
    others = [index for index in range(logits.shape[1]) if index != label]
    odds = chosen - logits[:, others].logsumexp(1) if others else chosen
    return odds if output == "log_odds" else odds.sigmoid()
