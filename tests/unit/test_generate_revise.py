"""Revise draws principles uniformly, keeps every exchange on the record, and never passes a draft off as its revision."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import context
from scipy import stats
from tiny_lm import tiny

from outcross.engine.tables import SAMPLES, Writer, decode_groups, encode_groups, rows_of
from outcross.errors import ConfigError, DataError
from outcross.generate.principles import GENERAL, SELF, Constitution, Principle
from outcross.generate.revise import Revise
from outcross.models.scripted import Scripted
from outcross.recipe import fingerprint
from outcross.train.objectives import Imitate
from outcross.types import Array, Completion, Group, Message, Request, Response, Sampling, Task

TASKS = [Task(f"t{i}", f"question {i}", "x") for i in range(6)]
PRINCIPLES = tuple(Principle(f"criticise {i}", f"revise {i}", f"p{i}") for i in range(16))
BANNED = "bad"


def last(request: Request) -> str:
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content


class Reviser:
    """Drafts texts full of a banned word; each revision removes the first one and keeps the rest. Keeps what it is asked."""

    def __init__(self, fails: str = "", says: dict[str, Response] | None = None) -> None:
        self.requests: list[Request] = []
        self.fails, self.says = fails, says or {}

    def __call__(self, request: Request) -> str | Response:
        self.requests.append(request)
        asked = last(request)
        if self.fails and re.search(self.fails, asked):
            return Response(error="timed out")
        if asked in self.says:
            return self.says[asked]
        if asked.startswith("criticise"):
            return "there is a bad word"
        if asked.startswith("revise"):
            assert isinstance(request.prompt, tuple)
            return request.prompt[-4].content.replace(BANNED, "good", 1)
        return f"{asked} bad bad bad end"


def revised(stage: Revise, script: Any, folder: Path, tasks: list[Task] = TASKS, **models: Scripted) -> list[Group]:
    model = Scripted(script, name="reviser")
    return list(stage(context(folder, {"policy": model, **models}), tasks))


def test_the_record_holds_every_exchange_and_what_is_learnt_is_prompt_and_last_revision(tmp_path: Path) -> None:
    script = Reviser()
    (group,) = revised(Revise(steps=2, constitution=Constitution(PRINCIPLES[:1])), script, tmp_path, TASKS[:1])
    (sample,) = group.samples
    draft, one, two = "question 0 bad bad bad end", "question 0 good bad bad end", "question 0 good good bad end"
    start = (Message("user", "question 0"), Message("assistant", draft))
    asked = (*start, Message("user", "criticise 0"))
    assert [turn.prompt for turn in sample.turns[:3]] == [
        "question 0",
        asked,
        (*asked, Message("assistant", "there is a bad word"), Message("user", "revise 0")),
    ]
    assert sample.turns[3].prompt[:2] == (start[0], Message("assistant", one)), "the pair is put afresh before the next step"  # type: ignore[index]
    assert [turn.completion.content for turn in sample.turns] == [draft, "there is a bad word", one, "there is a bad word", two, two]
    assert sample.origin.note == "step 1: p0; step 2: p0" and sample.seat == "policy"
    assert [len(request.prompt) for request in script.requests if isinstance(request.prompt, tuple)] == [3, 5, 3, 5]
    (example,) = Imitate(require_verified=False)(context(tmp_path), [group])
    assert (example.prompt, example.completion) == ("question 0", two)
    with Writer(tmp_path / "groups.parquet", SAMPLES, encode_groups) as table:
        table.add(group)
    assert list(decode_groups(rows_of(tmp_path / "groups.parquet"))) == [group]


def test_principles_are_drawn_uniformly_and_independently_at_each_step(tmp_path: Path) -> None:
    tasks = [Task(f"t{i}", f"q{i}") for i in range(1600)]
    groups = revised(Revise(steps=2, constitution=Constitution(PRINCIPLES)), Reviser(), tmp_path, tasks)
    drawn = [tuple(int(found) for found in re.findall(r"p(\d+)", group.samples[0].origin.note)) for group in groups]
    for step in range(2):
        counts = Counter(pair[step] for pair in drawn)
        assert stats.chisquare([counts[i] for i in range(16)]).pvalue > 0.001
    table = [[sum(1 for first, second in drawn if (first // 4, second // 4) == (i, j)) for j in range(4)] for i in range(4)]
    assert stats.chi2_contingency(table).pvalue > 0.001
    again = revised(Revise(steps=2, constitution=Constitution(PRINCIPLES)), Reviser(), tmp_path, tasks[::-1])
    assert again[::-1] == groups, "a task's principles depend on the seed and the task, not on the order"


def test_toy_harm_never_grows_along_the_revisions(tmp_path: Path) -> None:
    stage = Revise(n=2, steps=4, constitution=Constitution(PRINCIPLES), keep="all")
    for group in revised(stage, Reviser(), tmp_path):
        for begin in (0, 5):
            chain = group.samples[begin : begin + 5]
            assert [sample.text.count(BANNED) for sample in chain] == [3, 2, 1, 0, 0]
            assert [sample.seat for sample in chain] == ["draft", *["policy"] * 4]
            assert all(sample.turns[-1].prompt == group.task.prompt for sample in chain)


@pytest.mark.parametrize(("keep", "harm"), [("last", [0]), ("revisions", [2, 1, 0]), ("all", [3, 2, 1, 0])])
def test_what_becomes_a_sample(keep: Any, harm: list[int], tmp_path: Path) -> None:
    groups = revised(Revise(steps=3, constitution=Constitution(PRINCIPLES), keep=keep), Reviser(), tmp_path)
    assert [[sample.text.count(BANNED) for sample in group.samples] for group in groups] == [harm] * 6
    identifiers = [sample.id for group in groups for sample in group.samples]
    assert len(set(identifiers)) == len(identifiers)


EMPTY, CUT = Response((Completion("  "),)), Response((Completion("question 0 go", finished=False),))


@pytest.mark.parametrize(
    ("asked", "answer", "why"),
    [
        ("criticise 1", Response(error="busy"), "the critique failed: busy"),
        ("criticise 1", EMPTY, "the critique is empty"),
        ("revise 1", Response(error="busy"), "the revision failed: busy"),
        ("revise 1", EMPTY, "the revision is empty"),
        ("revise 1", CUT, "the revision was cut off at the token limit"),
        ("revise 1", Response(), "the revision failed: the model gave no completion"),
    ],
)
def test_a_step_that_comes_to_nothing_keeps_the_text_before_it_and_says_so(asked: str, answer: Response, why: str, tmp_path: Path) -> None:
    stage = Revise(steps=3, constitution=Constitution(PRINCIPLES[:2]))
    for group in revised(stage, Reviser(says={asked: answer}), tmp_path, TASKS * 5):
        (sample,) = group.samples
        missed = sample.origin.note.count(f"{why}; the text before it stands")
        done = sample.origin.note.count(": p0")
        assert missed + done == 3
        if done:
            assert sample.text.count(BANNED) == 3 - done and not sample.error
            assert sample.turns[-1].completion.finished
        else:
            assert not sample.turns and sample.error.startswith(f"no revision: step 1: {why}"), "a draft is not learnt as a revision"


def test_a_draft_that_fails_is_a_failed_sample_and_asks_no_critique(tmp_path: Path) -> None:
    for script in (Reviser(fails="question"), Reviser(says={"question 0": EMPTY})):
        (group,) = revised(Revise(steps=3), script, tmp_path, TASKS[:1])
        assert [sample.error for sample in group.samples] in (["the draft failed: timed out"], ["the draft is empty"])
        assert len(script.requests) == 1


def test_a_critic_of_its_own_is_the_author_and_the_drafts_author_stays_known(tmp_path: Path) -> None:
    drafts, critic = Reviser(), Reviser()
    stage = Revise(steps=2, critic="critic", constitution=Constitution(PRINCIPLES), keep="all")
    (group,) = revised(stage, drafts, tmp_path, TASKS[:1], critic=Scripted(critic, name="critic", depth=3))
    assert (len(drafts.requests), len(critic.requests)) == (1, 4)
    assert stage.roles == ("policy", "critic") and stage.calls(10) == {"policy": 10, "critic": 40}
    assert Revise(n=2, steps=3).calls(5) == {"policy": 5 * 2 * 7} and Revise().roles == ("policy",)
    assert [(sample.origin.source, sample.origin.depth) for sample in group.samples] == [
        ("scripted:reviser", 1),
        ("scripted:critic", 4),
        ("scripted:critic", 4),
    ]
    assert group.samples[1].origin.note.startswith("draft by scripted:reviser; step 1: p")


def test_demonstrations_go_before_each_question_and_after_the_system_message(tmp_path: Path) -> None:
    script = Reviser()
    task = Task("t", (Message("system", "be kind"), Message("user", "question")))
    sampling = {"sampling": Sampling(0.5), "critique_sampling": Sampling(0.6), "revision_sampling": Sampling(0.7)}
    (group,) = revised(Revise(constitution="general", **sampling), script, tmp_path, [task])  # type: ignore[arg-type]
    shown = [item for one in GENERAL.demonstrations for item in one]
    critique = script.requests[1].prompt
    assert isinstance(critique, tuple) and critique[0].role == "system" and list(critique[1 : 1 + len(shown)]) == shown
    assert critique[1 + len(shown)].content == "question" and critique[-1].content in {item.critique for item in GENERAL.principles}
    roles = [item.role for item in critique[1:]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert [request.sampling.temperature for request in script.requests] == [0.5, 0.6, 0.7]
    assert not any(shown[0] in turn.prompt for turn in group.samples[0].turns if isinstance(turn.prompt, tuple)), (
        "kept in the manifest once"
    )


def test_a_base_model_is_asked_by_plain_text(tmp_path: Path) -> None:
    script = Reviser()
    revised(Revise(plain_text=True), script, tmp_path, TASKS[:1])
    draft, critique, revision = (str(request.prompt) for request in script.requests)
    assert draft == "question 0"
    assert critique == f"User: question 0\n\nAssistant: question 0 bad bad bad end\n\nUser: {SELF.principles[0].critique}\n\nAssistant:"
    assert revision.endswith(f"User: {SELF.principles[0].revision}\n\nAssistant:")
    assert script.requests[1].sampling.stop == ("\n\nUser:",)


def test_a_language_model_revises_itself(tmp_path: Path) -> None:
    model = tiny({"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256})
    short = Constitution((Principle("b?", "a=", "short"),))
    stage = Revise(n=2, constitution=short, sampling=Sampling(max_tokens=12), plain_text=True)
    try:
        found = list(stage(context(tmp_path, {"policy": _Lettered(model)}), [Task("t", "1+1=")]))
    finally:
        model.close()
    assert [len(group.samples) for group in found] == [2]
    for sample in found[0].samples:
        assert bool(sample.error) != (len(sample.turns) == 4)


class _Lettered:
    """A tiny model knows no capitals and few letters; what it cannot write is left out of what it is asked."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.id, self.depth = model.id, model.depth

    def submit(self, request: Request, /) -> Any:
        text = re.sub(r"[^0-9+= abc\n]", "", str(request.prompt))
        return self._model.submit(Request(text, request.n, Sampling(max_tokens=12), seed=request.seed))

    def flush(self) -> None:
        self._model.flush()

    def close(self) -> None:
        self._model.close()


