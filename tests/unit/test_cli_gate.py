"""`gate` and `compare` as a user meets them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_cli import SMALL, call, out_of

from outcross.cli.compare import compared as paired_test
from outcross.engine.store import RunDir
from outcross.types import Measurement

GATED = [*SMALL[:-1], "{use: non_inferior, minimum_items: 50}"]


def toy(folder: Path, words: list[str]) -> Path:
    assert call("init", str(folder))[0] == 0
    code, _, err = call("run", str(folder / "run.yaml"), *words, "--out", str(folder / "run"), "-q")
    assert code == 0, err
    return folder / "run"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose gate refuses: it is small."""
    return toy(tmp_path_factory.mktemp("gated"), GATED)


@pytest.fixture(scope="module")
def ungated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy(tmp_path_factory.mktemp("ungated"), SMALL)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ── gate ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_replay_under_the_runs_own_gate_takes_the_recorded_decisions_and_writes_nothing(ran: Path) -> None:
    before = contents(ran)
    found = json.loads(out_of("gate", str(ran), "--json"))["rounds"]
    assert contents(ran) == before
    recorded = [item.record["decision"] for item in RunDir(ran).rounds()]
    assert len(found) == len(recorded) == 2 and not any(turn["changed"] for turn in found)
    for turn, was in zip(found, recorded, strict=True):
        assert turn["reason"] == was["reason"] and turn["alpha_spent"] == was["alpha_spent"]
        for check, old in zip(turn["checks"], was["checks"], strict=True):
            assert {key: check[key] for key in old} == old
    assert "All 2 decisions stay as they were." in out_of("gate", str(ran))


def test_a_gate_that_would_have_refused_is_told_and_what_comes_after_is_marked(ungated: Path) -> None:
    words = ("--alpha", "0.05", "--margin", "pass_rate=1e-9", "--minimum-items", "100000")
    found = json.loads(out_of("gate", str(ungated), *words, "--json"))["rounds"]
    assert [(turn["was"], turn["would_be"]) for turn in found] == [("promoted", "refused")] * 2
    assert [(turn["changed"], turn["after_change"]) for turn in found] == [(True, False), (True, True)]
    out = out_of("gate", str(ungated), *words)
    assert "was promoted; would be refused" in out and "and at least 100,000 are asked for" in out and "* after a changed" in out
    code, _, err = call("gate", str(ungated))
    assert code == 2 and "state one: --alpha 0.05" in err, "a gate that tests nothing has no alpha to replay with"


def test_wide_margins_would_have_promoted_what_was_refused(ran: Path) -> None:
    wide = [word for probe in RunDir(ran).manifest["probes"] for word in ("--margin", f"{probe['name']}=1000")]
    found = json.loads(out_of("gate", str(ran), *wide, "--json"))["rounds"]
    assert not any(item.promoted for item in RunDir(ran).rounds())
    assert [turn["would_be"] for turn in found] == ["promoted", "promoted"]
    assert all(check["passed"] and check["power"] > 0.99 for turn in found for check in turn["checks"])


def test_alpha_is_split_over_the_rounds_and_a_smaller_one_gives_lower_bounds(ran: Path) -> None:
    wide, narrow = (json.loads(out_of("gate", str(ran), "--alpha", alpha, "--json"))["rounds"] for alpha in ("0.2", "0.002"))
    assert [turn["alpha_spent"] for turn in wide] == pytest.approx([0.1, 0.1])
    pairs = [(a, b) for one, two in zip(wide, narrow, strict=True) for a, b in zip(one["checks"], two["checks"], strict=True)]
    assert pairs and all(a["low"] > b["low"] and a["estimate"] == b["estimate"] for a, b in pairs)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--margin", "pass_rat=0.1"), "did you mean 'pass_rate'"),
        (("--margin", "0.1"), "not of the form probe=number"),
        (("--margin", "pass_rate=-1"), "a positive number"),
        (("--alpha", "2"), "no chance between 0 and 1"),
    ],
)
def test_gate_says_what_is_wrong(words: tuple[str, ...], told: str, ran: Path) -> None:
    code, _, err = call("gate", str(ran), *words)
    assert code == 2 and told in err


