"""Lineages of small language models on real text: each generation learns from what the one before wrote, from scratch as in Gerstgrasser et al.
(arXiv:2404.01413) or going on from it, as Shumailov et al. (Nature 631:755) tuned one model on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from outcross.engine.store import save_folder
from outcross.evaluate.likelihood import SelfPerplexity
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.tail_loss import TailLoss
from outcross.evaluate.text_statistic import TextStatistic
from outcross.gate.observe import Observe
from outcross.generate.draw import Draw
from outcross.recipe import Bench, Mixture, Recipe, Waived
from outcross.recipes.collapse import collapse
from outcross.reproduce.corpus import ANSWER, TINYSTORIES, WIKITEXT, Corpus, Passages
from outcross.reproduce.lineage import Place
from outcross.stages import FitPlan, Model, Role
from outcross.types import Sampling

ROUNDS, ROWS, HELD_OUT = 5, 1200, 300
MODEL = {  # 0.2M parameters
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "tie_word_embeddings": True,
}
PLAN = FitPlan(lr=3e-3, epochs=4.0, batch=32, schedule="linear", warmup=0.1, max_length=48)
TUNED = FitPlan(lr=1e-3, epochs=1.0, batch=32, schedule="linear", warmup=0.1, max_length=48)
WAIVED = Waived("a lineage of the collapse laboratory, trained on what the model before it wrote")
MOST = ANSWER + 2  # tokens: the words, the end token, and one more


@dataclass(frozen=True)
class TextLineage:
    """Language models of 0.2M parameters: 5 generations after the first, 1,200 passages each, continued from their first 8 words.

    history: what of earlier generations stays, as in `Mixture`. real: the share of real rows in every generation, for *replace*.
    temperature, beams: how the passages are written. tuned: each generation goes on from the one before, by `TUNED`, instead of from scratch.
    """

    corpus: Corpus
    about: str
    history: Literal["replace", "accumulate", "subsample"] = "replace"
    real: float = 0.0
    temperature: float = 1.0
    beams: int = 1
    tuned: bool = False
    seconds: float = 45.0
    rounds: int = ROUNDS
    rows: int = ROWS
    held_out: int = HELD_OUT

    @property
    def name(self) -> str:
        parts = [self.corpus.name, self.history]
        if self.real:
            parts.append(f"{self.real:.0%}-real".replace("%", ""))
        if self.temperature != 1:
            parts.append(f"t{self.temperature:g}")
        if self.tuned:
            parts.append("tuned")
        if self.beams > 1:
            parts.append(f"{self.beams}-beams")
        return "-".join(parts)

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.corpus.train, self.corpus.held_out)))

    def plan(self, place: Place, /) -> tuple[Recipe, Mapping[Role, Model]]:
        passages = self.corpus.read(place.data)
        first = first_model(passages, self.rows, place)
        bench = self._bench(passages)
        mix = Mixture(self.history, WAIVED)
        if self.real:
            mix = Mixture("replace", "rows", self.real, budget=self.rows)
        recipe = collapse(
            bench,
            rounds=self.rounds,
            temperature=self.temperature,
            max_tokens=MOST,
            beams=self.beams,
            plan=TUNED if self.tuned else PLAN,
            mix=mix,
            start="champion" if self.tuned else "scratch",
        )
        return recipe, {"policy": first, "reference": first}

    def _bench(self, passages: Passages) -> Bench:
        tasks = passages.tasks("held_out", self.held_out)
        held_out, real = passages.examples("held_out", self.held_out), passages.examples("train", self.rows)
        writes = Draw(1, Sampling(self.temperature, max_tokens=MOST, beams=self.beams))
        probes = (
            RealLoss(held_out),
            TailLoss(held_out, reference=real),
            TextStatistic(tasks, writes, "vocabulary"),
            SelfPerplexity(tasks, writes),
        )
        return Bench(passages.tasks("train", self.rows), tasks, real, probes, Observe())


def first_model(passages: Passages, rows: int, place: Place, plan: FitPlan = PLAN) -> Model:
    """The first model, trained on real text by `plan`; all lineages of a corpus, a number of rows and a seed share it."""
    from outcross.models.torch_lm import from_config, torch_lm
    from outcross.train.machine import Machine

    folder = place.folder / f"first-{passages.corpus.name}-{rows}"
    machine = Machine(micro_batch=plan.batch, sample_batch=512, threads=1)
    if not folder.exists():
        tokenizer = passages.tokenizer(Path(f"{folder}-tokenizer"))
        untrained = from_config(MODEL, tokenizer=str(tokenizer), seed=place.seed, machine=machine)
        learnt = passages.examples("train", rows)
        trained = untrained.fit(learnt, plan=plan, reference=None, seed=place.seed, seen=lambda step, ids, **facts: None)
        save_folder(folder, trained.save)
    return torch_lm(str(folder), machine=machine)


REPLACE = TextLineage(TINYSTORIES, "its own text alone")
ACCUMULATE = TextLineage(TINYSTORIES, "real text and the text of all generations", "accumulate", seconds=110)
SUBSAMPLE = TextLineage(TINYSTORIES, "as many rows, drawn from real text and the text of all generations", "subsample")
COLD = TextLineage(TINYSTORIES, "its own text alone, drawn at T = 0.3", temperature=0.3)
SHARES = tuple(TextLineage(TINYSTORIES, f"its own text and {share:.0%} real rows", real=share) for share in (0.1, 0.3, 0.7))
WIKI_REPLACE = TextLineage(WIKITEXT, "its own text alone, tuned further", tuned=True, seconds=35)
WIKI_TENTH = TextLineage(WIKITEXT, "its own text and 10% real rows, tuned further", real=0.1, tuned=True, seconds=35)
WIKI_BEAMS = TextLineage(WIKITEXT, "its own text alone, found by 5 beams, tuned further", beams=5, tuned=True, seconds=70)
TEXT = (REPLACE, ACCUMULATE, SUBSAMPLE, COLD, *SHARES, WIKI_REPLACE, WIKI_TENTH, WIKI_BEAMS)
