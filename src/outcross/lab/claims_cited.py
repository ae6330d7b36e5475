"""Published figures that no small machine can test: listed beside what we run, and never run."""

from __future__ import annotations

from outcross.lab.claim import Claim
from outcross.lab.claims_refit import DOHMATOB, GERSTGRASSER, KAZDAN, MAD, SEDDIK, SHUMAILOV

FENG = "Feng et al., arXiv:2406.07515"


def _cited(name: str, paper: str, place: str, published: float, what: str) -> Claim:
    return Claim(name, paper, place, published, "cited", what)


CITED = (
    _cited("opt-125m-zero-shot", SHUMAILOV, "wikitext-2", 115, "perplexity of OPT-125m before fine-tuning; needs OPT-125m"),
    _cited("opt-125m-fine-tuned", SHUMAILOV, "wikitext-2", 34, "the same after fine-tuning on real data"),
    _cited("opt-125m-replace", SHUMAILOV, "wikitext-2, 5 epochs, 0 % real", 20, "least rise of perplexity over the run (20 to 28)"),
    _cited("vae-digits", SHUMAILOV, "Supplement Fig. 7", 20, "generation by which the digits of a VAE have blended into one another"),
    _cited(
        "tinystories-gpt2-first", GERSTGRASSER, "Table 2", 1.82, "test loss of a 9M GPT-2 on real TinyStories; needs 470M tokens a round"
    ),
    _cited("tinystories-gpt2-replace", GERSTGRASSER, "Table 2", 2.91, "the same after 10 replaced rounds"),
    _cited("tinystories-gpt2-accumulate", GERSTGRASSER, "Table 2", 1.74, "the same after 4 accumulated rounds"),
    _cited("tinystories-gpt2-cold", GERSTGRASSER, "Table 2", 9.85, "the same after 10 replaced rounds at T = 0.3"),
    _cited("tinystories-gpt2-grown", GERSTGRASSER, "Table 2", 2.18, "the same after 4 replaced rounds whose set grew"),
    _cited("tinystories-llama-replace", GERSTGRASSER, "Table 2", 2.23, "test loss of a 126M Llama 2 after 4 replaced rounds (first: 1.71)"),
    _cited("gemma-cardinality", KAZDAN, "cardinality against proportion", 0.59, "R² of the number of real rows, Gemma-2 on HelpSteer2"),
    _cited("gemma-proportion", KAZDAN, "cardinality against proportion", 0.34, "R² of the share of real rows, the same"),
    _cited(
        "stylegan-fixed-real", MAD, "FFHQ-128, StyleGAN2", 70_000, "real faces that delay the collapse of StyleGAN2 and do not prevent it"
    ),
    _cited("seddik-bound", SEDDIK, "Theorem 2", 0.5, "drift of a mixture with half real rows is bounded; constants were not found"),
    _cited(
        "strong-collapse-share",
        DOHMATOB,
        "σ²d/n + p₂²c²",
        0.01,
        "share of synthetic rows that is said to be enough for a floor in language models",
    ),
    _cited(
        "feng-eigenvalues", FENG, "eigenvalue transformer", 60.4, "% right of the best of 50 beams by an oracle, against 19.2 by perplexity"
    ),
    _cited("feng-summaries", FENG, "XLSUM, Llama-2-7B", 12.5, "% of the generations, chosen by an oracle, that beat all human data"),
    _cited(
        "false-reassurance",
        "He et al., arXiv:2601.12946",
        "abstract",
        40,
        "% of rare findings missed after two generations of clinical reports",
    ),
    _cited(
        "x-rays-duplicated", "Pink, PMLR 318 (2026)", "abstract", 0.9981, "AUPRC of duplicated real X-rays, which synthetic ones never beat"
    ),
    _cited(
        "x-rays-pretraining",
        "RoentGen-v2, arXiv:2508.16783",
        "abstract",
        6.5,
        "% gained by synthetic pre-training, against 2.7 by naive mixing",
    ),
    _cited(
        "rephrased-share",
        "Kang et al., arXiv:2510.01631",
        "abstract",
        30,
        "% of rephrased text at which good mixtures converge: a single round's optimum",
    ),
    _cited("golden-ratio", "He, Xu & Cheng, arXiv:2502.18049", "abstract", 0.618, "best weight of real data in some cases, 1/golden ratio"),
)
