"""`outcross verifier-check`, the proofs that it writes, and the runs that are refused without one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toys import Judge, Says, model, phase, play, recipe
from typer.testing import CliRunner

import outcross
from outcross.breakeven import Labelled, Tally
from outcross.cli.main import app
from outcross.cli.verifier_check import check, read_labels
from outcross.engine.admission import Batch
from outcross.engine.guards import check_plan
from outcross.engine.proofs import Proof, read_proofs, why_unproven
from outcross.engine.store import write_json
from outcross.errors import DataError, GuardError
from outcross.models.scripted import Scripted
from outcross.models.tabular import Tabular
from outcross.recipe import fingerprint
from outcross.stages import Model
from outcross.types import Message
from outcross.verify.exact import Exact
from outcross.verify.vote import Vote

GOOD = Labelled(Tally(45, 5), Tally(5, 45))


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def proof(verifier: Any, counts: Labelled = GOOD, models: dict[str, str] | None = None, **more: Any) -> Proof:
    fields = {"verifier": verifier.name, "version": verifier.version, "ground": verifier.ground, "settings": fingerprint(verifier)}
    fields |= {"models": models or {}, "labels": "0" * 32, "rows": 100, "alpha": 0.05, "counts": counts, "answers_of": (model().id,)}
    return Proof(**{**fields, **more})


def answers(right: float, size: int = 60, each: int = 1, seed: int = 0) -> list[dict[str, Any]]:
    """Sums, of which a share is right."""
    rng, rows = random.Random(seed), []
    for number in range(size):
        a, b = rng.randrange(50), rng.randrange(50)
        for _ in range(each):
            said = a + b if rng.random() < right else a + b + rng.choice((1, 2, 3))
            row = {"task_id": str(number), "prompt": f"{a}+{b}=", "answer": str(said), "label": "right" if said == a + b else "wrong"}
            rows.append({**row, "reference": str(a + b), "subgroup": "small" if a + b < 50 else "large", "model": "tabular:x"})
    return rows


# ── what is counted ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_verifier_that_is_right_is_counted_so_by_subgroup(tmp_path: Path) -> None:
    rows = answers(0.5)
    found = check(Exact(), {}, written(tmp_path / "labels.jsonl", *rows))
    right = sum(row["label"] == "right" for row in rows)
    assert found.counts == Labelled(Tally(right), Tally(0, 60 - right))
    assert found.forecast.says == "helps" and found.answers_of == ("tabular:x",)
    assert set(found.subgroups) == {"small", "large"}
    assert sum(item.judged for item in found.subgroups.values()) == 60
    small = sum(row["subgroup"] == "small" and row["label"] == "right" for row in rows)
    assert found.subgroups["small"].right == Tally(small)


def test_answers_to_one_task_stand_together_and_one_of_them_counts(tmp_path: Path) -> None:
    rows = answers(0.7, size=40, each=5)
    found = check(Vote(), {}, written(tmp_path / "labels.jsonl", *rows))
    assert found.rows == 200 and found.counts.judged == 40
    assert found.counts.right.kept > 0.5 * found.counts.right.judged  # a vote among one answer would have abstained
    assert check(Vote(), {}, tmp_path / "labels.jsonl", seed=1).counts != found.counts


def test_errors_and_abstentions_are_counted_by_themselves(tmp_path: Path) -> None:
    rows = [{"prompt": str(n), "answer": "4", "label": "right"} for n in range(3)]  # without a reference `exact` abstains
    assert check(Exact(), {}, written(tmp_path / "l.jsonl", *rows)).counts == Labelled(Tally(abstained=3))


def test_labels_are_words_numbers_or_a_review_that_was_filled_in(tmp_path: Path) -> None:
    made = play(recipe(phase(rounds=1)), tmp_path / "run")
    path, _ = Batch(made, made.rounds()[0], 3, everything=True).draw(10_000)
    shown = [json.loads(line) for line in path.read_text().splitlines()]
    assert all("verdicts" not in row for row in shown)  # a verifier's verdict would lead whoever labels
    rows = [{**row, "verdict": "pass" if row["answer"] == row["reference"] else "fail", "reviewer": "Ada"} for row in shown]
    found = check(Exact(), {}, written(path, *rows))
    assert found.counts.right.failed == found.counts.wrong.kept == 0 < found.counts.right.kept < found.counts.judged
    assert read_labels(path)[2] == (model().id,)
    said = (True, "RIGHT", 1, "pass", False, "wrong", 0, "fail")
    mixed = [{"prompt": str(n), "answer": "4", "label": label} for n, label in enumerate(said)]
    assert (
        list(read_labels(written(tmp_path / "l.jsonl", *mixed, {"prompt": "x", "answer": "", "label": ""}))[1].values())
        == [True] * 4 + [False] * 4
    )
    chat = [{"role": "user", "content": "2+2="}]
    groups, _, _ = read_labels(written(tmp_path / "chat.jsonl", {"prompt": chat, "answer": "4", "label": "right", "topic": "sums"}))
    assert groups[0].task.prompt == (Message("user", "2+2="),) and groups[0].task.columns == (("topic", "sums"),)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "p", "answer": "a"}, "no column `label`"),
        ({"prompt": "p", "answer": "a", "label": "maybe"}, "row 1: the label is 'maybe'"),
        ({"prompt": 3, "answer": "a", "label": "right"}, "row 1: `prompt` is 3"),
        ({"prompt": "p", "label": "right"}, "row 1: `answer` is None"),
        ({"prompt": "p", "answer": "a", "label": ""}, "holds no labelled row"),
    ],
)
def test_labels_that_say_too_little_are_told_with_their_row(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        read_labels(written(tmp_path / "l.jsonl", row))


# ── what a run asks for ────────────────────────────────────────────────────────────────────────────────────────────────
MODELS: dict[str, Model] = {"policy": model()}


def headings(verifier: Any, *proofs: Proof, models: dict[str, Model] | None = None, unsafe: bool = False, **more: Any) -> list[str]:
    return check_plan(recipe(phase(verify=(verifier,), **more), gate=Says()), models or MODELS, proofs=proofs, unsafe=unsafe)[1:]


@pytest.mark.parametrize("ground", ["judged", "voted", "trained"])
def test_an_opinion_that_was_not_shown_to_help_may_not_teach_unless_unsafe(ground: Any) -> None:
    judge = Judge(ground=ground)
    with pytest.raises(
        GuardError, match=rf"learns from judge, whose ground is '{ground}': nothing shows .* beats no filter.*verifier-check"
    ):
        headings(judge)
    assert headings(judge, unsafe=True)[-1].startswith("unproven verifier: phase 'train' learns from judge")
    assert headings(judge, proof(judge)) == []


@pytest.mark.parametrize("ground", ["exact", "executed", "kernel", "human"])
def test_other_grounds_need_no_proof(ground: Any) -> None:
    assert headings(Judge(ground=ground)) == []


def test_rows_that_teach_nobody_are_headed_and_not_refused() -> None:
    found = check_plan(recipe(phase(verify=(Judge(),), learn={})), MODELS)
    assert found == [
        "unproven verifier: phase 'train' keeps rows by judge, whose ground is 'judged': nothing shows that selection by it beats no filter"
    ]


def test_a_proof_that_names_no_model_heads_the_report() -> None:
    judge = Judge()
    assert headings(judge, proof(judge, answers_of=())) == [
        "the proof of judge does not say whose answers were labelled: nothing shows that they were this policy's"
    ]


def test_a_judge_that_the_run_teaches_is_not_the_judge_that_was_tried_for_long() -> None:
    judge, policy = Judge(("judge",)), model()
    good = proof(judge, models={"judge": policy.id})
    found = headings(judge, good, models={"policy": policy, "judge": policy})
    assert found == [
        "the proof of judge is about the model that the run begins with, and the run teaches its judge: check it again afterwards"
    ]
    other = Scripted(["yes"], name="one")
    assert headings(judge, proof(judge, models={"judge": other.id}), models={"policy": policy, "judge": other}) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": "0"}, "its proof is of version 0, and this is 1"),
        ({"settings": "f" * 32}, "its proof was made with other settings"),
        ({"models": {"judge": "another"}}, "its proof asked judge another, and the run asks judge scripted:one"),
        ({"answers_of": ("another",)}, "its proof is about answers of another, and the policy is tabular:"),
        (
            {"counts": Labelled(Tally(25, 25), Tally(25, 25))},
            "that selection by it helps cannot be shown: it keeps 50% of right and 50% of wrong",
        ),
        ({"counts": Labelled(Tally(5, 45), Tally(45, 5))}, "selection by it hurts"),
        ({"counts": Labelled(Tally(9, 1), Tally(90, 90))}, "selection by it hurts"),  # purer, and beyond break-even
    ],
)
def test_a_stale_proof_is_refused_with_the_reason(change: dict[str, Any], told: str) -> None:
    judge = Judge(("judge",))
    models: dict[str, Model] = {"policy": model(), "judge": Scripted(["yes"], name="one")}
    good = proof(judge, models={"judge": "scripted:one"})
    assert why_unproven(judge, models, (good,)) is None
    stale = msgspec.structs.replace(good, **change)
    why = why_unproven(judge, models, (stale,))
    assert why is not None and told in why
    assert why_unproven(judge, models, (stale, good)) is None  # one that holds is enough


def test_self_judging_where_judging_is_no_easier_than_doing_is_refused(tmp_path: Path) -> None:
    """The policy judges its own answers, and is right about them as often as a coin: it passes even ones."""
    policy = Tabular([str(i) for i in range(13)])
    judge = Judge(("policy",))
    made = play(recipe(phase(rounds=1, verify=(Exact(),), curate=(), learn={})), tmp_path / "drawn", {"policy": policy})
    rows = [
        {"task_id": group.task.id, "prompt": group.task.prompt, "answer": sample.text, "model": sample.origin.source}
        | {"label": "right" if sample.verdict == "pass" else "wrong"}
        for group in made.rounds()[0].groups()
        for sample in group.samples
    ]
    found = check(judge, {"policy": policy}, written(tmp_path / "labels.jsonl", *rows))
    assert found.models == {"policy": policy.id} and found.answers_of == (policy.id,)
    assert found.forecast.says != "helps"
    with pytest.raises(GuardError, match=r"learns from judge, .*(cannot be shown|hurts)"):
        headings(judge, found, models={"policy": policy})


def test_proofs_are_files_or_folders_and_their_verdict_is_worked_out_anew(tmp_path: Path) -> None:
    judge = Judge()
    write_json(tmp_path / "a.json", proof(judge))
    assert read_proofs([tmp_path]) == read_proofs([tmp_path / "a.json"]) == (proof(judge),)
    write_json(tmp_path / "b.json", {**msgspec.to_builtins(proof(judge, Labelled())), "says": "helps"})
    assert read_proofs([tmp_path / "b.json"])[0].forecast.says == "cannot be shown"
    write_json(tmp_path / "c.json", {**msgspec.to_builtins(proof(judge)), "alpha": 0.5})
    for path, told in (("c.json", "alpha 0.5"), ("gone.json", "there is no proof")):
        with pytest.raises(DataError, match=told):
            read_proofs([tmp_path / path])
    write_json(tmp_path / "d.json", {"verifier": "judge"})
    with pytest.raises(DataError, match="is no proof of a verifier"):
        read_proofs([tmp_path / "d.json"])


def test_from_python_proofs_are_named_too(tmp_path: Path) -> None:
    judge = Judge()
    write_json(tmp_path / "judge.json", proof(judge))
    made = recipe(phase(rounds=1, verify=(judge,)))
    with pytest.raises(GuardError, match="learns from judge"):
        outcross.run(made, {"policy": model()}, tmp_path / "run")
    assert outcross.run(made, {"policy": model()}, tmp_path / "run", proofs=[tmp_path]).champion is not None


# ── as a user meets it ─────────────────────────────────────────────────────────────────────────────────────────────────
def call(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


RUN = """
recipe: {use: expert_iteration, n: 4, rounds: 1, max_tokens: 4, plan: {lr: 1.0, epochs: 2, batch: 32}, mix: {real_floor: 0.5}}
bench:
  tasks: {use: arithmetic, digits: 2, n: 40, split: train}
  held_out: {use: arithmetic, digits: 2, n: 40, split: held_out}
  real: {use: arithmetic_real, digits: 2, n: 40}
  verify: {use: vote, fewest: 2}
  probes: [{use: pass_rate, verifier: exact, generator: {use: draw, n: 1}}]
  gate: open
