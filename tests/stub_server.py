"""A small OpenAI-compatible server on 127.0.0.1, for tests and benchmarks over real sockets.

In a test: `with Stub(Behaviour(...)) as stub: http(stub.url, "stub")`. In a benchmark, a process of its own:
`python tests/stub_server.py --median-ms 50 --errors 0.01` prints its URL; `GET /stats` counts, `POST /reset` starts anew.

A prompt that holds a fault's name in brackets, `[hang] 2+2=`, meets that fault, once or always (`Behaviour.once`).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import math
import random
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

FAULTS = (
    "hang",
    "half",
    "garbage",
    "no_choices",
    "huge",
    "limit",
    "limit_date",
    "error",
    "drop",
    "refuse",
    "quota",
    "moved",
    "twice",
    "more",
)


@dataclass
class Behaviour:
    """What the server does. `n`, `log_probs`, `echo`, `seed`, `schema`, `tools`, `tool_choice`, `usage`: whether it honours them."""

    says: Callable[[str], str] | None = None  # the text for a prompt; None: the prompt with seed and index
    mended: bool = False  # faults by prompt do not happen
    refused_texts: tuple[str, ...] = ()  # prompts that begin so are answered by 400 when their seed is odd
    load_ms: float = 0.0  # further latency for each request under way
    tools: bool = True
    tool_choice: bool = True
    median_ms: float = 0.0
    sigma: float = 0.5  # of the log-normal latency
    errors: float = 0.0  # share of requests answered by 429 or 500, half each
    n: bool = True
    log_probs: bool = True
    echo: bool = True
    seed: bool = True
    schema: bool = True
    usage: bool = True
    once: bool = False  # a fault by prompt happens the first time only
    down: bool = False  # every request is answered by 500
    capacity: int = 10**9  # requests at once; those beyond are answered by 429
    retry_after: str = ""
    refuses: str = ""  # a field that is answered by 400 naming it
    first: dict[str, float] = field(default_factory=lambda: {"A": -0.2, " A": -3.0, "B": -2.5, "C": -4.0})
    bad_seed: int = -1  # requests with this seed are answered by 400
    key: str = ""  # the only key let in


class Stub:
    """The server in a thread of its own. Counters may be read at any time."""

    def __init__(self, does: Behaviour | None = None, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.does = does or Behaviour()
        self._tls, self.port = tls, port
        self._random = random.Random(0)
        self.reset()

    def reset(self) -> None:
        self.asked: collections.Counter[str] = collections.Counter()  # by prompt, whatever came of it
        self.answered: collections.Counter[str] = collections.Counter()
        self.statuses: collections.Counter[int] = collections.Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[Any] = set()
        self.hosts: set[str] = set()
        self.open = self.most_open = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Stub:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True, name="stub")
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self.start())
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def start(self) -> web.AppRunner:
        app = web.Application(client_max_size=64_000_000)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._answer)
        app.router.add_post("/v1/embeddings", self._answer)
        app.router.add_get("/stats", self._stats)
        app.router.add_post("/reset", self._reset)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    async def _stats(self, request: web.Request) -> web.Response:
        again = sum(count - 1 for count in self.answered.values())
        shown = {"asked": sum(self.asked.values()), "answered": len(self.answered), "answered_again": again, "most_open": self.most_open}
        return web.json_response(shown | {"connections": len(self.connections), "prompts": sorted(self.answered)})

    async def _reset(self, request: web.Request) -> web.Response:
        self.reset()
        return web.Response()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            reply = await self._reply(request)
            self.statuses[reply.status] += 1
            return reply
        finally:
            self.open -= 1

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        body = json.loads(await request.read())
        prompt = body["messages"][-1]["content"] if "messages" in body else body.get("prompt", body.get("input"))
        if "input" in body:
            prompt = "|".join(prompt)
        self.hosts.add(request.host)
        if isinstance(prompt, list):  # content in parts
            prompt = "".join(part["text"] for part in prompt)
        self.asked[prompt] += 1
        if len(self.bodies) < 10_000:
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
        if self.does.median_ms:
            await asyncio.sleep(self.does.median_ms / 1000 * math.exp(self._random.gauss(0, self.does.sigma)))
        if self.does.load_ms:
            await asyncio.sleep(self.does.load_ms / 1000 * self.open)
        if self.does.key and request.headers.get("Authorization") != f"Bearer {self.does.key}":
            return _error(401, f"no such key: {request.headers.get('Authorization')}")
        name = next((name for name in FAULTS if prompt.startswith(f"[{name}]")), "")
        if name and not self.does.mended and not (self.does.once and self.asked[prompt] > 1):
            return await self._fault(name, request)
        if self.does.down:
            return _error(500, "down")
        if self.open > self.does.capacity:
            return self._limited()
        if self.does.errors and self._random.random() < self.does.errors:
            return self._limited() if self._random.random() < 0.5 else _error(500, "bad luck")
        if "n" in body and self.does.refuses == "n":
            return _error(400, "this server does not take 'n' > 1")
        if self.does.refuses not in ("", "n") and self.does.refuses in body:
            return _error(400, f"Unsupported parameter: '{self.does.refuses}'; use 'max_completion_tokens' instead of 'max_tokens'")
        if body.get("seed") == self.does.bad_seed or (prompt.startswith(self.does.refused_texts or ("\0",)) and body.get("seed", 0) % 2):
            return _error(400, "not this one")
        self.answered[prompt] += 1
        return web.Response(body=self._said(body, prompt, request.path), content_type="application/json")

    def _limited(self) -> web.Response:
        return _error(429, "slow down", {"Retry-After": self.does.retry_after} if self.does.retry_after else {})

    async def _fault(self, name: str, request: web.Request) -> web.StreamResponse:
        if name == "hang":
            await asyncio.sleep(600)
        if name == "drop":
            assert request.transport is not None
            request.transport.close()
        if name == "half":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"choices": [{"message": {"content": "ha')
            assert request.transport is not None
            request.transport.close()
            return response
        if name == "huge":
            return web.Response(body=b'{"choices":[{"message":{"content":"' + b"x" * 10_000_000 + b'"}}]}')
        if name in ("twice", "more"):
            body = json.loads(await request.read())
            self.answered[body["messages"][-1]["content"]] += 1
            count = body.get("n", 1) + (name == "more")
            choices = [{"index": 0, "message": {"content": f"{name} {index}"}, "finish_reason": "stop"} for index in range(count)]
            return web.json_response({"id": "same-for-all", "choices": choices})
        date = {"Retry-After": "Thu, 01 Jan 1970 00:00:01 GMT", "Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
        answers = {
            "garbage": lambda: web.Response(text="<html>not json"),
            "no_choices": lambda: web.json_response({"choices": []}),
            "limit": lambda: _error(429, "slow down", {"Retry-After": "0.05"}),
            "limit_date": lambda: _error(429, "slow down", date),
            "refuse": lambda: _error(400, "this prompt is not allowed"),
            "quota": lambda: _error(429, "you have no money left", code="insufficient_quota"),
            "moved": lambda: web.Response(status=307, headers={"Location": "http://elsewhere.invalid/"}),
        }
        return answers[name]() if name in answers else _error(500, name)

    def _said(self, body: dict[str, Any], prompt: str, path: str) -> bytes:
        n = (body.get("n") or 1) if self.does.n else 1
        seed = body.get("seed", 0) if self.does.seed else self._random.random()
        if path.endswith("/embeddings"):
            return _vectors(body["input"])
        texts = [self.does.says(prompt) if self.does.says else f"{prompt} -> {seed}/{index}" for index in range(n)]
        if "response_format" in body and self.does.schema:
            wanted = body["response_format"]["json_schema"]["schema"]
            texts = [json.dumps(_fitting(wanted, wanted))] * n
        chat = path.endswith("/chat/completions")
        choices = [
            {"index": index, "finish_reason": "length" if body.get("max_tokens") == 1 else "stop", **self._choice(body, prompt, text, chat)}
            for index, text in enumerate(texts)
        ]
        usage = {"usage": {"prompt_tokens": 10, "completion_tokens": 5 * n, "total_tokens": 10 + 5 * n}} if self.does.usage else {}
        return json.dumps({"id": "same-for-all", "choices": choices, **usage}).encode()

    def _choice(self, body: dict[str, Any], prompt: str, text: str, chat: bool) -> dict[str, Any]:
        called = self.does.tools and "tools" in body and "call" in prompt.lower()
        if called or (self.does.tools and self.does.tool_choice and body.get("tool_choice") == "required"):
            function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"x": 1}'}
            return {
                "message": {"content": None, "tool_calls": [{"id": f"c{self._random.random()}", "type": "function", "function": function}]}
            }
        if chat:
            top = [{"token": token, "logprob": value} for token, value in self.does.first.items()]
            given = {"content": [{"token": "A", "logprob": -0.2, "top_logprobs": top}]}
            return {"message": {"content": text}, "logprobs": given if body.get("logprobs") and self.does.log_probs else None}
        if body.get("echo") and self.does.echo:
            tokens = list(prompt + "!")  # one token a character; the log-probability is minus its code / 100
            values = [None, *(-ord(token) / 100 for token in tokens[1:])]
            return {"text": prompt + "!", "logprobs": {"tokens": tokens, "token_logprobs": values, "text_offset": list(range(len(tokens)))}}
        first = {"tokens": ["A"], "token_logprobs": [-0.2], "top_logprobs": [self.does.first]}
        return {"text": text, "logprobs": first if body.get("logprobs") and self.does.log_probs else None}


def _vectors(texts: list[str]) -> bytes:
    """A vector of its length and first character for each text, last text first."""
    data = [{"index": index, "embedding": [float(len(text)), float(ord(text[0]))]} for index, text in enumerate(texts)]
    return json.dumps({"data": data[::-1], "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)}}).encode()


def _fitting(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """The simplest value that a schema allows."""
    if "$ref" in schema:
        return _fitting(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return schema["enum"][0]
    if "properties" in schema:
        return {name: _fitting(item, root) for name, item in schema["properties"].items()}
    return {"string": "text", "integer": 7, "number": 0.5, "boolean": True, "array": []}.get(schema.get("type", "string"), "text")


def _error(status: int, message: str, headers: dict[str, str] | None = None, code: str = "") -> web.Response:
    return web.json_response({"error": {"message": message, "code": code}}, status=status, headers=headers)


async def main(does: Behaviour) -> None:
    stub = Stub(does)
    await stub.start()
    print(stub.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--median-ms", type=float, default=50)
    parser.add_argument("--errors", type=float, default=0.0)
    chosen = parser.parse_args()
    asyncio.run(main(Behaviour(median_ms=chosen.median_ms, errors=chosen.errors)))
