"""Rephrase, instruction reversal and evolution: what is asked, what is learnt, what is refused, and what stays on the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from helpers import context
from scipy import stats

from outcross.errors import ConfigError
from outcross.generate.evolve import Evolve, Operation, bad_answer, bad_evolution
from outcross.generate.rewrite import STYLES, InstructionReversal, Rephrase
from outcross.models.scripted import Scripted
from outcross.train.objectives import Imitate
from outcross.types import Completion, Group, Message, Request, Response, Sampling, Task
from outcross.verify.regenerated import Regenerated, likeness

TASKS = [Task(f"t{i}", f"The river {i} is long.", f"answer {i}") for i in range(4)]
Script = Callable[[Request], str | Response]


def made(stage: Any, script: Script, folder: Path, tasks: list[Task] = TASKS, **others: Script) -> list[Group]:
    models = {role: Scripted(given, name=role) for role, given in {"policy": script, **others}.items()}
    return list(stage(context(folder, models), tasks))


def said(request: Request) -> str:
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content


def learnt(groups: list[Group], folder: Path) -> list[tuple[Any, Any]]:
    return [(example.prompt, example.completion) for example in Imitate(require_verified=False)(context(folder), groups)]


# ── rephrase ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def shouted(request: Request) -> str:
    return f" {said(request).splitlines()[-1].upper()} {request.seed}\n"


def test_a_text_is_rephrased_in_every_style_and_learnt_as_a_text(tmp_path: Path) -> None:
    stage = Rephrase(("easy", "qa", "As a poem: {text}"), n=2)
    groups = made(stage, shouted, tmp_path)
    assert [len(group.samples) for group in groups] == [6] * 4 and stage.calls(4) == {"policy": 24}
    assert [sample.origin.note for sample in groups[0].samples] == [
        *["rephrased: easy"] * 2,
        *["rephrased: qa"] * 2,
        *["rephrased: own request"] * 2,
    ]
    first = groups[1].samples[0]
    assert first.turns[0].prompt == (Message("user", STYLES["easy"].replace("{text}", "The river 1 is long.")),)
    assert first.turns[1].prompt == "" and first.text.startswith("THE RIVER 1 IS LONG.") and first.text == first.text.strip()
    assert len({sample.text for group in groups for sample in group.samples}) == 24, "every sample has a seed of its own"
    assert {prompt for prompt, _ in learnt(groups, tmp_path)} == {""}


def test_a_reference_answer_is_rephrased_for_its_own_prompt(tmp_path: Path) -> None:
    groups = made(Rephrase(source="answer"), shouted, tmp_path, [*TASKS[:1], Task("bare", "no answer")])
    assert [(prompt, str(text).split()[:2]) for prompt, text in learnt(groups, tmp_path)] == [(TASKS[0].prompt, ["ANSWER", "0"])]
    assert [sample.error for sample in groups[1].samples] == ["the task has no answer to rephrase"]


def test_a_rephrasing_that_is_empty_cut_off_or_fails_is_a_failed_sample(tmp_path: Path) -> None:
    for answer, why in (
        (Response((Completion(" "),)), "the rephrasing is empty"),
        (Response((Completion("a", finished=False),)), "the rephrasing was cut off at the token limit"),
        (Response(error="busy"), "the rephrasing failed: busy"),
    ):
        (group,) = made(Rephrase(), lambda request, answer=answer: answer, tmp_path, TASKS[:1])  # type: ignore[misc]
        assert [sample.error for sample in group.samples] == [why] and not group.samples[0].turns


def test_a_base_model_rephrases_from_plain_text(tmp_path: Path) -> None:
    asked: list[Request] = []

    def keep(request: Request) -> str:
        asked.append(request)
        return "x"

    made(Rephrase(plain_text=True, sampling=Sampling(stop=("###",))), keep, tmp_path, TASKS[:1])
    assert said(asked[0]).startswith("User: Write") and said(asked[0]).endswith("The river 0 is long.\n\nAssistant:")
    assert asked[0].sampling.stop == ("###", "\n\nUser:")


# ── instruction reversal ───────────────────────────────────────────────────────────────────────────────────────────────
def describes(request: Request) -> str:
    text = said(request)
    return "A river is long, they say." if text.startswith("Say") else f"Say how long river {text.split('river ')[1][0]} is."


def test_a_text_is_learnt_as_the_answer_to_the_instruction_found_for_it(tmp_path: Path) -> None:
    groups = made(InstructionReversal(), describes, tmp_path)
    assert learnt(groups, tmp_path) == [(f"Say how long river {i} is.", f"The river {i} is long.") for i in range(4)]
    sample = groups[0].samples[0]
    assert len(sample.turns) == 2 and sample.turns[0].completion.content == "Say how long river 0 is."
    assert sample.origin.kind == "synthetic" and sample.origin.parents == ("t0",)


def test_what_is_regenerated_stands_beside_the_text_for_a_verifier(tmp_path: Path) -> None:
    stage = InstructionReversal(regenerate="writer", n=2)
    groups = made(stage, describes, tmp_path, writer=describes)
    assert stage.roles == ("policy", "writer") and stage.calls(3) == {"policy": 6, "writer": 6}
    for group in groups:
        for sample in group.samples:
            _, again, given = sample.turns
            assert again.prompt == given.prompt and again.completion.content == "A river is long, they say."
            assert given.completion.content == group.task.prompt
    failing = made(stage, describes, tmp_path, TASKS[:1], writer=lambda request: Response(error="busy"))
    assert [len(sample.turns) for sample in failing[0].samples] == [2, 2]
    assert all(sample.origin.note.endswith("the new answer failed: busy") for sample in failing[0].samples)


def test_an_instruction_that_repeats_the_text_or_lacks_one_has_failed(tmp_path: Path) -> None:
    (group,) = made(InstructionReversal(), lambda request: "Write: the  RIVER 0 is long.", tmp_path, TASKS[:1])
    assert [sample.error for sample in group.samples] == ["the instruction repeats the text"]
    (group,) = made(InstructionReversal(source="answer"), describes, tmp_path, [Task("t", "q")])
    assert [sample.error for sample in group.samples] == ["the task has no answer to find an instruction for"]


# ── evolve ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def grows(request: Request) -> str:
    text = said(request)
    if text.startswith(("Make the", "Think of")):
        return f"{text.split(chr(10) * 2)[-1]} Use one more word."
    return f"Done: {len(text.split('Use')) - 1} conditions met"


def test_an_instruction_evolves_is_answered_and_learnt_with_its_lineage(tmp_path: Path) -> None:
    stage = Evolve(steps=2)
    groups = made(stage, grows, tmp_path)
    assert stage.calls(3) == {"policy": 12}
    final = "The river 0 is long. Use one more word. Use one more word."
    assert learnt(groups[:1], tmp_path) == [(final, "Done: 2 conditions met")]
    sample = groups[0].samples[0]
    assert [turn.completion.content for turn in sample.turns[:2]] == ["The river 0 is long. Use one more word.", "Done: 1 conditions met"]
    assert len(sample.turns) == 5 and sample.turns[-1].prompt == final
    assert [part.split(":")[0] for part in sample.origin.note.split("; ")] == ["step 1", "step 2"]
    every = made(Evolve(steps=2, keep="all"), grows, tmp_path)
    assert [answer for _, answer in learnt(every[:1], tmp_path)] == ["Done: 1 conditions met", "Done: 2 conditions met"]
    assert len({sample.id for group in every for sample in group.samples}) == 8


def test_operations_are_drawn_uniformly(tmp_path: Path) -> None:
    groups = made(Evolve(), grows, tmp_path, [Task(f"t{i}", "Do the thing") for i in range(1000)])
    drawn = Counter(group.samples[0].origin.note.removeprefix("step 1: ") for group in groups)
    assert set(drawn) == set(get_args(Operation)) and stats.chisquare(list(drawn.values())).pvalue > 0.001


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("Add two numbers", "New instruction: add three numbers", "copies “new instruction” from the request"),
        ("Add two numbers", "add  two NUMBERS", "equals the instruction it came from"),
        ("Add two numbers", "Add them", "too short"),
        ("What is a given prompt?", "What is a given prompt, in detail?", ""),
        ("Add two numbers", "Add two numbers and say why", ""),
    ],
)
def test_evolutions_of_no_use(before: str, after: str, why: str) -> None:
    assert bad_evolution(before, after) == why


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Sorry, I cannot do that.", "the answer apologises"),
        ("I am sorry to hear it. " + "Here is what can be done about it. " * 20, ""),
        ("... !?", "the answer is punctuation and stop words only"),
        ("it is the", "the answer is punctuation and stop words only"),
        ("42", ""),
    ],
)
def test_answers_that_show_a_bad_instruction(answer: str, why: str) -> None:
    assert bad_answer(answer) == why


def test_a_failed_evolution_goes_back_to_what_it_came_from(tmp_path: Path) -> None:
    count = Counter[str]()

    def moody(request: Request) -> str | Response:
        text = said(request)
        if not text.startswith(("Make the", "Think of")):
            return "Sorry, no." if "nonsense" in text else "A fine answer"
        count[text.split("\n\n")[-1]] += 1
        return [grows(request), f"{text.split(chr(10) * 2)[-1]} and nonsense", Response(error="busy")][sum(count.values()) % 3 - 1]

    (group,) = made(Evolve(steps=3), moody, tmp_path, TASKS[:1])
    (sample,) = group.samples
    assert count == {"The river 0 is long.": 1, "The river 0 is long. Use one more word.": 2}
    first, second, third = sample.origin.note.split("; ")
    assert first.startswith("step 1: ") and second.endswith("the answer apologises") and third == "step 3: the evolution failed: busy"
    assert sample.turns[-1].prompt == "The river 0 is long. Use one more word."
    (group,) = made(Evolve(steps=2), lambda request: "same same", tmp_path, TASKS[:1])
    assert group.samples[0].error.startswith("no evolution: step 1: ") and group.samples[0].error.count("too short") == 2


@pytest.mark.parametrize(("verdict", "kept"), [("Different.", True), ("equal", False), ("hm", False)])
def test_a_judge_may_find_that_nothing_new_is_asked(verdict: str, kept: bool, tmp_path: Path) -> None:
    stage = Evolve(judge="judge", evolver="teacher")
    (group,) = made(stage, grows, tmp_path, TASKS[:1], judge=lambda request: verdict, teacher=grows)
    assert stage.roles == ("teacher", "policy", "judge") and stage.calls(2) == {"teacher": 2, "policy": 2, "judge": 2}
    assert bool(group.samples[0].error) != kept


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in (
        lambda: Rephrase(("poem",)),
        lambda: Rephrase(()),
        lambda: Rephrase(n=0),
        lambda: InstructionReversal(request="what?"),
        lambda: Evolve(steps=0),
        lambda: Evolve(operations=("widen",)),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError):
            wrong()


# ── whether a reversed instruction leads back ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("one", "other", "n", "value"),
    [
        ("a b c d", "a b c d", 2, 1.0),
        ("a b c", "b c d", 2, 0.5),  # bc of ab bc and bc cd
        ("a a a", "a a", 2, 2 / 3),  # repeats count
        ("a", "A b", 3, 2 / 3),  # no longer than the shorter text
        ("a b", "c d", 1, 0.0),
        ("!", "!", 2, 1.0),
        ("!", "?", 2, 0.0),
    ],
)
def test_likeness_is_the_dice_coefficient(one: str, other: str, n: int, value: float) -> None:
    assert likeness(one, other, n) == likeness(other, one, n) == pytest.approx(value)


def test_an_instruction_that_does_not_lead_back_fails(tmp_path: Path) -> None:
    def writer(request: Request) -> str | Response:
        text = said(request)
        if "river 3" in text:
            return Response((Completion("The river 3 is", finished=False),))
        return "Nothing of the kind" if "river 2" in text else "the river 1 is long!"

    groups = made(InstructionReversal(regenerate="writer"), describes, tmp_path, TASKS[1:], writer=writer)
    bare = made(InstructionReversal(), describes, tmp_path, TASKS[:1])
    scores = [sample.scores[0] for group in Regenerated()(context(tmp_path), [*groups, *bare]) for sample in group.samples]
    assert [(score.verdict, score.value) for score in scores] == [("pass", 1.0), ("fail", 0.0), ("fail", 0.0), ("abstain", None)]
    assert scores[1].evidence == "Nothing of the kind" and "cut off" in scores[2].reason
    with pytest.raises(ConfigError):
        Regenerated(threshold=0)
