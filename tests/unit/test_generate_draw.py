"""Draw asks once a task, records what it got and where it comes from, and never loses a failed request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import context

from outcross.errors import ConfigError
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.types import Array, Completion, Group, Message, Request, Response, Sampling, Task

TASKS = [Task(f"t{i}", f"{i}+1=", str(i + 1)) for i in range(5)]


class Asked:
    """A script that keeps the requests it sees."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> list[str]:
        self.requests.append(request)
        return ["x", "y", "z"]


def drawn(draw: Draw, model: Scripted, folder: Path, tasks: list[Task] = TASKS, **where: Any) -> list[Group]:
    return list(draw(context(folder, {draw.role: model}, **where), tasks))


def test_a_group_holds_its_completions_and_their_origin(tmp_path: Path) -> None:
    model = Scripted(["x", "y"], depth=2)
    groups = drawn(Draw(n=3), model, tmp_path, label="train/0004")
    assert [group.task for group in groups] == TASKS
    for group in groups:
        assert len(group.samples) == 3 and {sample.text for sample in group.samples} == {"x", "y"}
        for sample in group.samples:
            origin = sample.origin
            assert (origin.kind, origin.source, origin.depth, origin.round, origin.parents) == (
                "synthetic",
                model.id,
                3,
                "train/0004",
                (group.task.id,),
            )
    identifiers = [sample.id for group in groups for sample in group.samples]
    assert len(set(identifiers)) == 15


def test_seeds_depend_on_run_round_and_task_and_not_on_the_order(tmp_path: Path) -> None:
    def seeds(tasks: list[Task], **where: Any) -> dict[str, int]:
        asked = Asked()
        drawn(Draw(n=2), Scripted(asked, name="asked"), tmp_path, tasks, **where)
        return {str(request.prompt): request.seed for request in asked.requests}

    plain = seeds(TASKS)
    assert len(set(plain.values())) == 5
    assert plain == seeds(TASKS[::-1])
    assert plain != seeds(TASKS, seed=1) != seeds(TASKS, label="phase/0001")


def test_the_request_says_all_that_shapes_the_answer(tmp_path: Path) -> None:
    asked = Asked()
    draw = Draw(n=2, sampling=Sampling(0.7, max_tokens=9, stop=("\n",)), role="teacher", seat="proposer", template="1+1=2\n{prompt}")
    (group,) = drawn(draw, Scripted(asked, name="asked"), tmp_path, TASKS[:1])
    assert asked.requests[0].prompt == "1+1=2\n0+1=" and asked.requests[0].sampling.stop == ("\n",) and asked.requests[0].n == 2
    assert group.samples[0].turns[0].prompt == "0+1=", "the model learns to answer without the worked examples"
    assert group.samples[0].seat == "proposer"
    assert draw.roles == ("teacher",) and draw.calls(7) == {"teacher": 7}


@pytest.mark.parametrize("learn", [False, True])
def test_system_message_and_template_are_kept_in_the_record_on_demand(learn: bool, tmp_path: Path) -> None:
    asked = Asked()
    prompt = (Message("user", "old"), Message("assistant", "yes"), Message("user", "new"))
    draw = Draw(1, system="Be brief.", template="Q: {prompt}", learn_template=learn)
    (group,) = drawn(draw, Scripted(asked, name="asked"), tmp_path, [Task("t", prompt)])
    full = (Message("system", "Be brief."), *prompt[:2], Message("user", "Q: new"))
    assert asked.requests[0].prompt == full
    assert group.samples[0].turns[0].prompt == (full if learn else prompt)
    drawn(draw, Scripted(asked, name="asked"), tmp_path, [Task("t", "plain")])
    assert asked.requests[1].prompt == (Message("system", "Be brief."), Message("user", "Q: plain"))


def short(request: Request) -> Response:
    return Response((Completion("only one"),))


def nothing(request: Request) -> Response:
    return Response()


def test_failed_and_short_answers_are_samples_with_a_reason(tmp_path: Path) -> None:
    groups = drawn(Draw(n=4), Scripted(["a"], failing={"1+1="}), tmp_path)
    assert [len(group.samples) for group in groups] == [4, 1, 4, 4, 4]
    (lost,) = groups[1].samples
    assert (lost.error, lost.turns, lost.origin.parents) == ("scripted to fail", (), ("t1",))
    (group,) = drawn(Draw(n=2), Scripted(short), tmp_path, TASKS[:1])
    assert [sample.error for sample in group.samples] == ["", "the model gave 1 completions of the 2 asked for"]
    (group,) = drawn(Draw(n=2), Scripted(nothing), tmp_path, TASKS[:1])
    assert [sample.error for sample in group.samples] == ["the model gave 0 completions of the 2 asked for"]


def test_tasks_are_streamed(tmp_path: Path) -> None:
    taken: list[str] = []

    def source() -> Iterator[Task]:
        for task in TASKS:
            taken.append(task.id)
            yield task

    groups = Draw(n=1)(context(tmp_path, {"policy": Scripted(["a"])}), source())
    next(groups)
    assert taken == ["t0"]


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Draw(n=0)
    with pytest.raises(ConfigError, match=r"put \{prompt\} where"):
        Draw(template="few shots")
    image = Task("t", Array("uint8", (1,), b"x"))
    for draw in (Draw(system="s"), Draw(template="a {prompt}")):
        with pytest.raises(ConfigError, match="array"):
            drawn(draw, Scripted(["a"]), tmp_path, [image])
    with pytest.raises(ConfigError, match="no user message"):
        drawn(Draw(template="a {prompt}"), Scripted(["a"]), tmp_path, [Task("t", (Message("assistant", "a"),))])