# ── constitutions ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_constitution_is_read_from_the_published_format(tmp_path: Path) -> None:
    path, shots = tmp_path / "principles.json", tmp_path / "shots.json"
    path.write_text(json.dumps({"one0": {"prompt": "c0", "edit_request": "r0"}, "two0": {"prompt": "c1", "edit_request": "r1"}}))
    text = "\n\nHuman: a\n\nAssistant: b: c\n\nCritiqueRequest: d\n\nCritique: e\n\nRevisionRequest: f\n\nRevision: g\n\nHuman:"
    shots.write_text(json.dumps([text, [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]]))
    found = Constitution((Principle("c", "r"),), path, demonstrations_path=shots)
    assert found.all_principles == (Principle("c", "r"), Principle("c0", "r0", "one0"), Principle("c1", "r1", "two0"))
    roles = [(item.role, item.content) for item in found.all_demonstrations[0]]
    assert roles == [("user", "a"), ("assistant", "b: c"), ("user", "d"), ("assistant", "e"), ("user", "f"), ("assistant", "g")]
    assert found.all_demonstrations[1] == (Message("user", "u"), Message("assistant", "v"))
    moved = tmp_path / "moved.json"
    moved.write_bytes(path.read_bytes())
    assert fingerprint(Constitution(path=path)) == fingerprint(Constitution(path=moved)) != fingerprint(SELF)
    path.write_text(json.dumps([{"critic": "a", "revision": "b"}]))
    assert Constitution(path=path).all_principles == (Principle("a", "b"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[]", "not empty"),
        ('{"a": {"prompt": "x"}}', "needs the texts"),
        ('["x"]', "needs the texts"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_constitution_is_refused(text: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=told):
        _ = Constitution(path=path).all_principles


@pytest.mark.parametrize(
    "text", ["{}", '["no labels"]', '["\\n\\nHuman: a"]', '[[{"role": "user"}]]', '[[{"role": "user", "content": "a"}]]']
)
def test_conversations_that_end_without_a_revision_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(DataError):
        _ = Constitution((Principle("c", "r"),), demonstrations_path=path).all_demonstrations


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Revise(steps=0)
    with pytest.raises(ConfigError, match="no principle"):
        Constitution()
    with pytest.raises(ConfigError, match="array"):
        revised(Revise(), Reviser(), tmp_path, [Task("t", Array("uint8", (1,), b"x"))])
