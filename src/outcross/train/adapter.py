"""What a low-rank fit added to the weights, kept apart from them so that a server can take it while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
DEFAULT = "default"  # how peft calls the one adapter of a fit


@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank changes ΔW = B · A by module (arXiv:2106.09685), the factor alpha / r multiplied into B.

    tensors: peft's names → A (rank, in) and B (out, rank), on the CPU. config: peft's, without rank and alpha.
    """

    rank: int
    tensors: dict[str, Tensor]
    config: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write the folder that peft, vLLM and SGLang read."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, folder / WEIGHTS)
        settings = {**self.config, "r": self.rank, "lora_alpha": self.rank}
        (folder / CONFIG).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_adapter(folder: Path) -> Adapter:
    """The inverse of `Adapter.save`."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    rank = int(config.pop("r"))
    config.pop("lora_alpha")
    return Adapter(rank, load_file(folder / WEIGHTS), config)


def taken(learner: Any) -> Adapter:
    """The adapter of a peft model, before it is merged into the weights."""
    from peft import get_peft_model_state_dict

    config = learner.peft_config[DEFAULT]
    scale = config.lora_alpha / config.r
    found = {
        name: (tensor.detach().float() * (scale if ".lora_B." in name else 1.0)).to(tensor.dtype).cpu()
        for name, tensor in get_peft_model_state_dict(learner).items()
    }
    settings = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
    shown = {name: settings[name] for name in ("peft_type", "task_type", "target_modules", "bias", "fan_in_fan_out") if name in settings}
    return Adapter(
        config.r, found, {name: getattr(value, "value", value) for name, value in shown.items()} | {"base_model_name_or_path": ""}
    )


def stacked(adapters: Sequence[Adapter]) -> Adapter:
    """One adapter that adds what all of these add: A one below the other, B side by side, the ranks summed up. Exact."""
    if len(adapters) == 1:
        return adapters[0]
    tensors = {name: _joined(name, (item.tensors.get(name) for item in adapters)) for name in adapters[0].tensors}
    return Adapter(sum(item.rank for item in adapters), tensors, adapters[-1].config)


def _joined(name: str, parts: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([part for part in parts if part is not None], dim=1 if ".lora_B." in name else 0)


def merged(model: Any) -> dict[str, Tensor]:
    """The weights of a model under the names that it has without its adapters, with what these add; shared ones are there once."""
    layers = [(name, layer) for name, layer in model.named_modules() if DEFAULT in getattr(layer, "lora_A", {})]
    with torch.no_grad():
        added = {f"{name}.weight": layer.get_delta_weight(DEFAULT) for name, layer in layers}
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen or ".lora_" in name or ".original_module." in name:
            continue
        seen.add(tensor.data_ptr())
        plain = name.replace(".base_layer.", ".").replace(f".modules_to_save.{DEFAULT}.", ".")
        found[plain] = tensor + added[plain].to(tensor.dtype) if plain in added else tensor
    return found
