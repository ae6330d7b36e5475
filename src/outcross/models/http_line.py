"""The line to the servers: one thread with an event loop, a fixed number of exchanges under way, and no barrier between them.

Each exchange ends as a reply or as a reason. Only the monotonic clock is read. A wait (back-off, rate limit) holds no slot.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from outcross.errors import MissingExtra, ModelError
from outcross.models.http_abilities import Exchange, Post, log
from outcross.models.http_endpoint import Api, Endpoint, Limits
from outcross.models.http_pace import Outcome
from outcross.models.http_server import Server, serve
from outcross.models.http_trouble import ERROR_BYTES, Trouble, of_exception, of_status
from outcross.models.http_wire import Call, Reply, Vectors, body, largest, parse
from outcross.types import Request, Sampling

try:
    import aiohttp
except ImportError:
    raise MissingExtra("aiohttp", "http", "a model behind an endpoint") from None

BACK_OFF_S = 0.25  # before the first retry; doubled for each further one
LONGEST_BACK_OFF_S = 30.0
CONNECT_S = 15.0
KEEP_ALIVE_S = 60.0
KNOCK = Request("hello", sampling=Sampling(max_tokens=1))


class Asked(Protocol):
    """A request, or a batch of texts, from its submission to its end."""

    def begin(self, post: Post) -> None: ...
    def fail(self, reason: str) -> None: ...


class Line:
    """Takes askings from any thread and ends each of them. `close` ends those that are open with a reason."""

    def __init__(self, endpoints: Sequence[Endpoint], model: str, api: Api, limits: Limits) -> None:
        self.api, self.limits = api, limits
        self.servers = [serve(item, model, api, limits.in_flight) for item in endpoints]
        self._lock = threading.Lock()
        self._inbox: list[Asked] = []
        self._open: set[Asked] = set()
        self._queue: deque[Exchange] = deque()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._random = random.Random()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    # ── from any thread ────────────────────────────────────────────────────────────────────────────────────────────────
    def hand(self, asking: Asked) -> None:
        """Take an asking. Raises `ModelError` after `close`."""
        with self._lock:
            if self._closed:
                raise ModelError("this model was closed; make it again to use it")
            loop = self._loop or self._start()
            self._inbox.append(asking)
            if len(self._inbox) == 1:
                loop.call_soon_threadsafe(self._take)

    def close(self) -> None:
        """End what is open, close connections and the thread."""
        with self._lock:
            self._closed, loop, thread = True, self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()

    def finished(self, asking: Asked) -> None:
        self._open.discard(asking)

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), daemon=True, name="outcross-http")
        self._thread.start()
        return self._loop

    # ── in the line's thread ───────────────────────────────────────────────────────────────────────────────────────────
    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        session = self._session = loop.run_until_complete(self._connect())
        loop.call_soon(self._take)
        try:
            loop.run_forever()
        finally:
            for task in self._tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            loop.run_until_complete(session.close())
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            for asking in [*self._open, *self._inbox]:
                asking.fail("the model was closed before this was answered")

    async def _connect(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self.limits.deadline_s, sock_connect=min(CONNECT_S, self.limits.deadline_s)),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _take(self) -> None:
        if self._session is None:  # handed over while the session was being made, which is followed by another call
            return
        with self._lock:
            taken, self._inbox = self._inbox, []
        for asking in taken:
            self._open.add(asking)
            asking.begin(self._queue.append)
        self._pump()

    def _pump(self) -> None:
        """Send what may be sent."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._queue and self._under_way < self.limits.in_flight:
            server = self._next_server(self._queue[0], now)
            if server is None:
                self._wait(loop, now)
                return
            if server.pace.down_since is not None:  # a prompt that breaks servers would never tell whether one is back
                exchange = self._knock()
            else:
                exchange = self._queue.popleft()
            if not exchange.wanted():
                continue
            server.pace.sent()
            self._under_way += 1
            exchange.last = server
            task = loop.create_task(self._exchange(server, exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _knock(self) -> Exchange:
        """The smallest question there is. The first that waits pays for it."""

        def came(call: Call, reply: Reply | Vectors | str) -> None:
            if not isinstance(reply, str) and self._queue:
                self._queue[0].owed = reply.usage

        call = Call("embed", texts=("hello",)) if self.api == "embeddings" else Call("text")
        return Exchange(KNOCK, call, came, knock=True)

    def _next_server(self, exchange: Exchange, now: float) -> Server | None:
        """The least loaded for its weight; a request that failed goes to another server if one is free."""
        if len(self.servers) == 1:
            return self.servers[0] if self.servers[0].pace.free(now) else None
        free = [server for server in self.servers if server.pace.free(now)]
        return min(free, key=lambda server: (bool(exchange.failures) and server is exchange.last, server.load), default=None)

    def _wait(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """No server is free: come back when the first has rested; after all patience is spent, end what waits."""
        down = [server.pace.down_since for server in self.servers]
        if all(since is not None and now - since >= self.limits.patience_s for since in down):
            waiting, self._queue = self._queue, deque()
            reasons = "; ".join(f"{server.endpoint.shown} is down: {server.trouble}" for server in self.servers)
            advice = f"waited {self.limits.patience_s:g} s; resume the run when it is back, or raise patience_s"
            for exchange in waiting:
                exchange.done(exchange.call, f"no server answers ({reasons}); {advice}")
            return
        resting = [server.pace.rest_until for server in self.servers if server.pace.rest_until > now]
        if resting and (self._timer is None or self._timer.cancelled() or self._timer.when() <= now):
            self._timer = loop.call_at(min(resting), self._pump)

    async def _exchange(self, server: Server, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            came = await self._ask(server, exchange)
        except Exception as error:  # a fault of ours may cost this request its answer, and no other
            came = Trouble("fatal", f"asking {server.endpoint.shown} raised {type(error).__name__}: {error}")
        now = loop.time()
        self._under_way -= 1
        if now - began > self.limits.deadline_s / 2:
            server.pace.slow()
        if not isinstance(came, Trouble):
            server.pace.back("fine", now)
            if exchange.owed is not None and came.usage is not None:
                came.usage.prompt_tokens += exchange.owed.prompt_tokens
                came.usage.completion_tokens += exchange.owed.completion_tokens
            exchange.done(exchange.call, came)
        else:
            self._settle(server, exchange, came, now)
        self._pump()

    async def _ask(self, server: Server, exchange: Exchange) -> Reply | Vectors | Trouble:
        assert self._session is not None
        exchange.left_out = frozenset(server.refused)
        data = body(exchange.request, exchange.call, server.model, self.api, exchange.left_out)
        try:
            async with self._session.post(
                server.address, data=data, headers=server.headers, proxy=server.proxy, ssl=server.trust, allow_redirects=False
            ) as answer:
                fine = answer.status == 200
                most = largest(exchange.request, exchange.call, len(data)) if fine else ERROR_BYTES
                raw, whole = await _read(answer, most)
                raw = server.hide(raw)
                if not fine:
                    return of_status(answer.status, answer.headers, raw, server.endpoint)
                if not whole:
                    return Trouble("fatal", f"the reply is longer than the {most:,} bytes that this request can need")
                return parse(raw, exchange.call)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:  # before ValueError: a bad certificate is one of those as well
            trouble = of_exception(error, server.endpoint, self.limits.deadline_s)
            return dataclasses.replace(trouble, reason=server.hide(trouble.reason.encode()).decode())
        except ValueError as error:
            return Trouble("failed", str(error))

    def _settle(self, server: Server, exchange: Exchange, trouble: Trouble, now: float) -> None:
        """After an exchange without a reply: send it again at once or later, or end it."""
        outcome: Outcome = {"throttled": "throttled", "failed": "failed", "hung": "failed"}.get(trouble.kind, "fine")  # type: ignore[assignment]
        was_down = server.pace.down_since is not None
        wait = trouble.wait if trouble.wait is not None else self._back_off(exchange.throttles)
        server.pace.back(outcome, now, wait)
        if exchange.knock:
            server.trouble = trouble.reason if outcome == "failed" else server.trouble
        elif trouble.kind == "refused" and trouble.field not in exchange.left_out:
            if trouble.field not in server.refused:
                server.refused.add(trouble.field)
                log.warning("%s: does not take %s; it is left out", server.endpoint.shown, trouble.field)
            self._queue.appendleft(exchange)
        elif outcome == "throttled":
            exchange.throttles += 1
            exchange.waited += wait
            again = exchange.waited <= self.limits.patience_s
            if not again:
                advice = "resume the run later, lower in_flight, or raise patience_s"
                trouble = dataclasses.replace(trouble, reason=f"{trouble.reason}; refused for {self.limits.patience_s:g} s: {advice}")
            self._later(exchange, trouble, wait * self._random.uniform(1, 1.1), again)
        elif outcome == "failed":
            server.trouble = trouble.reason
            if server.pace.down_since is not None and not was_down:
                log.warning("%s is down (%s); waiting up to %.0f s for it", server.endpoint.shown, trouble.reason, self.limits.patience_s)
            if was_down:  # the server's trouble, not this request's: patience bounds it, no retry is spent
                self._queue.append(exchange)
                return
            exchange.failures += 1
            exchange.hung += trouble.kind == "hung"
            wait = self._back_off(exchange.failures - 1)
            self._later(exchange, trouble, wait, exchange.failures <= self.limits.retries and exchange.hung < 2)
        else:
            exchange.done(exchange.call, trouble.reason)

    def _later(self, exchange: Exchange, trouble: Trouble, wait: float, again: bool) -> None:
        if not again:
            times = exchange.failures + exchange.throttles
            exchange.done(exchange.call, f"{trouble.reason} (after {times} attempts)" if times > 1 else trouble.reason)
            return
        asyncio.get_running_loop().call_later(wait, self._again, exchange)

    def _again(self, exchange: Exchange) -> None:
        self._queue.appendleft(exchange)
        self._pump()

    def _back_off(self, times: int) -> float:
        """Seconds: exponential, with jitter."""
        return min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2.0**times) * self._random.uniform(0.5, 1.0)


async def _read(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """The body, and whether it is whole: reading stops after `most` bytes."""
    pieces: list[bytes] = []
    size = 0
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size > most:
            answer.close()
            return b"".join(pieces), False
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), True
