"""Lineages of language models for `outcross reproduce`: their text, the loop they go through, and what is read from them."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from outcross.engine.store import RunDir
from outcross.engine.watch import Silent
from outcross.errors import DataError
from outcross.lab.claim import Claim
from outcross.reproduce import text, trained
from outcross.reproduce.corpus import ANSWER, PROMPT, TINYSTORIES, WIKITEXT, Corpus
from outcross.reproduce.lineage import Course, Lived, Place, live, missing
from outcross.reproduce.run import Study
from outcross.reproduce.text import TextLineage
from outcross.reproduce.text_curves import curves_of
from outcross.reproduce.trained import TEXT_CLAIMS, TrainedClaim, ahead, fall, half_recovered, more, rise, worse
from outcross.types import Measurement

DATA = Path(__file__).parents[3] / "shared" / "data"
WORDS = [f"w{place}" for place in range(40)]
SMALL = {"rows": 10, "held_out": 4}


def story(seed: int, count: int = 70) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choices(WORDS, [1 / (place + 1) for place in range(40)], k=count))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up texts where those of the data folder lie."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("tinystories", "wikitext-2"):
        (folder / name).mkdir()
    (folder / TINYSTORIES.train).write_text("<|endoftext|>".join(story(seed) for seed in range(90)))
    (folder / WIKITEXT.train).write_text("".join(f" {story(seed)} \n \n = Heading {seed} = \n" for seed in range(50)))
    (folder / WIKITEXT.held_out).write_text("".join(f" {story(seed)} \n" for seed in range(100, 130)))
    return folder


def small(lineage: TextLineage, rounds: int = 1) -> TextLineage:
    return dataclasses.replace(lineage, **SMALL, rounds=rounds)


@pytest.fixture(scope="module")
def lived(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Path, Lived]]:
    """Four tiny lineages of one seed, through the real engine."""
    place = Place(data, tmp_path_factory.mktemp("lineages"), 3)
    members = (text.REPLACE, text.SHARES[1], text.WIKI_BEAMS, text.ACCUMULATE)
    rounds = {text.ACCUMULATE: 2}
    return {one.name: (place.folder / one.name, live(small(one, rounds.get(one, 1)), place, Silent())) for one in members}


# ── text ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_passages_are_words_of_the_text_and_those_outside_the_vocabulary_are_unknown(data: Path) -> None:
    passages = dataclasses.replace(TINYSTORIES, vocabulary=10).read(data)
    assert passages.words[:3] == ("w0", "w1", "w2") and len(passages.words) == 10
    for task in passages.tasks("train", 20):
        assert task.answer is not None
        words = [*str(task.prompt).split(), *task.answer.split()]
        assert (len(str(task.prompt).split()), len(words)) == (PROMPT, PROMPT + ANSWER)
        assert (set(words) <= {*passages.words, "<unk>"} and "<unk>" in words) or len(set(words)) < 11
        assert task.origin.is_real and "GPT" in task.origin.note


def test_no_passage_begins_like_another_and_none_that_is_held_out_like_one_to_train_on(data: Path) -> None:
    repeated = story(0)
    folder = data / "again"
    folder.mkdir()
    (folder / "train").write_text("".join(f" {story(seed)} \n" for seed in [0, 0, *range(1, 20)]))
    (folder / "held_out").write_text(f" {repeated} \n" + "".join(f" {story(seed)} \n" for seed in range(50, 60)))
    passages = Corpus("made-up", "again/train", "again/held_out", 40, "a note").read(data)
    train, held_out = passages.tasks("train", 30), passages.tasks("held_out", 15)
    prompts = [task.prompt for task in (*train, *held_out)]
    assert len(set(prompts)) == len(prompts)
    with pytest.raises(DataError, match="its held_out part has 20 passages of 32 words, and 500 are needed"):
        passages.tasks("held_out", 500)


def test_headings_are_no_text_and_stories_are_split_where_they_end(data: Path) -> None:
    wiki, stories = WIKITEXT.read(data), TINYSTORIES.read(data)
    assert len(wiki.train) == 50 and len(wiki.held_out) == 30
    assert not {"heading", "="} & {word for one in wiki.train for word in one}
    assert (len(stories.train), len(stories.held_out)) == (80, 9)  # 89: the last story of the file is cut off


def test_the_tokenizer_gives_a_word_a_token_and_the_text_back(data: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    passages = TINYSTORIES.read(data)
    tokenizer = AutoTokenizer.from_pretrained(passages.tokenizer(tmp_path / "tokenizer"))
    said = passages.tasks("train", 1)[0].answer
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert len(ids) == ANSWER and tokenizer.decode(ids) == said
    assert tokenizer(f"{WORDS[0]} neverseen", add_special_tokens=False)["input_ids"][1] == tokenizer.convert_tokens_to_ids("<unk>")


def test_the_real_texts_give_enough_passages() -> None:
    for corpus in (TINYSTORIES, WIKITEXT):
        if not (DATA / corpus.train).exists():
            pytest.skip(f"needs {corpus.train} in the data folder beside the project")
        passages = corpus.read(DATA)
        train, held_out = passages.tasks("train", text.ROWS), passages.tasks("held_out", text.HELD_OUT)
        unknown = np.mean([word == "<unk>" for task in train for word in str(task.answer).split()])
        assert unknown < 0.3 and not {task.prompt for task in train} & {task.prompt for task in held_out}


# ── the loop ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_names_say_what_a_lineage_is() -> None:
    assert [one.name for one in text.TEXT][:4] == [
        "tinystories-replace",
        "tinystories-accumulate",
        "tinystories-subsample",
        "tinystories-replace-t0.3",
    ]
    assert text.WIKI_BEAMS.name == "wikitext-2-replace-tuned-5-beams" and text.SHARES[0].name == "tinystories-replace-10-real"
    assert len({one.name for one in text.TEXT}) == len(text.TEXT)


def test_models_have_at_most_three_million_parameters(lived: Mapping[str, tuple[Path, Lived]]) -> None:
    from outcross.models.torch_lm import torch_lm

    first = torch_lm(str(RunDir(lived[text.REPLACE.name][0]).start / "model"))
    assert first.disk_bytes / 4 < 3_000_000


def test_every_generation_is_measured_by_the_same_probes(lived: Mapping[str, tuple[Path, Lived]]) -> None:
    for _, courses in lived.values():
        assert set(courses) == {trained.LOSS, trained.TAIL, trained.VOCABULARY, trained.SURPRISE}
        assert all(len(course.measured) in (2, 3) and np.isfinite(course.means).all() for course in courses.values())
    firsts = [courses[trained.LOSS].means[0] for name, (_, courses) in lived.items() if name.startswith("tinystories")]
    assert len(set(firsts)) == 1  # lineages of a corpus and seed begin with one model


def seen_by(folder: Path) -> list[Mapping[str, int]]:
    """Rows that the optimiser saw in each round: new, of history, and real."""
    import pyarrow.parquet as pq

    found = []
    for turn in RunDir(folder).rounds():
        rows = pq.read_table(turn.folder / "mixture.parquet").to_pylist()
        counts: dict[str, int] = {}
        for item in rows:
            counts[item["source"]] = counts.get(item["source"], 0) + int(item["repeats"])
        found.append(counts)
    return found


def test_what_each_generation_learns_from_is_what_its_name_says(lived: Mapping[str, tuple[Path, Lived]]) -> None:
    rows = SMALL["rows"]
    assert seen_by(lived[text.REPLACE.name][0]) == [{"new": rows}]
    assert seen_by(lived[text.ACCUMULATE.name][0]) == [{"new": rows, "real": rows}, {"new": rows, "history": rows, "real": rows}]
    for counts in seen_by(lived[text.SHARES[1].name][0]):
        assert sum(counts.values()) == rows and counts["real"] >= 0.3 * rows


def test_a_record_says_how_it_was_written_and_that_nothing_was_gated(lived: Mapping[str, tuple[Path, Lived]]) -> None:
    run = RunDir(lived[text.WIKI_BEAMS.name][0])
    assert all(not turn.decision.gated and turn.promoted for turn in run.rounds() if turn.decision)
    assert any("replace" in heading or "floor" in heading for heading in run.manifest["headings"])
    groups = list(run.rounds()[0].groups())
    assert len(groups) == SMALL["rows"] and all(len(group.samples) == 1 for group in groups)


def test_a_finished_lineage_is_read_and_not_run_again(data: Path, tmp_path: Path) -> None:
    place, lineage = Place(data, tmp_path, 1), small(text.REPLACE)
    first = live(lineage, place, Silent())
    stamp = (tmp_path / lineage.name / "manifest.json").stat().st_mtime_ns
    (tmp_path / lineage.name / "finished").write_text("0.0.0")  # another version's: the engine finds the same run with every round complete
    again = live(lineage, place, Silent())
    assert (tmp_path / lineage.name / "manifest.json").stat().st_mtime_ns == stamp
    assert {name: course.means.tolist() for name, course in first.items()} == {
        name: course.means.tolist() for name, course in again.items()
    }
    assert live(lineage, dataclasses.replace(place, data=tmp_path / "nowhere"), Silent()).keys() == first.keys()


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert missing(text.WIKI_REPLACE, tmp_path) == ["wikitext-2/valid.txt", "wikitext-2/test.txt"]
    assert missing(text.REPLACE, tmp_path) == ["tinystories/tinystories_sample.txt"]


# ── what is read ───────────────────────────────────────────────────────────────────────────────────────────────────────
def course(*generations: tuple[float, ...]) -> Course:
    items = tuple(map(str, range(len(generations[0]))))
    return Course(tuple(Measurement("probe", items, values, higher_is_better=False) for values in generations))


def made(**lineages: Mapping[str, Course]) -> Mapping[str, Lived]:
    return {name.replace("_", "-"): courses for name, courses in lineages.items()}


@dataclasses.dataclass(frozen=True)
class Named:
    name: str
    about: str = ""
    files: tuple[str, ...] = ()
    seconds: float = 1.0


A, B = Named("a"), Named("b")
LIVED = made(
    a={trained.LOSS: course((1.0, 1.0), (1.5, 1.7), (2.0, 3.0)), trained.TAIL: course((4.0, 4.0), (6.0, 6.4), (7.0, 9.0))},
    b={trained.LOSS: course((1.0, 1.0), (1.1, 1.1), (1.5, 1.7)), trained.TAIL: course((4.0, 4.0), (4.2, 4.0), (5.0, 5.0))},
)


def test_lineages_are_compared_item_by_item_at_the_end() -> None:
    found, error = worse(A, B)(LIVED)  # type: ignore[arg-type]
    assert (found, error) == (pytest.approx(0.9), pytest.approx(np.std([0.5, 1.3], ddof=1) / 2**0.5))
    assert rise(A)(LIVED)[0] == pytest.approx(1.5) == -fall(A, trained.LOSS)(LIVED)[0]  # type: ignore[arg-type]
    assert half_recovered(A, B)(LIVED)[0] == pytest.approx(0.75 - 0.6)  # type: ignore[arg-type]


def test_what_moves_first_is_read_from_the_first_generation() -> None:
    assert more(A, trained.TAIL, trained.LOSS)(LIVED)[0] == pytest.approx(2.2 - 0.6)  # type: ignore[arg-type]
    signals = [(np.mean(gaps) / (np.std(gaps, ddof=1) / 2**0.5)) for gaps in ([2.0, 2.4], [0.5, 0.7])]
    found, error = ahead(trained.TAIL, trained.LOSS, 1.0, A)(LIVED)  # type: ignore[arg-type]
    assert (found, error) == (pytest.approx(signals[0] - signals[1]), pytest.approx(2**0.5))


def claim(values: list[float]) -> tuple[TrainedClaim, list[Mapping[str, Lived]]]:
    left = list(values)
    made_up = TrainedClaim("made-up", "P", "§", None, "direction", "what", lineages=(), read=lambda lived: (left.pop(0), 0.1))
    return made_up, [{} for _ in values]


def test_of_several_seeds_the_interval_is_students_over_seeds() -> None:
    one, seeds = claim([0.5, 0.7, 0.3, 0.6, 0.4])
    found = one.result(one.estimate(seeds))
    assert found.half_width == pytest.approx(2.7764 * np.std([0.5, 0.7, 0.3, 0.6, 0.4], ddof=1) / 5**0.5, rel=1e-4)
    assert (found.ours, found.verdict, found.note) == (pytest.approx(0.5), "holds", "above zero in 5 of 5 seeds")
    two, seeds = claim([0.5, -0.1])
    assert two.result(two.estimate(seeds)).verdict == "undecided"


def test_of_one_seed_the_interval_is_over_items_and_says_so() -> None:
    one, seeds = claim([0.5])
    found = one.result(one.estimate(seeds))
    assert found.half_width == pytest.approx(0.196, rel=1e-3) and "one seed" in found.note


def test_a_study_runs_claims_of_trained_models_and_draws_their_curves(data: Path, tmp_path: Path) -> None:
    chosen: list[Claim] = []
    for name, members in (
        ("gerstgrasser-text-replace", (text.REPLACE, text.ACCUMULATE)),
        ("gerstgrasser-text-replace-rise", (text.REPLACE,)),
    ):
        given = next(one for one in TEXT_CLAIMS if one.name == name)
        read = given.read if name.endswith("replace") else rise(text.REPLACE, generation=1)
        tiny = tuple(map(small, members))
        chosen.append(dataclasses.replace(given, lineages=tiny, read=read))
    here, told = Study(tmp_path, "small", 0, data), []
    entries = here.run(chosen, told.append)
    assert [entry.verdict in ("holds", "fails", "undecided") for entry in entries] == [True, True]
    assert sum("tinystories-replace," in line for line in told) == 1  # the second claim reads what the first one ran
    found = json.loads((tmp_path / "small-0" / "results.json").read_text())["claims"]
    assert found[0]["replicates"] == 1 and "torch" in found[0]["versions"]
    names = {one.name for one in text.TEXT}
    curves = curves_of([tmp_path / "small-0" / "lineages" / "seed-0"], names)
    assert [curve.name for curve in curves] == [
        f"text-tinystories-{probe}" for probe in ("real_loss", "tail_loss", "text_vocabulary", "self_perplexity")
    ]
    assert [line.name for line in curves[0].lines] == ["replace", "accumulate"] and len(curves[0].lines[0].values) == 2