# ── compare ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def rows(path: Path, values: list[Any], **more: Any) -> str:
    path.write_text("".join(json.dumps({"id": number, "acc": value, **more}) + "\n" for number, value in enumerate(values)))
    return str(path)


def compared(*words: str) -> dict[str, Any]:
    (found,) = json.loads(out_of("compare", *words, "--json"))["metrics"]
    return found  # type: ignore[no-any-return]


def test_pass_and_fail_are_tested_as_by_mcnemar(tmp_path: Path) -> None:
    # At no difference the score test of pairs is McNemar's: of 100 pairs 20 and 10 differ, z = (20 - 10) / sqrt(30) = 1.826.
    a = rows(tmp_path / "a.jsonl", [1] * 40 + [1] * 20 + [0] * 10 + [0] * 30)
    b = rows(tmp_path / "b.jsonl", [1] * 40 + [0] * 20 + [1] * 10 + [0] * 30)
    found = compared(a, b, "--alpha", "0.05")
    assert found["difference"] == pytest.approx(0.1) and found["items"] == 100 and found["better"] and found["at_least"] > 0
    assert not compared(a, b, "--alpha", "0.03")["better"], "1.826 is beyond the 5 % point of the normal, not the 3 % one (1.881)"
    worse = compared(b, a)
    assert worse["difference"] == pytest.approx(-0.1) and not worse["not_worse"]
    assert (worse["low"], worse["high"]) == pytest.approx((-found["high"], -found["low"]))
    assert compared(b, a, "--margin", "0.25")["not_worse"]


def test_power_is_told_and_a_refusal_may_end_with_its_exit_code(tmp_path: Path) -> None:
    a, b = rows(tmp_path / "a.jsonl", [1, 0, 0, 1] * 50), rows(tmp_path / "b.jsonl", [1, 0, 1, 0] * 50)
    out = out_of("compare", a, b)
    assert "with 200 items a drop under" in out and "are needed" in out and "not shown" in out
    assert call("compare", a, b, "--fail-on-refusal")[0] == 10
    assert call("compare", a, a, "--margin", "0.05", "--fail-on-refusal")[0] == 0
    assert call("compare", a, a, "--margin", "0.05", "--superior", "--fail-on-refusal")[0] == 10


def test_formats_agree(tmp_path: Path) -> None:
    values = [True, False, True, True] * 25
    plain = rows(tmp_path / "plain.jsonl", values)
    (tmp_path / "plain.csv").write_text("id,acc,note\n" + "".join(f"{i},{value},x\n" for i, value in enumerate(values)))
    grades = [{"id": i, "epoch": 1, "scores": {"acc": {"value": "C" if value else "I"}}} for i, value in enumerate(values)]
    (tmp_path / "log.json").write_text(json.dumps({"version": 2, "samples": grades}))
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        for item in grades:
            archive.writestr(f"samples/{item['id']}_epoch_1.json", json.dumps(item))
    for name in ("plain.csv", "log.json", "log.eval"):
        found = compared(str(tmp_path / name), plain)
        assert (found["difference"], found["items"], found["a"], found["unit"]) == (0, 100, 0.75, "share")


def test_samples_of_lm_eval_are_matched_by_document_and_told_apart_by_filter(tmp_path: Path) -> None:
    def log(name: str, document: str, right: int) -> str:
        lines = [
            {
                "doc_id": i,
                "doc_hash": f"{document}{i}",
                "filter": of,
                "metrics": ["exact_match"],
                "exact_match": float(i < right),
                "resps": [],
            }
            for i in range(100)
            for of in ("strict-match", "flexible-extract")
        ]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(tmp_path / name)

    a, b, other = log("samples_a.jsonl", "x", 60), log("samples_b.jsonl", "x", 50), log("samples_c.jsonl", "y", 50)
    found = json.loads(out_of("compare", a, b, "--json"))["metrics"]
    assert [item["metric"] for item in found] == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert [item["difference"] for item in found] == pytest.approx([0.1, 0.1])
    code, _, err = call("compare", a, other)
    assert code == 2 and "share 0 of 200 items" in err and "only in" in err


