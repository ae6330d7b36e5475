"""Where rows come from: each rule, their order, what no rule knows, and files that were changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcross.config.bind import Place, bind_value
from outcross.errors import ConfigError, DataError
from outcross.provenance import (
    NO_RULE,
    CollectedBefore,
    Finding,
    FromSource,
    Registered,
    Rule,
    Signed,
    count_by_rule,
    judge,
    judge_of,
    last_day,
    real_share,
)
from outcross.recipe import fingerprint
from outcross.tasks.files import RealFiles

CHATGPT = date(2022, 11, 30)
WIKI = FromSource(("wikipedia", "books-*"))
BEFORE = CollectedBefore(CHATGPT)


def origin(row: dict[str, Any], *rules: Rule, files: tuple[Path, ...] = ()) -> tuple[str, str]:
    found = judge(row, rules, files)
    return found.kind, found.proof


# ── rows ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("value", "known"),
    [("wikipedia", True), ("books-1923", True), ("Wikipedia", False), ("wikipedia-clone", False), ("", False), (None, False), (7, False)],
)
def test_a_source_is_known_by_name_or_pattern(value: object, known: bool) -> None:
    assert origin({"source": value}, WIKI) == (("real", "attested") if known else ("unknown", "none"))


def test_rules_read_the_column_that_they_name_and_may_say_synthetic() -> None:
    rule = FromSource(("gpt-*",), column="model", kind="synthetic")
    assert judge({"model": "gpt-4"}, [rule]) == Finding("synthetic", "attested", "model is gpt-*")
    assert judge({"source": "gpt-4"}, [rule]) == NO_RULE
    assert not judge({"model": "gpt-4"}, [rule]).is_real and not NO_RULE.is_real and judge({"source": "wikipedia"}, [WIKI]).is_real


@pytest.mark.parametrize(
    ("value", "last"),
    [
        ("2022-11-29", date(2022, 11, 29)),
        ("2022-11", date(2022, 11, 30)),  # the month ends on the day itself, and so is not before it
        ("2022-10", date(2022, 10, 31)),
        ("2020-02", date(2020, 2, 29)),
        ("2021", date(2021, 12, 31)),
        (2021, date(2021, 12, 31)),
        ("2022-11-29T23:30:00-05:00", date(2022, 11, 30)),  # in UTC
        ("2022-11-29 23:30:00", date(2022, 11, 29)),
        (1_600_000_000, date(2020, 9, 13)),
        (datetime(2022, 11, 29, 12, tzinfo=UTC), date(2022, 11, 29)),
        (date(2019, 5, 1), date(2019, 5, 1)),
        *((value, None) for value in (None, "", "soon", "12/01/2020", "2020-13", "2020-02-30", "2020-1-5", True, 3.7, 20201105, [2020])),
    ],
)
def test_a_time_is_as_late_as_it_may_be_and_what_cannot_be_read_is_no_time(value: object, last: date | None) -> None:
    assert last_day(value) == last
    early = last is not None and last < CHATGPT
    assert origin({"collected": value}, BEFORE) == (("real", "attested") if early else ("unknown", "none"))


def test_a_missing_day_is_not_early() -> None:
    assert judge({"text": "x"}, [BEFORE]) == NO_RULE
    assert judge({"date": "2020-01-01"}, [CollectedBefore(CHATGPT, column="date")]).rule == "date is before 2022-11-30"


@given(st.dates(date(1000, 1, 1)), st.dates(date(1000, 1, 1)))
def test_days_compare_as_days(day: date, limit: date) -> None:
    assert judge({"collected": day.isoformat()}, [CollectedBefore(limit)]).is_real == (day < limit)


# ── order and counts ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_first_rule_that_holds_decides() -> None:
    bots = FromSource(("books-bot",), kind="synthetic")
    row = {"source": "books-bot", "collected": "2020-01-01"}
    assert [judge(row, rules).kind for rules in ([bots, WIKI, BEFORE], [WIKI, bots], [BEFORE, bots])] == ["synthetic", "real", "real"]


def test_unknown_counts_as_synthetic_and_shares_are_told_by_rule() -> None:
    rows: list[dict[str, object]] = [{"source": "wikipedia"}] * 3 + [{"collected": "2019"}] * 2 + [{"source": "?", "collected": "2024"}] * 5
    counts = count_by_rule(iter(rows), [BEFORE, WIKI])
    assert {finding.rule: count for finding, count in counts.items()} == {
        "collected is before 2022-11-30": 2,
        "source is wikipedia or books-*": 3,
        "no rule": 5,
    }
    assert list(counts)[-1] == NO_RULE and real_share(counts) == 0.5
    assert count_by_rule(rows, []) == {NO_RULE: 10} and real_share({}) == 0.0


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("algorithm", ["sha256", "blake2b"])
def test_a_registered_file_is_proved_and_one_changed_byte_makes_it_unknown(algorithm: str, tmp_path: Path) -> None:
    path = tmp_path / "release.jsonl"
    path.write_text('{"text": "by people"}\n')
    rule = Registered(("0" * 64, hashlib.new(algorithm, path.read_bytes()).hexdigest().upper()))
    assert judge({}, [rule], [path]) == Finding("real", "proved", "file is registered")
    path.write_text('{"text": "by People"}\n')
    assert judge({}, [rule], [path]) == NO_RULE
    assert judge({}, [rule]) == NO_RULE  # a row of no file


@pytest.mark.parametrize("wrong", ["", "abc", "g" * 64])
def test_what_is_no_hash_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="no registered hash"):
        Registered((wrong,))


def key(folder: Path, name: str) -> tuple[Path, str]:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("signatures are checked by OpenSSH's ssh-keygen; install it to run this")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True)
    return folder / name, (folder / f"{name}.pub").read_text()


def sign(path: Path, with_key: Path) -> None:
    path.with_name(path.name + ".sig").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", str(with_key), "-n", "file", str(path)], check=True, capture_output=True)


def test_a_signature_proves_and_another_key_or_none_does_not(tmp_path: Path) -> None:
    alice, alice_public = key(tmp_path, "alice@example.org")
    mallory, _ = key(tmp_path, "mallory")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "by people"}\n')
    rule = Signed(alice_public)
    assert judge({}, [rule], [path]) == NO_RULE
    sign(path, alice)
    assert judge({}, [rule], [path]) == Finding("real", "proved", "signed by alice@example.org")
    other = tmp_path / "others.jsonl"
    other.write_text("{}\n")
    assert judge({}, [rule], [path, other]) == NO_RULE  # one of the files is not signed
    sign(path, mallory)
    assert judge({}, [rule], [path]) == NO_RULE


def test_a_file_that_was_changed_after_it_was_signed_is_refused(tmp_path: Path) -> None:
    alice, public = key(tmp_path, "alice")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "by people"}\n')
    sign(path, alice)
    path.write_text('{"text": "by a model"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl does not fit its signature rows.jsonl.sig"):
        judge_of([Signed(public)], [path])
    path.with_name("rows.jsonl.sig").write_text("nonsense")
    with pytest.raises(DataError, match="does not fit its signature"):
        judge_of([Signed(public)], [path])


def test_a_signature_made_for_another_purpose_does_not_count(tmp_path: Path) -> None:
    alice, public = key(tmp_path, "alice")
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", str(alice), "-n", "git", str(path)], check=True, capture_output=True)
    with pytest.raises(DataError, match="does not fit"):
        judge({}, [Signed(public)], [path])


def test_without_openssh_signatures_are_not_taken_on_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    (tmp_path / "rows.jsonl.sig").write_text("…")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="ssh-keygen, which is not installed"):
        judge({}, [Signed("ssh-ed25519 AAAA alice")], [path])


@pytest.mark.parametrize("wrong", ["", "ssh-ed25519", "ssh-ed25519 AAAA a\nssh-ed25519 BBBB b"])
def test_a_key_is_one_line(wrong: str) -> None:
    with pytest.raises(ConfigError, match="one line of a public key"):
        Signed(wrong)


# ── in a run file, and in the reader of real rows ──────────────────────────────────────────────────────────────────────
def test_rules_are_settings_of_a_run_file() -> None:
    raw = [
        {"source": ["wikipedia", "books-*"]},
        {"collected_before": "2022-11-30", "column": "date"},
        {"registered": ["a" * 64]},
        {"signed_by": "ssh-ed25519 AAAA alice", "kind": "synthetic"},
    ]
    found = bind_value(raw, tuple[Rule, ...], Place("rules", Path()), {}).make()
    expected = (WIKI, CollectedBefore(CHATGPT, "date"), Registered(("a" * 64,)), Signed("ssh-ed25519 AAAA alice", kind="synthetic"))
    assert found == expected
    with pytest.raises(ConfigError, match=r"did you mean 'source'"):
        bind_value([{"sauce": ["wikipedia"]}], tuple[Rule, ...], Place("rules", Path()), {})


def test_real_files_judge_each_row_and_the_rest_is_as_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "real.jsonl"
    rows = [
        {"prompt": "1?", "completion": "1", "source": "wikipedia"},
        {"prompt": "2?", "completion": "2", "source": "gpt-4"},
        {"prompt": "3?", "completion": "3", "source": "blog", "collected": "2015"},
        {"prompt": "4?", "completion": "4"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = (FromSource(("gpt-*",), kind="synthetic"), WIKI, BEFORE)
    found = [example.origin for example in RealFiles(path, rules=rules)]
    assert [(one.kind, one.proof) for one in found] == [
        ("real", "attested"), ("synthetic", "attested"), ("real", "attested"), ("unknown", "none")]  # fmt: skip
    assert [one.is_real for one in found] == [True, False, True, False]
    assert found[0].note == "source is wikipedia or books-*"
    vouched = [example.origin for example in RealFiles(path, rules=rules, attested="the school, 2019")]
    assert [one.is_real for one in vouched] == [True, False, True, True] and vouched[3].note == "the school, 2019"


def test_rules_are_part_of_what_the_data_are_and_no_rules_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "real.jsonl"
    path.write_text('{"prompt": "1?", "completion": "1"}\n')
    known = {fingerprint(RealFiles(path, rules=rules)) for rules in ((), (WIKI,), (BEFORE,), (CollectedBefore(date(2021, 1, 1)),))}
    assert len(known) == 4
    found = RealFiles(path).identity()
    assert isinstance(found, dict) and "rules" not in found
