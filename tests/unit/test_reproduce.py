"""`outcross reproduce`: what it prints, keeps, goes on with, and shows on its page."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from outcross.cli.main import app
from outcross.errors import ConfigError
from outcross.lab.claim import Claim, Estimate
from outcross.lab.curves import PICTURES
from outcross.report.reproduce import Panel, PanelLine, Row, render
from outcross.reproduce.claims import CLAIMS, TRAINED, find
from outcross.reproduce.run import Study

QUICK = ("minority-temperature", "absorption-half", "kuhn-value")


def call(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["reproduce", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def counted(asked: list[str], name: str, kind: str = "identity", **fields: object) -> Claim:
    """A claim that notes when it is measured."""

    def measure(replicates: int, rng: np.random.Generator) -> Estimate:
        asked.append(name)
        return Estimate(1.0, float(rng.normal(1, 1e-4)), 1e-4)

    return Claim(name, "a paper", "a table", None, kind, "what it is", measure, **fields)  # type: ignore[arg-type]


def study(folder: Path, scale: str = "toy", seed: int = 0, data: Path | None = None) -> Study:
    return Study(folder, scale, seed, data)  # type: ignore[arg-type]


# ── the list ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_list_shows_every_claim_with_its_cost_and_counts_each_kind() -> None:
    code, out, _ = call("--list")
    assert code == 0
    lines = {words[0]: line for line in out.splitlines() if (words := line.split())}
    for item in CLAIMS:
        assert item.paper in lines[item.name] and item.place in lines[item.name] and item.what in lines[item.name]
    assert "not run" in lines["opt-125m-fine-tuned"] and "from small on" in lines["gerstgrasser-text-replace"]
    tally = out.splitlines()[-1]
    for kind in ("identity", "direction", "magnitude", "cited"):
        assert f"{kind} {sum(item.kind == kind for item in CLAIMS)}" in tally


def test_the_cost_grows_with_the_scale_and_shared_lineages_are_paid_once(tmp_path: Path) -> None:
    replace, below = find(["gerstgrasser-text-replace", "kazdan-text-below-replace"])
    small, full = study(tmp_path, "small"), study(tmp_path, "full")
    assert full.expected_seconds(replace) == 5 * small.expected_seconds(replace) > 300
    known = frozenset(replace.lineages)  # type: ignore[attr-defined]
    assert small.expected_seconds(below, known) < small.expected_seconds(below)
    assert small.expected_seconds(find(["kuhn-value"])[0]) == 10 * find(["kuhn-value"])[0].seconds


def test_claims_of_every_kind_have_a_name_of_their_own() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.kind for claim in TRAINED} == {"direction", "magnitude"}
    for claim in TRAINED:
        assert (claim.kind == "magnitude") == (claim.published is not None) and claim.lineages


# ── a run ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_run_prints_theory_paper_ours_and_verdict(tmp_path: Path) -> None:
    code, out, err = call(*QUICK, "--out", str(tmp_path))
    assert code == 0, err
    assert "1/3 minority-temperature, about" in err and "report.html" in err
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    _, kind, theory, ours, *_, verdict = lines["minority-temperature"]
    assert (kind, verdict) == ("identity", "holds")
    assert float(theory) == pytest.approx(0.00466, rel=1e-3) == float(ours)
    assert lines["absorption-half"][2:4] == ["0.5", "0.5"] and "±" in lines["absorption-half"]
    assert "(exact)" in lines["kuhn-value"]
    assert out.splitlines()[-1] == "identity: holds 3"


def test_json_is_what_stands_in_the_folder_with_seed_and_versions(tmp_path: Path) -> None:
    code, out, _ = call("minority-drift", "--seed", "3", "--out", str(tmp_path), "--json")
    found = json.loads(out)
    assert code == 0 and found == json.loads((tmp_path / "toy-3" / "results.json").read_text())
    (claim,) = found["claims"]
    assert (found["seed"], claim["seed"], claim["scale"], claim["replicates"]) == (3, 3, "toy", 20_000)
    assert claim["low"] < claim["ours"] < claim["high"] and claim["versions"].keys() >= {"outcross", "numpy", "python"}
    assert claim["ours"] == find(["minority-drift"])[0].run("toy", 3).ours


def test_finished_claims_are_not_run_again(tmp_path: Path) -> None:
    asked: list[str] = []
    claims = [counted(asked, "one"), counted(asked, "two")]
    first = study(tmp_path).run(claims, lambda text: None)
    told: list[str] = []
    again = study(tmp_path).run(claims, told.append)
    assert asked == ["one", "two"] and told == ["1/2 one: finished before", "2/2 two: finished before"]
    assert [entry.result for entry in again] == [entry.result for entry in first]
    study(tmp_path, seed=1).run(claims, told.append)
    study(tmp_path, "small").run(claims[:1], told.append)
    assert asked == ["one", "two", "one", "two", *["one"] * 10]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    asked: list[str] = []
    claims = [counted(asked, name) for name in ("one", "two", "three")]

    def killed_at_three(text: str) -> None:
        if "3/3" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(tmp_path).run(claims, killed_at_three)
    assert asked == ["one", "two"]
    assert [item["name"] for item in json.loads((tmp_path / "toy-0" / "results.json").read_text())["claims"]] == ["one", "two"]
    entries = study(tmp_path).run(claims, lambda text: None)
    assert asked == ["one", "two", "three"] and [entry.verdict for entry in entries] == ["holds"] * 3


@pytest.mark.parametrize("change", ["version", "replicates"])
def test_what_another_version_or_claim_found_is_found_anew(tmp_path: Path, change: str) -> None:
    asked: list[str] = []
    claim = counted(asked, "one")
    study(tmp_path).run([claim], lambda text: None)
    path = tmp_path / "toy-0" / "claims" / "one.json"
    if change == "version":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": {"outcross": "0.0.0"}}))
    else:
        claim = dataclasses.replace(claim, replicates=9)
    study(tmp_path).run([claim], lambda text: None)
    assert asked == ["one", "one"]


def test_progress_tells_what_is_left(tmp_path: Path) -> None:
    told: list[str] = []
    claims = [counted([], "long", seconds=240.0), counted([], "short", seconds=30.0), find(["gerstgrasser-text-cold"])[0]]
    study(tmp_path).run(claims, told.append)
    assert told[0] == "1/3 long, about 4 min left"
    assert told[1] == "2/3 short, about 0 s left"  # it went far quicker than expected
    assert told[2] == "3/3 gerstgrasser-text-cold: not run, trained models begin at --scale small"


# ── what cannot be run ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("words", [(), ("--list", "kuhn-value"), ("--list", "--all"), ("--all", "kuhn-value")])
def test_without_a_choice_nothing_is_run(words: tuple[str, ...]) -> None:
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert "--list shows all claims" in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("gaussian-varience",), "did you mean 'gaussian-variance'?"),
        (("opt-125m-fine-tuned",), "is cited only"),
        (("gerstgrasser-text-cold",), "trained models begin at --scale small"),
        (("gerstgrasser-text-cold", "--scale", "small"), "it needs data: --data FOLDER"),
        (("gerstgrasser-text-cold", "--scale", "small", "--data", "{folder}"), "lacks tinystories/tinystories_sample.txt"),
        (("--all", "--data", "{folder}/nowhere"), "there is no folder"),
    ],
)
def test_a_claim_that_cannot_be_run_is_refused_by_name_before_anything_is_spent(tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    code, out, err = call(*(word.format(folder=tmp_path) for word in words), "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "") and why in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_all_goes_on_without_what_cannot_be_run(tmp_path: Path) -> None:
    entries = study(tmp_path, "small").run(find(["kuhn-value", "gerstgrasser-text-cold"]), lambda text: None)
    assert [(entry.verdict, entry.why) for entry in entries] == [("holds", ""), ("not run", "it needs data: --data FOLDER")]
    with pytest.raises(ConfigError):
        find(["nothing"])


# ── curves and the page ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("picture", PICTURES, ids=[picture.name for picture in PICTURES])
def test_curves_lie_on_their_theory(picture: object) -> None:
    curve = dataclasses.replace(picture, replicates=min(400, picture.replicates // 5)).curve(1, np.random.default_rng(0))  # type: ignore[type-var,attr-defined]
    by_name = {line.name: line for line in curve.lines}
    assert any(claim.name.startswith(curve.claims) for claim in CLAIMS)
    for line in curve.lines:
        assert len(line.values) == len(curve.x_names)
        base = line.name.removesuffix(", theory").removesuffix("theory")
        owner = by_name.get(base) or curve.lines[0]
        if line.is_theory:
            spread = np.subtract(owner.high, owner.low) / 2
            assert (np.abs(np.subtract(line.values, owner.values)) <= 2.2 * spread + 0.02 * np.abs(line.values)).all()


def test_curves_are_those_of_the_claims_that_were_run_and_are_kept(tmp_path: Path) -> None:
    here = study(tmp_path)
    entries = here.run(find(["minority-drift"]), lambda text: None)
    first = here.curves(entries)
    assert [curve.name for curve in first] == ["minority"]
    assert here.curves(entries) == first and (here.folder / "curves" / "minority.json").exists()


def row(claim: str, verdict: str, **fields: str) -> Row:
    given = {
        "kind": "identity",
        "theory": "1",
        "published": "",
        "ours": "1",
        "what": "<b>what</b>",
        "paper": "P",
        "place": "§1",
        "note": "",
    }
    return Row(claim, verdict=verdict, **{**given, **fields})


def elements(page: str, name: str) -> list[ET.Element]:
    return [item for item in ET.fromstring(page.removeprefix("<!DOCTYPE html>\n")).iter() if item.tag == name]


def text_of(item: ET.Element) -> str:
    return " ".join(" ".join(item.itertext()).split())


def test_the_page_says_first_what_holds_and_shows_what_does_not() -> None:
    rows = [
        row("good", "holds"),
        row("bad", "fails", note="one seed"),
        row("unsure", "undecided"),
        row("far", "not run", note="cited only"),
    ]
    lines = (PanelLine("ours", (1.0, 2.0), (0.9, 1.9), (1.1, 2.1)), PanelLine("ours, theory", (1.0, 2.1)))
    page = render("small", 0, rows, [Panel("A curve", "about it", ("0", "1"), lines)], {"outcross": "1"})
    assert "1 of 3 claims hold; 1 fails and 1 is undecided." in page
    assert "<script" not in page and "http://" not in page and "https://" not in page and "<b>what</b>" not in page
    first, *_ = [table for table in elements(page, "table") if "verdict" in text_of(table)]
    assert "bad" in text_of(first) and "one seed" in text_of(first) and "good" not in text_of(first)
    drawn = [(item.get("class"), item.get("points")) for item in elements(page, "polyline")]
    assert [kind for kind, _ in drawn] == ["dashed s1", "line s1"]  # theory has the colour of what it is the theory of


def test_a_whole_page_is_well_formed_and_small(tmp_path: Path) -> None:
    call("minority-drift", "minority-floor", "--out", str(tmp_path))
    page = (tmp_path / "toy-0" / "report.html").read_text(encoding="utf-8")
    assert "2 of 2 claims hold." in page and len(page) < 100_000
    assert {text_of(item) for item in elements(page, "code")} == {"minority-drift", "minority-floor"}
    assert len(elements(page, "figure")) == 1


def test_no_claim_at_all_makes_a_page_too(tmp_path: Path) -> None:
    assert "No claim was run." in render("toy", 0, [], [], {})
