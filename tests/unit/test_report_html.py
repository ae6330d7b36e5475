"""The report as a page: one offline file, well formed, small, escaped, and with the numbers of the record."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from records import FOUR, HOSTILE, Builder, Level, Turnout

from outcross.engine.store import RunDir
from outcross.errors import ConfigError, StoreError
from outcross.report import numbers as n
from outcross.report.compare import Contrast
from outcross.report.html import LARGEST, write_report

UP = tuple(Turnout("promoted", Level(rate, 2.31)) for rate in (0.5, 0.6, 0.7))
FLAT = tuple(Turnout("promoted", Level(rate, 2.31)) for rate in (0.41, 0.42, 0.42))
DOWN = tuple(Turnout("promoted", Level(rate, loss, -0.5)) for rate, loss in ((0.35, 2.5), (0.3, 2.8), (0.2, 3.2)))
Arms = list[RunDir]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, str]:
    folder = tmp_path_factory.mktemp("single")
    run = Builder(folder / "run", headings=("no real anchor: the bench holds no real data",)).write()
    return run, page([run], folder / "out" / "report.html")


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Arms:
    folder = tmp_path_factory.mktemp("arms")
    replace = Builder(folder / "c", DOWN, "replace", 3, gated=False, headings=("ungated: phase train promotes without a test",))
    return [Builder(folder / "a", UP, "guarded", 3).write(), Builder(folder / "b", FLAT, "real-only", 3).write(), replace.write()]


def page(runs: list[RunDir], path: Path, *contrasts: Contrast) -> str:
    write_report(runs, path, contrasts)
    return path.read_text(encoding="utf-8")


def body(text: str) -> ET.Element:
    found = ET.fromstring(text.removeprefix("<!DOCTYPE html>\n")).find("body")
    assert found is not None
    return found


def words(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).replace("\u00a0", " ").split())


def section(text: str, after: Callable[[ET.Element], bool]) -> ET.Element:
    return next(element for element in body(text).iter() if after(element))


def rows(element: ET.Element) -> list[list[str]]:
    return [[words(cell) for cell in row] for row in element.iter("tr")]


def test_the_page_is_well_formed_offline_and_small(single: tuple[RunDir, str]) -> None:
    _, text = single
    tree = ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    assert len(text.encode()) < 120_000
    assert any(element.attrib.get("content", "").startswith("default-src 'none';") for element in tree.iter("meta"))
    assert "prefers-color-scheme: dark" in text
    assert {element.tag for element in tree.iter()}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "form", "base", "audio", "video"}
    )
    for element in tree.iter():
        assert not any(name.startswith("on") or name in ("src", "style", "action", "srcset") for name in element.attrib)
        assert element.attrib.get("href", "#").startswith("#")
    assert not re.search(r"https?:|@import|url\(", text)


def test_the_verdict_and_headings_come_first(single: tuple[RunDir, str]) -> None:
    read = words(body(single[1]))
    verdict, heading, probes = (read.index(piece) for piece in ("Promoted 2 of 4 rounds", "No real anchor", "Probes on held-out items"))
    assert verdict < heading < probes


def test_text_of_samples_is_shown_and_does_nothing(single: tuple[RunDir, str]) -> None:
    _, text = single
    assert "<script" not in text and "<img" not in text and "\x1b" not in text and "\x00" not in text
    shown = [words(element) for element in body(text).iter("pre")]
    assert any('</pre><script>alert("owned")</script><img src=x onerror=alert(1)> & ␀␛[31m' in piece for piece in shown)
    cut = [piece for piece in shown if "characters shown]" in piece]
    assert cut and f"[500 of {len(HOSTILE) * 40:,} characters shown]" in cut[0] and max(map(len, shown)) < 600


def test_counts_of_a_round_are_those_of_the_record(single: tuple[RunDir, str]) -> None:
    run, text = single
    parts = [element for element in body(text).iter("details") if words(element).startswith("train/")]
    assert len(parts) == 4
    for item, part in zip(run.rounds(), parts):
        flow = rows(next(part.iter("table")))[1:]
        counts = item.record["counts"]
        assert [row[0] for row in flow] == [f"{count['stage']} · {count['name']}" for count in counts]
        for row, count in zip(flow, counts):
            assert list(map(int, row[1:5])) == [count[name] for name in ("in", "kept", "dropped", "failed")]
            assert count["in"] == count["kept"] + count["dropped"] + count["failed"]


def test_the_gates_reasoning_is_that_of_the_record(single: tuple[RunDir, str]) -> None:
    run, text = single
    refused = next(element for element in body(text).iter("details") if words(element).startswith("train/0001"))
    assert "The gate's reasoning: refuse" in words(refused) and "real_loss is not shown to be non-inferior" in words(refused)
    decision = run.rounds()[1].decision
    assert decision is not None
    table = next(rows(table) for table in refused.iter("table") if "against" in words(table))[1:]
    for row, check in zip(table, decision.checks, strict=True):
        unit = {"pass_rate": "share", "real_loss": "nats per token"}.get(check.probe, "nats over real")
        assert row[:2] == [n.words(check.probe), check.against]
        assert row[2:4] == [n.signed(check.estimate, unit), n.difference(check.low, unit)]
        assert row[6:10] == ["0.0125", "83.0 %", str(check.items), "pass" if check.passed else "fail"]


def test_samples_carry_their_lineage_and_drops_their_reason(single: tuple[RunDir, str]) -> None:
    run, text = single
    first = next(element for element in body(text).iter("details") if words(element).startswith("train/0000"))
    sample = next(iter(run.rounds()[0].groups())).samples[0]
    card = words(next(element for element in first.iter("article") if sample.id in words(element)))
    for piece in (f"task {sample.origin.parents[0]}", n.short(sample.origin.source), "depth 1, in train/0000", "by exact@3"):
        assert piece in card
    drops = next(rows(table) for table in first.iter("table") if "curator" in words(table))
    dropped = run.rounds()[0].record["counts"][3]["dropped"]
    assert drops[1] == ["dedup", "duplicate", str(dropped)]


def test_probes_show_the_numbers_of_the_record(single: tuple[RunDir, str]) -> None:
    run, text = single
    table = next(rows(table) for table in body(text).iter("table") if "first champion" in words(table))
    assert table[1][:4] == ["pass rate", "quality", "43.5 %", "69.8 %"] and table[1][-1] == "better"
    titles = [words(title) for title in body(text).iter("title")]
    for item in run.rounds():
        for found in item.record["measurements"].values():
            unit = found["unit"]
            value = n.with_unit(found["candidate"], unit).replace("\u00a0", " ")
            assert any(title.startswith(f"{item.label}: candidate {value}, 95 %") for title in titles)


def test_mixtures_show_shares_by_origin_with_their_floor(single: tuple[RunDir, str]) -> None:
    run, text = single
    drawing = next(svg for svg in body(text).iter("svg") if svg.findtext("title", "").startswith("real and synthetic"))
    mixed = run.rounds()[0].record["mixtures"]["policy"]
    titles = [words(title) for title in drawing.iter("title")]
    proved = sum(part["tokens"] for part in mixed["parts"] if part["proof"] == "proved")
    assert f"real, proved: {proved:,.0f} tokens, {100 * proved / mixed['tokens']:.1f} %" in titles
    assert len([line for line in drawing.iter("line") if line.attrib["class"] == "floor"]) == 6
    assert "At least 70.0 % of either must be real" in words(body(text))


def test_environment_and_configuration_are_folded_away(single: tuple[RunDir, str]) -> None:
    folded = {
        words(element.find("summary")): words(element) for element in body(single[1]).iter("details") if element.find("summary") is not None
    }  # type: ignore[arg-type]
    assert "2.6.0" in folded["versions, models and verifiers"] and "version 3, exact" in folded["versions, models and verifiers"]
    assert "real_floor: 0.7" in folded["resolved configuration"]
    assert all("open" not in element.attrib for element in body(single[1]).iter("details"))


def test_several_runs_are_headed_by_their_paired_difference(arms: Arms, tmp_path: Path) -> None:
    text = page(arms, tmp_path / "arms.html")
    read = words(body(text))
    last = {run: run.rounds()[-1].measurements()["pass_rate"] for run in arms}
    gap = sum(last[arms[0]].values) / 400 - sum(last[arms[1]].values) / 400
    headline = re.search(
        r"Guarded ends ([\d.]+) points above real-only in pass rate \(95 % interval \+([\d.]+) to \+([\d.]+), paired over 400", read
    )
    assert headline and float(headline[1]) == pytest.approx(100 * gap, abs=0.051)
    assert float(headline[2]) < 100 * gap < float(headline[3])
    chart = next(body(text).iter("svg"))
    labels = [label.text or "" for label in chart.iter("text") if "label" in label.attrib["class"]]
    assert sorted(label.split()[0] for label in labels) == ["guarded", "real-only", "replace"]
    assert len(list(chart.iter("polyline"))) == 3 and "ungated: phase train promotes without a test" in read
    assert len([element for element in body(text).iter("details") if element.attrib.get("class") == "run"]) == 3


def test_contrasts_are_asked_for_by_name(arms: Arms, tmp_path: Path) -> None:
    text = page(arms, tmp_path / "arms.html", Contrast("real-only", "replace", "what real data keeps"), Contrast("replace", "guarded"))
    assert "Real-only ends" in words(body(text)) and "what real data keeps real-only − replace" in words(body(text))
    table = next(rows(table) for table in body(text).iter("table") if "contrast" in words(table))
    assert len(table) == 3 and table[2][1].startswith("−")
    with pytest.raises(ConfigError, match=r"no run of this report is called 'guard'; did you mean 'guarded'\?"):
        page(arms, tmp_path / "arms.html", Contrast("guard", "replace"))


def test_equal_runs_show_no_difference_and_keep_apart_by_folder(tmp_path: Path) -> None:
    twins = [Builder(tmp_path / name, UP, "twin", 3).write() for name in ("one", "two")]
    read = words(body(page(twins, tmp_path / "twins.html")))
    assert "No difference shown in pass rate between one and two: 0.0 points" in read


def test_unfinished_runs_and_runs_that_learnt_nothing_have_a_page(tmp_path: Path) -> None:
    for name, turnouts in (("none", ()), ("nothing", (Turnout("nothing learnt"),)), ("data", (Turnout("data only"),))):
        run = Builder(tmp_path / name, turnouts, planned=2).write()
        read = words(body(page([run], tmp_path / f"{name}.html")))
        assert "Unfinished" in read and "Environment and configuration" in read
    assert "Unfinished" in words(body(page([RunDir(tmp_path / name) for name in ("none", "nothing")], tmp_path / "both.html")))


def test_a_large_record_is_cut_to_the_hard_cap_and_says_so(tmp_path: Path) -> None:
    many = tuple(FOUR[number % 2] for number in range(64))
    big = {f"key_{number}": "<&>" * 100 for number in range(2000)}
    run = Builder(tmp_path / "run", many, planned=64, config=big, headings=("<" * 50_000,), padding='"' * 2000).write()
    text = page([run], tmp_path / "report.html")
    assert len(text.encode()) <= LARGEST == 2_000_000
    assert "This page was shortened to stay below 2 MB" in text and body(text) is not None
    assert "Shown in full: the last" in words(body(text))


def test_more_runs_than_a_page_can_hold_no_run_and_no_record_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Builder(tmp_path / "run", FOUR[:1]).write()
    monkeypatch.setattr("outcross.report.html.LARGEST", 20_000)
    with pytest.raises(ConfigError, match="name fewer runs"):
        write_report([run, run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ConfigError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(StoreError, match=r"is .* the folder of an Outcross run"):
        write_report([RunDir(tmp_path)], tmp_path / "report.html")
