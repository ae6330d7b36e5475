"""Queries on databases: what is the same result, what is refused, and hostile queries against both engines."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from helpers import context, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.errors import ConfigError, DataError
from outcross.recipe import fingerprint
from outcross.types import Group, Score, Task
from outcross.verify.sql import Sql, is_ordered
from outcross.verify.sql_rows import compared

TABLE = (
    "CREATE TABLE t (id INTEGER, name TEXT, price REAL)",
    "INSERT INTO t VALUES (1, 'a', 0.1), (2, 'b', 0.2), (3, 'b', 0.3), (4, NULL, NULL)",
)
REFERENCE = "SELECT id, name FROM t WHERE price > 0.15"


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'outcross[tables]'")
    folder = tmp_path_factory.mktemp("databases")
    found = {"sqlite": folder / "own.sqlite", "duckdb": folder / "own.duckdb"}
    for connection in (sqlite3.connect(found["sqlite"]), duckdb.connect(str(found["duckdb"]))):
        for statement in TABLE:
            connection.execute(statement)
        connection.commit()
        connection.close()
    return found


@pytest.fixture(params=["sqlite", "duckdb"])
def database(request: pytest.FixtureRequest, databases: dict[str, Path]) -> Path:
    return databases[request.param]


def scores(verifier: Sql, *answers: str, reference: str | None = REFERENCE, **columns: str) -> list[Score]:
    task = Task("t", "", reference, columns=tuple(columns.items()))
    (found,) = verifier(context(Path()), [Group(task, tuple(map(sample, answers, range(len(answers)))))])
    return [item.scores[0] for item in found.samples]


def said(verifier: Sql, *answers: str, **fields: Any) -> list[tuple[str, str]]:
    return [(score.verdict, score.reason) for score in scores(verifier, *answers, **fields)]


# ── results ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_query_passes_when_it_gives_the_same_rows(database: Path) -> None:
    found = scores(
        Sql(database),
        "SELECT id AS x, name AS y FROM t WHERE id IN (2, 3) ORDER BY id DESC",
        "So:\n```sql\nSELECT id, name FROM t WHERE price > 0.15; -- done\n```\nThat is it.",
        "SELECT id, name FROM t",
        "SELECT id, name FROM t WHERE id = 2",
        "SELECT id, upper(name) FROM t WHERE id IN (2, 3)",
        "SELECT id FROM t WHERE price > 0.15",
        "SELECT no_such_column FROM t",
        "no query at all",
        "",
    )
    assert [(item.verdict, item.reason) for item in found] == [
        ("pass", ""), ("pass", ""), ("fail", "a different number of rows"), ("fail", "a different number of rows"), ("fail", "different rows"),
        ("fail", "a different number of columns"), ("fail", "the statement failed"), ("fail", "the statement failed"), ("fail", "no query"),
    ]  # fmt: skip
    assert found[3].evidence == "missing: (3, 'b')" and found[4].evidence == "not expected: (2, 'B'); missing: (2, 'b')"
    assert "no_such_column" in found[6].evidence


def test_the_order_matters_where_the_reference_has_one(database: Path) -> None:
    down, up = "SELECT id FROM t ORDER BY id DESC", "SELECT id FROM t ORDER BY id"
    assert said(Sql(database), down, up, reference=down) == [("pass", ""), ("fail", "the rows are in another order")]
    assert said(Sql(database), down, up, reference="SELECT id FROM t") == [("pass", "")] * 2
    assert said(Sql(database, ordered=False), up, reference=down) == [("pass", "")]
    assert said(Sql(database, ordered=True), up, reference=f"SELECT id FROM ({down}) ORDER BY -id")[0][0] == "fail"
    assert scores(Sql(database), up, reference=down)[0].evidence == "row 1 is (1,), expected (4,)"


def test_names_and_tolerance_are_settings(database: Path) -> None:
    assert [
        v
        for v, _ in said(
            Sql(database, names=True), "SELECT id AS ID, name FROM t WHERE id IN (2, 3)", "SELECT id AS x, name FROM t WHERE id IN (2, 3)"
        )
    ] == ["pass", "fail"]
    reference = "SELECT sum(price) FROM t"
    near, far = "SELECT 0.60000001", "SELECT 0.61"
    assert [v for v, _ in said(Sql(database), near, far, reference=reference)] == ["pass", "fail"]
    assert [v for v, _ in said(Sql(database, tolerance=0.1), near, far, reference=reference)] == ["pass", "pass"]
    assert [v for v, _ in said(Sql(database, tolerance=1), "SELECT 3", reference="SELECT 4")] == ["fail"]


def test_rows_may_be_given_instead_of_a_query(database: Path) -> None:
    verifier = Sql(database, expected="rows")
    rows = json.dumps([[2, "b"], [3, "b"], [4, None]])
    assert said(verifier, "SELECT id, name FROM t WHERE id > 1", "SELECT id, name FROM t", rows=rows) == [
        ("pass", ""), ("fail", "a different number of rows"),
    ]  # fmt: skip
    assert said(verifier, "SELECT 1", rows="{}")[0] == ("error", "the expected rows are not a JSON list of lists")
    assert said(verifier, "SELECT id FROM t WHERE id > 9", rows="[]")[0] == ("pass", "")


def test_what_is_wrong_with_the_task_is_no_failure(database: Path) -> None:
    assert said(Sql(database), "SELECT 1", reference=None)[0] == ("abstain", "the task has no reference query and no expected rows")
    for broken in ("SELECT", "DROP TABLE t", "SELECT 1; SELECT 2"):
        assert said(Sql(database), "SELECT 1", reference=broken)[0] == ("error", "the reference query failed")
    assert said(Sql(database, rows=3), "SELECT 1", reference="SELECT id FROM t")[0] == ("error", "the expected result is too large")


def test_the_database_is_known_by_its_content(databases: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(databases["sqlite"].read_bytes())
    assert fingerprint(Sql(copy)) == fingerprint(Sql(databases["sqlite"])) != fingerprint(Sql(databases["duckdb"]))
    assert fingerprint(Sql(copy, names=True)) != fingerprint(Sql(copy))
    with sqlite3.connect(copy) as connection:
        connection.execute("INSERT INTO t VALUES (9, 'z', 9.0)")
    connection.close()
    assert fingerprint(Sql(copy)) != fingerprint(Sql(databases["sqlite"]))


def test_files_that_are_no_database_are_refused_before_anything_is_read(tmp_path: Path, databases: dict[str, Path]) -> None:
    (tmp_path / "text").write_text("nothing of the kind")
    unfinished = tmp_path / "own.sqlite"
    unfinished.write_bytes(databases["sqlite"].read_bytes())
    (tmp_path / "own.sqlite-wal").write_bytes(b"changes")
    for name, message in (
        ("none", "cannot be read: No such file"),
        ("text", "neither a SQLite nor a DuckDB"),
        ("own.sqlite", "not in the database yet"),
    ):
        with pytest.raises(DataError, match=message):
            Sql(tmp_path / name)(context(Path()), ())
    for field, value in (("seconds", 0), ("rows", 0), ("tolerance", -1), ("memory_mb", 10)):
        with pytest.raises(ConfigError, match=f"{field} is"):
            Sql(unfinished, **{field: value})
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    found = scores(Sql(damaged), "SELECT 1", reference="SELECT 1")[0]
    assert (found.verdict, found.reason) == ("error", "no worker could be used") and "database" in found.evidence


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT 1 ORDER BY 1", True), ("select 1 order\n by 1", True), ("SELECT 1 ORDER -- x\nBY 1", True), ("(SELECT 1) ORDER BY 1", True),
        ("SELECT * FROM (SELECT 1 ORDER BY 1)", False), ("SELECT row_number() OVER (ORDER BY x) FROM t", False), ("SELECT 'ORDER BY'", False),
        ("SELECT 1 -- ORDER BY 1", False), ("SELECT 1 /* ORDER BY 1 */", False), ('SELECT "order by" FROM t', False), ("SELECT $$ ORDER BY $$", False),
        ("WITH a AS (SELECT 1 ORDER BY 1) SELECT * FROM a", False), ("WITH a AS (SELECT 1) SELECT * FROM a ORDER BY 1", True), ("SELECT 'it''s' ORDER BY 1", True),
        ("SELECT disorder by_x", False), ("SELECT [order by] FROM t", False),
    ],
)  # fmt: skip
def test_an_order_counts_only_at_the_end_of_a_query(query: str, ordered: bool) -> None:
    assert is_ordered(query) is ordered


VALUES = st.none() | st.integers(-3, 3) | st.sampled_from([0.0, 0.5, 1.0, 1.0 + 1e-9, 0.5 - 1e-9]) | st.sampled_from(["a", "b", "1"])
ROWS = st.lists(st.tuples(VALUES, VALUES), max_size=5)


@settings(deadline=None)
@given(ROWS, ROWS)
def test_rows_are_the_same_when_some_permutation_is(said: list[Any], expected: list[Any]) -> None:
    def alike(a: Any, b: Any) -> bool:
        floats = [isinstance(item, float) for item in (a, b)]
        if any(floats) and all(isinstance(item, int | float) for item in (a, b)):
            return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
        return bool(a == b)

    def same(one: Any) -> bool:
        return len(one) == len(expected) and all(
            alike(*pair) for rows in zip(one, expected, strict=True) for pair in zip(*rows, strict=True)
        )

    assert (compared(said, expected, ordered=True, tolerance=1e-6)[0] == "pass") == same(said)
    assert (compared(said, expected, ordered=False, tolerance=1e-6)[0] == "pass") == any(map(same, itertools.permutations(said)))


def test_a_partner_is_found_where_sorting_does_not_find_one() -> None:
    said, expected = [(1.0, 2.0), (1.4, 1.0)], [(1.2, 1.1), (0.9, 2.1)]
    assert compared(said, expected, ordered=False, tolerance=0.3)[0] == "pass"
    assert compared([(1.0 + 1e-9, "b"), (1.0, "a")], [(1.0 + 1e-9, "a"), (1.0, "b")], ordered=False, tolerance=1e-6)[0] == "pass"


# ── hostile queries ────────────────────────────────────────────────────────────────────────────────────────────────────
HOSTILE = {
    "attach": "ATTACH '{file}' AS x", "attach and read": "ATTACH '{file}' AS x; SELECT * FROM x.t", "write": "INSERT INTO t VALUES (9, 'x', 1)",
    "update": "UPDATE t SET price = 0", "delete": "DELETE FROM t", "drop": "DROP TABLE t", "create": "CREATE TABLE z (x INTEGER)",
    "create a temporary table": "CREATE TEMP TABLE z AS SELECT 1", "alter": "ALTER TABLE t ADD COLUMN z INTEGER", "vacuum into": "VACUUM INTO '{file}'",
    "vacuum": "VACUUM", "pragma": "PRAGMA writable_schema = ON", "pragma that reads": "PRAGMA database_list", "two statements": "SELECT 1; DROP TABLE t",
    "two statements around a comment": "SELECT 1 /* ; */ ; /* */ DELETE FROM t", "comment only": "-- SELECT id, name FROM t", "unfinished comment": "/* SELECT 1",
    "transaction": "BEGIN", "returning": "DELETE FROM t RETURNING id, name", "with a write": "WITH a AS (SELECT 1) INSERT INTO t SELECT 1, 'x', 2.0",
    "read a file": "SELECT readfile('/etc/passwd'), 1", "write a file": "SELECT writefile('{file}', 'x'), 1", "load an extension": "SELECT load_extension('x'), 1",
    "read text": "SELECT * FROM read_text('/etc/passwd')", "read csv": "SELECT * FROM read_csv('/etc/passwd')", "file as a table": "SELECT * FROM '/etc/passwd'",
    "glob": "SELECT * FROM glob('/*')", "copy to": "COPY t TO '{file}'", "copy from": "COPY t FROM '/etc/passwd'", "install": "INSTALL httpfs", "load": "LOAD httpfs",
    "network": "SELECT * FROM 'https://example.com/x.parquet'", "set": "SET enable_external_access = true", "reset": "RESET lock_configuration",
    "export": "EXPORT DATABASE '{file}'", "call": "CALL pragma_version()", "explain": "EXPLAIN SELECT id, name FROM t", "use": "USE memory",
    "variables of the process": "SELECT * FROM settings", "secrets": "CREATE SECRET x (TYPE s3)", "macro": "CREATE MACRO f(x) AS x",
    "null byte": "SELECT 1\0; DROP TABLE t", "deep": "SELECT " + "(" * 5000 + "1" + ")" * 5000, "many columns": "SELECT " + ",".join(["1"] * 20_000),
    "much text": "SELECT '" + "x" * 99_000 + "', 1", "many unions": " UNION ALL ".join(["SELECT 1, 'x'"] * 3000),
    "pragma as a table": "SELECT name, type FROM pragma_table_info('t')", "schema": "SELECT sql, 1 FROM sqlite_master", "edit": "SELECT edit('x', 'touch {file}'), 1",
}  # fmt: skip
GREEDY = {
    "endless recursion": "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a) SELECT count(*), max(x) FROM a",
    "huge join": "SELECT count(*), sum(a.x * b.x) FROM n AS a, n AS b, n AS c, n AS d WHERE a.x + b.x + c.x + d.x % 7 = 3",
    "sort of everything": "SELECT a.x, b.x FROM n AS a, n AS b, n AS c ORDER BY sin(a.x * b.x * c.x), b.x",
    "huge value": "SELECT randomblob(1000000000), 1",
    "text that doubles": "WITH RECURSIVE a(x) AS (SELECT 'xxxxxxxxxx' UNION ALL SELECT x || x FROM a) SELECT max(x), 1 FROM a",
    "everything in a text": "SELECT group_concat(a.x || b.x || c.x), 1 FROM n AS a, n AS b, n AS c",
}
NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000) "


def test_hostile_queries_fail_and_change_nothing(database: Path, tmp_path: Path) -> None:
    before, file = database.read_bytes(), tmp_path / "planted"
    answers = [answer for name in HOSTILE for answer in (HOSTILE[name].replace("{file}", str(file)), REFERENCE)]
    found = scores(Sql(database, seconds=60), *answers)
    wrong = {
        name: item for name, item in zip(HOSTILE, found[::2], strict=True) if item.verdict != "fail" and item.reason != "out of memory"
    }
    assert not wrong
    assert {item.verdict for item in found[1::2]} == {"pass"}, "the next query is judged as if alone"
    assert all(len(item.evidence) <= 200 for item in found) and not any("root:" in item.evidence for item in found)
    assert not file.exists() and not list(tmp_path.iterdir()) and database.read_bytes() == before
    assert [item.name for item in sorted(database.parent.iterdir())] == ["own.duckdb", "own.sqlite"]


def test_greedy_queries_end_as_time_outs_or_out_of_memory(database: Path) -> None:
    answers = [answer for text in GREEDY.values() for answer in (text if text.startswith("WITH") else NUMBERS + text, REFERENCE)]
    found = scores(Sql(database, seconds=1, memory_mb=256), *answers)
    assert {item.verdict for item in found[1::2]} == {"pass"}
    for name, item in zip(GREEDY, found[::2], strict=True):
        assert (item.verdict, item.reason) in (("error", "timeout"), ("error", "out of memory"), ("fail", "the statement failed")), (
            name,
            item,
        )
    assert found[0].verdict == "error"


def test_a_long_result_is_read_no_further_than_it_is_judged(database: Path) -> None:
    endless = "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a WHERE x < 3000000) SELECT x, 'x' FROM a"
    (found,) = scores(Sql(database, seconds=20), endless)
    assert (found.verdict, found.reason) == ("fail", "a different number of rows")


def test_canaries_are_judged_as_they_say(database: Path) -> None:
    for verifier in (Sql(database), Sql(database, expected="rows")):
        for canary in verifier.canaries:
            found = scores(verifier, *map(str, canary.answers), reference=canary.task.answer, **dict(canary.task.columns))
            assert tuple(item.verdict for item in found) == canary.expected