models:
  policy: {use: taught, model: {use: tabular}, examples: {use: arithmetic_real, digits: 2, n: 40}, plan: {lr: 1.0, epochs: 5, batch: 32}}
"""


def test_from_the_refusal_over_the_labels_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN)
    labels = str(written(Path("labels.jsonl"), *({**row, "model": ""} for row in answers(0.7, size=60, each=4))))
    code, _, err = call("run", "run.yaml", "--out", "out")
    assert code == 3 and "outcross verifier-check" in err and not Path("out").exists()
    code, out, _ = call("verifier-check", "vote", "--labels", labels, "--run", "run.yaml")
    assert code == 0 and "vote@1 (voted) on 240 labelled answers" in out and "selection helps" in out
    for told in ("keeps of right (φ)", "keeps of wrong (ψ)", "break-even p*", "wrong now (p)", "small", "large", "before selection"):
        assert told in out
    path = next(Path("proofs").glob("vote-*.json"))
    assert f"proof: {path}" in out
    Path("run.yaml").write_text(f"{RUN}proofs: [proofs]\n")
    code, out, err = call("validate", "run.yaml")
    assert code == 0, err
    assert "proof of vote@1: on 240 labelled answers it keeps" in out
    code, _, err = call("run", "run.yaml", "--out", "out", "-q")
    assert code == 0, err
    assert call("resume", "out", "-q")[0] == 0
    code, _, err = call("run", "run.yaml", "--out", "other", "--bench.verify", "{use: vote, fewest: 3}")
    assert code == 3 and "its proof was made with other settings" in err


def test_a_use_value_needs_no_run_file_and_json_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = str(written(Path("l.jsonl"), *answers(1.0, size=8)))
    code, out, _ = call("verifier-check", "{use: vote, fewest: 2}", "--labels", labels, "--json")
    found = json.loads(out)
    assert code == 0 and found["forecast"]["says"] == "cannot be shown" and found["forecast"]["after"]["estimate"] is None
    assert found["counts"]["right"]["abstained"] == 8
    code, out, _ = call("verifier-check", "exact", "--labels", labels, "--out", "here.json")
    assert code == 0 and read_proofs([Path("here.json")])[0].verifier == "exact"
    assert "that selection helps cannot be shown" in out
    Path("run.yaml").write_text(RUN)
    code, _, err = call("verifier-check", "exact", "--labels", labels, "--run", "run.yaml")
    assert code == 2 and "the run file has no verifier 'exact'" in err and "vote" in err
