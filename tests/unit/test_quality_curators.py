"""Curators that look at one sample or one group: the bounds they hold to and the reasons they give."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import context, failed, group, sample, score

from outcross.curate.difficulty import SolveRate
from outcross.curate.form import CompressionBetween, InLanguage, LengthBetween, NotRepetitive
from outcross.curate.learned import LearnedQuality
from outcross.curate.perplexity import PerplexityBetween
from outcross.curate.private import NoPersonalData, NoSecrets, NoUnsafeLinks
from outcross.errors import ConfigError, DataError, MissingExtra
from outcross.models.tabular import Tabular
from outcross.recipe import fingerprint
from outcross.types import Completion, Drop, Group, Origin, Sample, Turn


def curated(curator: Any, folder: Path, *groups: Group, models: Any = None) -> tuple[list[list[str]], list[str]]:
    """Texts of kept groups, and the reasons of drops."""
    found = list(curator(context(folder, models), groups))
    return [[one.text for one in item.samples] for item in found if not isinstance(item, Drop)], [
        item.reason for item in found if isinstance(item, Drop)
    ]


# ── form ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_length_keeps_both_ends_of_its_band_and_counts_in_its_unit(tmp_path: Path) -> None:
    texts = group("a", "a b", "a b c", "a b c d")
    assert curated(LengthBetween(2, 3), tmp_path, texts) == (
        [["a b", "a b c"]],
        ["length too low: 1 words, below 2", "length too high: 4 words, above 3"],
    )
    assert curated(LengthBetween(None, 3, "characters"), tmp_path, texts)[0] == [["a", "a b"]]
    assert curated(LengthBetween(), tmp_path, group("", failed(), "x"))[1] == ["length too low: 0 words, below 1"]


def test_a_loop_is_dropped_with_its_worst_measure(tmp_path: Path) -> None:
    kept, reasons = curated(NotRepetitive(), tmp_path, group("I am sorry, I do not know. " * 9, "Seven, for 3 + 4 is 7.", failed()))
    assert kept == [["Seven, for 3 + 4 is 7.", ""]] and len(reasons) == 1
    assert reasons[0].startswith("repetition: characters in repeated") and reasons[0].endswith("above 0.10")
    kept, reasons = curated(CompressionBetween(), tmp_path, group("I do not know. " * 99, "Seven.", ""))
    assert kept == [["Seven.", ""]] and reasons[0].startswith("compression ratio too high: ")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LengthBetween(None, None),
        lambda: LengthBetween(3, 2),
        lambda: LengthBetween(-1),
        lambda: LengthBetween(unit="lines"),  # type: ignore[arg-type]
        lambda: CompressionBetween(high=None),
        lambda: PerplexityBetween(),
        lambda: PerplexityBetween(low=0.5),
        lambda: SolveRate(0.2, 1.1),
        lambda: SolveRate(0.9),
        lambda: SolveRate(judged=0),
        lambda: LearnedQuality(Path("x"), low=1.0),
        lambda: NoPersonalData(allow=("mail",)),
        lambda: NoPersonalData(region="Germany"),
    ],
)
def test_a_band_that_cannot_be_meant_is_refused_when_it_is_built(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()


def test_a_missing_package_is_named_when_the_stage_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcross.curate.quality.find_spec", lambda module: None)
    for stage in (NoPersonalData, NoSecrets, lambda: InLanguage(("en",)), lambda: LearnedQuality(Path("labels.jsonl"))):
        with pytest.raises(MissingExtra, match=r"pip install 'outcross\[curate\]'"):
            stage()


# ── what should not be in a text ───────────────────────────────────────────────────────────────────────────────────────
def test_personal_data_in_a_prompt_or_an_earlier_answer_counts_and_is_never_shown(tmp_path: Path) -> None:
    asked = sample("Done.", 0, "Write to jane.doe@acme.org, or call +44 20 7946 0958.")
    turns = (Turn("Who?", Completion("Ann, 536-22-1234.")), Turn("And?", Completion("Nobody.")))
    earlier = Sample("two turns", turns, Origin())
    kept, reasons = curated(NoPersonalData(), tmp_path, group(asked, earlier, sample("Nothing here.", 2)))
    assert kept == [["Nothing here."]]
    assert reasons == [
        "personal data: email ja… of 17 characters, and 1 more",
        "personal data: social security number 53… of 11 characters",
    ]
    assert curated(NoPersonalData(allow=("email", "telephone number")), tmp_path, group(asked))[1] == []


def test_secrets_and_unsafe_links_are_dropped(tmp_path: Path) -> None:
    texts = group("export DB_PASSWORD=s3cr3tpw99", "see https://bit.ly/3x and http://1.2.3.4/", "see https://docs.python.org/3/")
    kept, reasons = curated(NoSecrets(), tmp_path, texts)
    assert len(kept[0]) == 2 and reasons == ["secret: Secret Keyword s3… of 10 characters"]
    kept, reasons = curated(NoUnsafeLinks(), tmp_path, texts)
    assert len(kept[0]) == 2 and reasons == ["unsafe link: hides its target behind the shortener bit.ly, and 1 more"]


# ── perplexity ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class Reference(Tabular):
    """Each word of an answer has the log-probability −1 for every letter in it."""

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        return ([-float(len(word)) for word in str(turn.completion.content).split()] for turn in turns)


def test_perplexity_is_the_exponential_of_the_mean_over_all_tokens(tmp_path: Path) -> None:
    many = [group(*(f"{'a' * 3} {'b' * 1}" for _ in range(40)), "aaaa aaaa", "a", "", failed(50)) for _ in range(9)]
    kept, reasons = curated(PerplexityBetween(low=3.0, high=20.0), tmp_path, *many, models={"reference": Reference(["x"])})
    assert kept == [["aaa b"] * 40 + ["", ""]] * 9  # e² = 7.39; an answer without tokens has no perplexity
    assert sorted(set(reasons)) == [
        "perplexity too high: 54.5982 over 2 tokens, above 20",
        "perplexity too low: 2.71828 over 1 tokens, below 3",
    ]
    turns = (Turn("p", Completion("aaaa")), Turn("q", Completion("a a a")))
    two = Group(group("x").task, (Sample("s", turns, Origin()),))
    assert curated(PerplexityBetween(high=2.0), tmp_path, two, models={"reference": Reference(["x"])})[1] == [
        "perplexity too high: 5.7546 over 4 tokens, above 2"  # e^(7/4)
    ]


def test_perplexity_of_a_uniform_model_is_its_number_of_answers_and_needs_log_probabilities(tmp_path: Path) -> None:
    uniform = Tabular([str(i) for i in range(12)])
    assert curated(PerplexityBetween(low=11.999, high=12.001), tmp_path, group("3"), models={"reference": uniform}) == ([["3"]], [])
    with pytest.raises(ConfigError, match="no model plays the role 'reference'"):
        curated(PerplexityBetween(high=2), tmp_path, group("3"))


# ── solve rates ────────────────────────────────────────────────────────────────────────────────────────────────────────
def judged(*found: str) -> Group:
    return group(*(sample(str(i), i, scores=() if one == "none" else (score(one),)) for i, one in enumerate(found)), failed(90))


def test_a_group_stays_or_goes_whole_by_its_share_of_passes(tmp_path: Path) -> None:
    groups = [judged(*["pass"] * passes, *["fail"] * (10 - passes)) for passes in range(11)]
    found = list(SolveRate()(context(tmp_path), groups))
    assert [isinstance(item, Drop) for item in found] == [True] * 2 + [False] * 7 + [True] * 2
    dropped = [item for item in found if isinstance(item, Drop)]
    assert dropped[0].group == groups[0] and dropped[0].reason == "solve rate too low: 0 (0 of 10), below 0.2"
    assert dropped[-1].group == groups[10] and dropped[-1].reason == "solve rate too high: 1 (10 of 10), above 0.8"


def test_errors_and_abstentions_are_no_failures(tmp_path: Path) -> None:
    assert curated(SolveRate(), tmp_path, judged("pass", "fail", "error", "abstain", "none"))[1] == []
    assert curated(SolveRate(), tmp_path, judged("pass", "error", "none"))[1] == [
        "solve rate unknown: 1 of 3 samples passed or failed, fewer than 2"
    ]
    assert curated(SolveRate(), tmp_path, group(failed(0), failed(1)))[1] == []
    two = group(*(sample(str(i), i, scores=(score("pass", verifier="a"), score("fail", verifier="b"))) for i in range(4)))
    assert curated(SolveRate(verifier="a"), tmp_path, two)[1] == ["solve rate too high: 1 (4 of 4), above 0.8"]
    assert curated(SolveRate(0, 0.5, "b"), tmp_path, two)[1] == []


# ── a classifier ───────────────────────────────────────────────────────────────────────────────────────────────────────
def labelled(path: Path, rows: Iterable[tuple[str, bool]]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "good": good}) + "\n" for text, good in rows))
    return path


GOOD = [f"Because {i} and {i + 1} are added, the answer is {2 * i + 1}." for i in range(15)]
BAD = [f"lol idk bro {i} whatever" for i in range(15)]
TRUTH = [*((text, True) for text in GOOD), *((text, False) for text in BAD)]


def test_a_classifier_learns_from_labels_and_states_how_good_it_is(tmp_path: Path) -> None:
    stage = LearnedQuality(labelled(tmp_path / "labels.jsonl", TRUTH))
    kept, reasons = curated(stage, tmp_path, group("Because 90 and 9 are added, the answer is 99.", "idk lol whatever 7", failed(2)))
    assert kept == [["Because 90 and 9 are added, the answer is 99.", ""]]
    assert reasons[0].startswith("probability of good too low: 0.") and reasons[0].endswith("(accuracy 1.00 on 30 labels, chance 0.50)")


class Embedder(Tabular):
    """One number a text: whether it is long."""

    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        return ([float(len(text) > 20)] for text in texts)


def test_embeddings_of_a_role_are_used_when_it_is_named(tmp_path: Path) -> None:
    path = labelled(tmp_path / "labels.jsonl", [(("ab"[i % 2]) * (30 if i < 12 else 5), i < 12) for i in range(24)])
    models = {"embedder": Embedder(["x"])}
    stage = LearnedQuality(path, embedder="embedder")
    assert stage.roles == ("embedder",) and LearnedQuality(path).roles == ()
    assert curated(stage, tmp_path, group("c" * 40, "c"), models=models)[0] == [["c" * 40]]
    with pytest.raises(ConfigError, match="does not embed texts"):
        curated(stage, tmp_path, group("c"), models={"embedder": Tabular(["x"])})


def test_labels_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    rng = random.Random(0)
    noise = [(" ".join(rng.choices("abcdefgh", k=12)), rng.random() < 0.5) for _ in range(60)]
    with pytest.raises(DataError, match=r"puts \d+ of 60 labels right in 5-fold cross-validation, which is not better than chance"):
        curated(LearnedQuality(labelled(tmp_path / "noise.jsonl", noise)), tmp_path, group("a"))
    with pytest.raises(DataError, match="15 good and 9 bad rows; 10 or more of each"):
        fingerprint(LearnedQuality(labelled(tmp_path / "few.jsonl", TRUTH[:24])))
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "good": true}\n{"text": "b", "good": "no"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2: Expected `bool`"):
        curated(LearnedQuality(tmp_path / "bad.jsonl"), tmp_path, group("a"))
    with pytest.raises(DataError, match=r"no file 'none\.jsonl'"):
        fingerprint(LearnedQuality(tmp_path / "none.jsonl"))


def test_the_labels_are_part_of_the_stage_by_content_and_not_by_path(tmp_path: Path) -> None:
    one, same = (LearnedQuality(labelled(tmp_path / name, TRUTH)) for name in ("a.jsonl", "b.jsonl"))
    other = LearnedQuality(labelled(tmp_path / "c.jsonl", TRUTH[1:]))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other) and fingerprint(one) != fingerprint(LearnedQuality(one.labels, 0.6))
