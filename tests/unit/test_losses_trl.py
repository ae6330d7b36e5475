"""Losses and their gradients are those of trl: on the same tensors in double precision, and on the same tiny models from text to loss."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_lm import ALPHABET, LLAMA, tiny

from outcross.models.sequence_classifier import classifier_from_config
from outcross.train import losses
from outcross.train.encode import encode
from outcross.train.machine import Machine
from outcross.train.policy import PolicyCost
from outcross.train.reward import RewardCost, encode_turns
from outcross.types import Example, Loss

pytest.importorskip("trl", reason="the reference: install trl to compare with it")
pytestmark = pytest.mark.filterwarnings("ignore")  # trl's own
SIDES = [(f"{i}+{i % 3}=", str(i), "9" * (1 + i % 3)) for i in range(6)]
BETA = 0.3


class Given(torch.nn.Module):
    """Log-probabilities, or rewards, in place of a model's: the same tensors for both."""

    def __init__(self, found: torch.Tensor) -> None:
        super().__init__()
        self.found = found

    def forward(self, **inputs: Any) -> Any:
        zeros = torch.zeros_like(self.found)
        return SimpleNamespace(log_probs=self.found, logits=self.found, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def dataset(kind: str) -> Any:
    from datasets import Dataset

    if kind in ("dpo", "reward"):
        return Dataset.from_list([{"prompt": prompt, "chosen": good, "rejected": bad} for prompt, good, bad in SIDES])
    if kind == "kto":
        return Dataset.from_list([{"prompt": prompt, "completion": good, "label": i % 2 == 0} for i, (prompt, good, _) in enumerate(SIDES)])
    return Dataset.from_list([{"prompt": prompt, "completion": good} for prompt, good, _ in SIDES])


def trainer(kind: str, folder: Path, model: Any, tokenizer: Any, reference: Any = None, **more: Any) -> Any:
    import trl

    name = {"dpo": "DPO", "kto": "KTO", "sft": "SFT", "reward": "Reward"}[kind]
    settings = {"per_device_train_batch_size": 6, "use_cpu": True, "report_to": "none", "max_length": 64, "bf16": False}
    args = getattr(trl, f"{name}Config")(output_dir=str(folder), gradient_checkpointing=False, disable_tqdm=True, **settings, **more)
    reference = {"ref_model": reference} if reference is not None else {}
    return getattr(trl, f"{name}Trainer")(model, args=args, train_dataset=dataset(kind), processing_class=tokenizer, **reference)


def doubles(*shape: int) -> torch.Tensor:
    return -torch.rand(*shape, dtype=torch.float64) * 3


@pytest.mark.parametrize("form", ["sigmoid", "ipo", "sppo_hard"])
def test_pairs_on_the_same_tensors(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    mask = torch.ones(8, 6, dtype=torch.long)
    for row in range(8):
        mask[row, : row % 3 + 1] = 0
        mask[row, 6 - row % 2 :] = 0
    shown = mask[:, 1:].bool()
    now, reference = doubles(8, 5).requires_grad_(), doubles(8, 5) * shown
    theirs = trainer("dpo", tmp_path, tiny()._model, tiny()._tokens.tokenizer, tiny(seed=3)._model, loss_type=form, beta=BETA)
    theirs.ref_model = Given(reference)
    ids = torch.ones(8, 6, dtype=torch.long)
    expected = theirs._compute_loss(Given(now * shown), {"input_ids": ids, "attention_mask": ids, "completion_mask": mask}, False)
    ratio = losses.log_ratio(now, reference, shown, mean=form == "ipo")
    chosen, rejected = ratio[:4], ratio[4:]
    ones = torch.ones(4, dtype=torch.float64)
    if form == "sppo_hard":
        found = losses.sppo(chosen, losses.hard(0.7 * ones), ones, BETA) + losses.sppo(rejected, losses.hard(0.3 * ones), ones, BETA)
    else:
        found = (losses.dpo if form == "sigmoid" else losses.ipo)(chosen, rejected, ones, BETA)
    same(found / 4, expected, [now], 1e-9)


def test_verdicts_on_the_same_tensors(tmp_path: Path) -> None:
    torch.manual_seed(1)
    now, beside, reference, reference_beside = doubles(6, 5).requires_grad_(), doubles(6, 5), doubles(6, 5), doubles(6, 5) - 1
    theirs = trainer("kto", tmp_path, tiny()._model, tiny()._tokens.tokenizer, tiny(seed=3)._model, beta=BETA)
    label = torch.tensor([True, False, True, True, False, False])
    ids = torch.ones(6, 6, dtype=torch.long)
    theirs._compute_kl_logps = lambda model, batch: model.beside.sum(-1)
    model, other = Given(now), Given(reference)
    model.beside, other.beside = beside, reference_beside
    theirs.ref_model = other
    expected = theirs._compute_loss(model, {"input_ids": ids, "attention_mask": ids, "completion_mask": ids, "label": label}, False)
    divergence = (beside - reference_beside).sum(1).mean().clamp(min=0)
    assert divergence > 0
    found = losses.kto((now - reference).sum(1), label.double(), divergence, torch.ones(6, dtype=torch.float64), BETA)
    same(found / 6, expected, [now], 1e-9)


def test_rewards_on_the_same_tensors(tmp_path: Path) -> None:
    torch.manual_seed(2)
    rewards = doubles(8, 1).requires_grad_()
    model = classifier_from_config(LLAMA, alphabet=ALPHABET, machine=Machine(device="cpu"))
    theirs = trainer("reward", tmp_path, model._model, model._tokenizer)
    ids = torch.ones(8, 3, dtype=torch.long)
    expected = theirs.compute_loss(Given(rewards), {"input_ids": ids, "attention_mask": ids})
    ones = torch.ones(4, dtype=torch.float64)
    same(losses.bt(rewards[:4, 0], rewards[4:, 0], ones, ones) / 4, expected, [rewards], 1e-9)


def test_likelihood_on_the_same_tensors() -> None:
    """What trl and transformers take for it: the mean cross-entropy of the labels that are not −100."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    torch.manual_seed(3)
    logits, ids = torch.randn(4, 7, 11, dtype=torch.float64, requires_grad=True), torch.randint(0, 11, (4, 7))
    labels = ids.masked_fill(torch.arange(7) < torch.arange(1, 5)[:, None], -100)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert expected.item() == pytest.approx(float(ForCausalLMLoss(logits, labels, 11)), rel=1e-5), "theirs, in float32"
    found = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    mask = labels[:, 1:] != -100
    same(losses.nll(found, mask.double()) / mask.sum(), expected, [logits], 1e-9)


def same(found: torch.Tensor, expected: torch.Tensor, leaves: list[torch.Tensor], within: float) -> None:
    assert found.item() == pytest.approx(expected.item(), rel=within)
    for mine, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert (mine - theirs).norm() <= within * theirs.norm()


CASES = {
    "nll": ("sft", {}, [Example(f"{i}", prompt, good) for i, (prompt, good, _) in enumerate(SIDES)], 1.0),
    "dpo": ("dpo", {"loss_type": "sigmoid"}, Loss("dpo", BETA), 1.0),
    "ipo": ("dpo", {"loss_type": "ipo"}, Loss("ipo", BETA, form="trl"), 1.0),
    "kto": (
        "kto",
        {},
        [Example(f"{i}", prompt, good, Loss("kto", BETA), target=float(i % 2 == 0)) for i, (prompt, good, _) in enumerate(SIDES)][::-1],
        1.0,
    ),
    "sppo": (
        "dpo",
        {"loss_type": "sppo_hard"},
        [
            Example(f"{i}{target}", prompt, said, Loss("sppo", BETA), target=target)
            for i, (prompt, good, bad) in enumerate(SIDES)
            for said, target in ((good, 1.0), (bad, 0.0))
        ],
        2.0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_from_text_to_loss_on_tiny_models(name: str, tmp_path: Path) -> None:
    """trl's KTO sets the answer of the row before beside each, ours the one of the row after: hence the order of its rows."""
    kind, settings, given, factor = CASES[name]
    examples = given if isinstance(given, list) else [Example(f"{i}", *row[:2], given, rejected=row[2]) for i, row in enumerate(SIDES)]
    ours, reference = tiny(), tiny(seed=3)
    rows = encode(examples, ours._tokens, 64, reference)
    cost, step = PolicyCost(rows, torch.device("cpu")), range(len(rows))
    ours._model.train()
    found = cost.of(ours._model, step, step, cost.ahead(ours._model, step, 4))
    beta = {"beta": BETA} if kind != "sft" else {}
    other = tiny(seed=3)._model if kind != "sft" else None
    theirs = trainer(kind, tmp_path, tiny()._model, ours._tokens.tokenizer, other, **settings, **beta)
    batch = next(iter(theirs.get_train_dataloader()))
    expected = theirs.compute_loss(theirs.model, batch)
    compare(found * factor, expected, ours._model, theirs.model)


def test_a_reward_model_from_text_to_loss(tmp_path: Path) -> None:
    """trl closes plain texts by the end token, a turn's answer is what it is: so the text has it."""
    ours, other = (classifier_from_config(LLAMA, alphabet=ALPHABET, machine=Machine(device="cpu")) for _ in range(2))
    end = ours._tokenizer.eos_token_id
    examples = [Example(f"{i}", prompt, good, Loss("bt"), rejected=bad) for i, (prompt, good, bad) in enumerate(SIDES)]
    rows = encode_turns(examples, lambda turn: [*ours._encoded(turn), end], 64)
    found = RewardCost(rows, ours._forward).of(ours._model, range(6), range(6), torch.zeros(()))
    theirs = trainer("reward", tmp_path, other._model, other._tokenizer)
    expected = theirs.compute_loss(theirs.model, next(iter(theirs.get_train_dataloader())))
    compare(found, expected, ours._model, theirs.model)


def compare(found: torch.Tensor, expected: torch.Tensor, ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    mine, wanted = (torch.cat([item.grad.flatten() for item in model.parameters()]) for model in (ours, theirs))
    assert wanted.norm() > 1e-3
    assert (mine - wanted).norm() <= 1e-4 * wanted.norm()