def test_logs_of_inspect_are_read_as_it_writes_them_today_compressed_by_zstandard(tmp_path: Path) -> None:
    """`inspect_ai/_util/zipfile.py` (0.3.285): members are compressed by method 93, a large one in several frames."""
    import pyarrow as pa

    def log(name: str, right: int) -> str:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(100):
                grade = {"match": {"value": "C" if i < right else "I"}}
                text = json.dumps({"id": i, "epoch": 1, "scores": grade}).encode()
                frames = [pa.compress(part, codec="zstd", asbytes=True) for part in (text[:20], text[20:])]
                archive.writestr(f"samples/{i}_epoch_1.json", b"".join(frames))
        found = path.read_bytes()
        for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # Python 3.11 cannot write the method itself
            pieces = found.split(mark)
            found = mark.join([pieces[0], *(piece[: place - 4] + b"\x5d\x00" + piece[place - 2 :] for piece in pieces[1:])])
        path.write_bytes(found)
        return str(path)

    found = json.loads(out_of("compare", log("a.eval", 60), log("b.eval", 50), "--json"))["metrics"]
    assert [(item["metric"], item["items"]) for item in found] == [("match", 100)]
    assert found[0]["difference"] == pytest.approx(0.1)


def test_a_loss_needs_a_margin_of_its_own_and_says_which_way_is_better(tmp_path: Path) -> None:
    a, b = rows(tmp_path / "a.jsonl", [2.0 + i / 100 for i in range(100)]), rows(tmp_path / "b.jsonl", [2.5 + i / 100 for i in range(100)])
    code, _, err = call("compare", a, b)
    assert code == 2 and "--margin acc=" in err
    assert compared(a, b, "--margin", "0.1", "--lower-is-better")["better"]
    assert not compared(a, b, "--margin", "0.1")["not_worse"]


def test_two_runs_are_compared_by_their_champions_under_the_recorded_margins(ungated: Path) -> None:
    found = {item["metric"]: item for item in json.loads(out_of("compare", str(ungated), str(ungated / "start"), "--json"))["metrics"]}
    run = RunDir(ungated)
    assert {name: item["margin"] for name, item in found.items()} == {probe["name"]: probe["margin"] for probe in run.manifest["probes"]}
    last = run.rounds()[-1].record["measurements"]["pass_rate"]
    assert (found["pass_rate"]["a"], found["pass_rate"]["b"]) == (last["candidate"], last["first"])
    itself = json.loads(out_of("compare", str(ungated), str(ungated), "--json"))["metrics"]
    assert all(item["difference"] == 0 and not item["better"] for item in itself)


def test_more_variety_than_real_data_is_not_called_better() -> None:
    spread = tuple(2 + number / 1000 for number in range(-50, 51))
    a = Measurement("diversity", ("i", "j"), (2.0,), spread, unit="nats over real")
    found = paired_test(
        a, Measurement("diversity", ("i", "j"), (1.0,), tuple(value - 1 for value in spread), unit="nats over real"), 0.1, 0.05, ("A", "B")
    )
    assert found.not_worse and not found.better and "more than real is no merit" in found.note


@pytest.mark.parametrize(
    ("text", "told"),
    [('{"acc": 1}', "no identifier"), ("{", "no JSON"), ('{"id": 1, "acc": NaN}', "finite number"), ('{"id": 1}', "no number by item")],
)
def test_compare_says_what_is_wrong_with_a_file(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(text + "\n")
    code, _, err = call("compare", str(tmp_path / "bad.jsonl"), str(tmp_path / "bad.jsonl"))
    assert code == 2 and told in err
