"""Between here and the server: proxies, certificates, load that shows as latency, outages, and no clock that jumps."""

from __future__ import annotations

import ast
import ssl
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
from stub_server import Behaviour, Stub

import outcross.engine
import outcross.models
from outcross.errors import ConfigError
from outcross.models.http import Endpoint, Http, Limits, http
from outcross.models.http_server import serve
from outcross.types import Request, Response


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def ca() -> tuple[trustme.CA, ssl.SSLContext]:
    made = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("127.0.0.1").configure_cert(context)
    return made, context


def model(url: str, **limits: Any) -> Http:
    chosen = {"in_flight": 16, "deadline_s": 5.0, "retries": 1, "patience_s": 20.0} | limits
    return Http([Endpoint(url, key_env=None)], "stub", limits=Limits(**chosen))


def ask(asked: Http, *prompts: str) -> list[Response]:
    futures: list[Future[Response]] = [asked.submit(Request(prompt)) for prompt in prompts]
    return [future.result(30) for future in futures]


# ── proxies ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub() as proxy, Stub() as local:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        with closing(model("http://model.invalid/v1")) as far, closing(model(local.url)) as near:
            assert not ask(far, "far")[0].error and not ask(near, "near")[0].error
        assert proxy.hosts == {"model.invalid"} and proxy.asked == {"far": 1} and local.asked == {"near": 1}


def test_no_proxy_is_heeded_and_netrc_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine model.invalid login me password from-the-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Stub() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        with closing(model("http://model.invalid/v1")) as asked:
            ask(asked, "a")
        assert "Authorization" not in proxy.headers[0]
    monkeypatch.setenv("HTTP_PROXY", "proxy.host:3128")
    assert serve(Endpoint("http://model.invalid/v1"), "m", "chat", 1).proxy == "http://proxy.host:3128"
    monkeypatch.setenv("NO_PROXY", ".invalid")
    assert serve(Endpoint("http://model.invalid/v1"), "m", "chat", 1).proxy is None


def test_a_proxy_of_another_kind_is_refused_and_its_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:a-long-password@proxy:1080")
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY names a proxy of the kind 'socks5'.*NO_PROXY") as caught:
        model("https://model.invalid/v1")
    assert "a-long-password" not in str(caught.value)
    monkeypatch.setenv("HTTP_PROXY", "http://me:a-long-passw%2Frd@127.0.0.1:9")
    server = serve(Endpoint("http://model.invalid/v1"), "m", "chat", 1)
    assert server.hide(rb"at me:a-long-passw%2Frd a-long-passw/rd a-long-passw\/rd") == b"at me:[secret] [secret] [secret]"
    with closing(model("http://model.invalid/v1", retries=0)) as asked:
        (answer,) = ask(asked, "a")
    assert answer.error and "passw" not in answer.error


# ── certificates ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_certificate_authority_of_ones_own_is_named_by_ca_file_or_the_environment(
    ca: tuple[trustme.CA, ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = tmp_path / "ca.pem"
    ca[0].cert_pem.write_to_path(str(pem))
    with Stub(tls=ca[1]) as stub:
        with closing(model(stub.url)) as asked:
            assert "ca_file or SSL_CERT_FILE" in ask(asked, "a")[0].error
        with closing(http(stub.url, "m", key_env=None, ca_file=pem)) as asked:
            assert not ask(asked, "b", "c")[0].error
            known = asked.id
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        with closing(http(stub.url, "m", key_env=None)) as asked:
            assert not ask(asked, "d")[0].error
            assert asked.id == known, "whom one trusts shapes no answer"
    for bad in (tmp_path / "none.pem", tmp_path):
        with pytest.raises(ConfigError, match=r"ca_file is .*cannot be read as certificates"):
            http("https://host/v1", "m", ca_file=bad)


# ── load and outages ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_latency_that_grows_with_load_lowers_what_is_in_flight_before_answers_are_lost() -> None:
    with Stub(Behaviour(load_ms=12)) as stub, closing(model(stub.url, in_flight=64, deadline_s=1.0, retries=0)) as asked:
        answers = ask(asked, *map(str, range(400)))  # 64 at once take 0.77 s each; the next half second would cost answers
        assert not [answer.error for answer in answers if answer.error]
        (server,) = asked._line.servers
        assert server.pace.limit < 48


def test_an_outage_beyond_patience_says_what_to_do() -> None:
    with Stub(Behaviour(down=True)) as stub, closing(model(stub.url, patience_s=0.3)) as asked:
        answers = ask(asked, *map(str, range(100)))
    assert "is down: " in answers[-1].error and "waited 0.3 s; resume the run when it is back, or raise patience_s" in answers[-1].error
    with Stub(Behaviour(capacity=0, retry_after="0.2")) as stub, closing(model(stub.url, patience_s=0.3)) as asked:
        (answer,) = ask(asked, "a")
    assert re_found(answer.error, "429", "refused for 0.3 s", "lower in_flight", "attempts")


def re_found(text: str, *parts: str) -> bool:
    return all(part in text for part in parts)


WALL = {"time", "time_ns", "localtime", "gmtime", "now", "utcnow", "today"}


@pytest.mark.parametrize(
    "path",
    [
        *sorted(Path(outcross.models.__path__[0]).glob("http*.py")),
        *(Path(outcross.engine.__path__[0]) / name for name in ("executor.py", "budget.py", "commits.py")),
    ],
    ids=lambda path: path.name,
)
def test_no_pace_deadline_or_budget_reads_the_wall_clock(path: Path) -> None:
    """`loop.time()` of asyncio is the monotonic clock."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    read = [ast.unparse(call) for call in calls if isinstance(call, ast.Attribute) and call.attr in WALL]
    assert all(name == "loop.time" for name in read), read
