"""The ways in which the cases are played."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial

import h11
import httpx2
import uvicorn
from starlette.types import ASGIApp, Message

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware
from aurelis_httpx2 import AsyncCacheTransport
from tests.asgi.http2 import asked, uvicorn_http2
from tests.asgi.sockets import HOST, running
from tests.asgi.visits import http_scope
from tests.http.conformance.cases import Case
from tests.http.conformance.origin import EARLY_HINT, ScriptedOrigin, asleep, joined
from tests.http.conformance.play import Answer, Result, play
from tests.http.conformance.proxy import InterimTransport, ReverseProxy
from tests.managers import eventually, fresh_name, is_settled

_TIMEOUT = 30.0
"""Seconds for one case."""
_AT_ONCE = 64

Ask = Callable[[str, str, list[tuple[str, str]], bytes], Awaitable[Answer]]


async def in_process(cases: Mapping[str, Case]) -> dict[str, Result]:
    """The middleware around the origin, without a server; a clock is moved in place of pauses."""
    return {name: await _in_process(case) for name, case in cases.items()}


async def _in_process(case: Case) -> Result:
    clock = ManualClock(time=1_800_000_000.25)
    manager = CacheManager(CacheConfig(name=fresh_name()), clock=clock)

    async def pause(seconds: float) -> None:
        clock.advance(seconds)

    origin = ScriptedOrigin(clock.time, pause)
    app = CacheMiddleware(origin, cache=manager)

    async def ask(method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> Answer:
        answer = await _call(app, method, target, fields, body)
        await eventually(lambda: is_settled(manager))
        return answer

    try:
        return await play(case, origin.scripts.__setitem__, ask, pause)
    finally:
        await manager.aclose()


async def _call(app: ASGIApp, method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> Answer:
    scope = http_scope(target, method, extensions={EARLY_HINT: {}})
    headers = [("host", HOST), *fields, *([("content-length", str(len(body)))] if body else [])]
    scope["headers"] = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    messages: list[Message] = []
    ended = asyncio.Event()

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    ended.set()
    hints = list(itertools.takewhile(lambda message: message["type"] == EARLY_HINT, messages))
    head, *rest = messages[len(hints) :]
    assert EARLY_HINT not in [message["type"] for message in rest]
    lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head["headers"]]
    # As servers send them.
    interim = [(103, {"link": b", ".join(hint["links"]).decode()}) for hint in hints]
    return Answer(head["status"], lines, b"".join(message.get("body", b"") for message in rest), interim)


async def behind_uvicorn(cases: Mapping[str, Case]) -> dict[str, Result]:
    """The middleware around the origin, over real sockets and in real time: HTTP/2, so that 103 is sent."""
    return await _behind(partial(uvicorn_http2, date=False), _client_of_http2, cases)


async def behind_uvicorn_over_http_1(cases: Mapping[str, Case]) -> dict[str, Result]:
    """The same over HTTP/1.1."""
    return await _behind(_serving, _client, cases)


async def _behind(
    serving: Callable[[ASGIApp], AbstractAsyncContextManager[int]],
    client: Callable[[int], Ask],
    cases: Mapping[str, Case],
) -> dict[str, Result]:
    manager = CacheManager(CacheConfig(name=fresh_name()))
    origin = ScriptedOrigin(time.time, asleep)
    try:
        async with serving(CacheMiddleware(origin, cache=manager)) as port:
            return await _all(cases, origin, client(port))
    finally:
        await manager.aclose()


async def through_the_transport(cases: Mapping[str, Case]) -> dict[str, Result]:
    """A reverse proxy whose client has the transport of a shared cache, before the origin; real sockets and time.

    Over HTTP/1.1, whose fields are all there, and over the library's connections. Cases of interim responses need
    connections that give them to the client, and HTTP/2, over which the servers send them.
    """
    interim = of_interim_responses(cases)
    others = {name: case for name, case in cases.items() if name not in interim}
    own = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=200))
    of_others, of_interim = await asyncio.gather(
        _through(own, _serving, _client, others),
        _through(InterimTransport(), partial(uvicorn_http2, date=False), _client_of_http2, interim),
    )
    return of_others | of_interim


async def through_the_librarys_connections(cases: Mapping[str, Case]) -> dict[str, Result]:
    """The same over HTTP/2 and the library's connections for whichever cases there are."""
    own = httpx2.AsyncHTTPTransport(http1=False, http2=True)
    return await _through(own, partial(uvicorn_http2, date=False), _client_of_http2, cases)


def of_interim_responses(cases: Mapping[str, Case]) -> dict[str, Case]:
    """The cases in which the origin sends some."""
    return {
        name: case for name, case in cases.items() if any(request.get("interim_responses") for request in case.requests)
    }


async def _through(
    inner: httpx2.AsyncBaseTransport,
    serving: Callable[[ASGIApp], AbstractAsyncContextManager[int]],
    client: Callable[[int], Ask],
    cases: Mapping[str, Case],
) -> dict[str, Result]:
    manager = CacheManager(CacheConfig(name=fresh_name()))
    origin = ScriptedOrigin(time.time, asleep)
    try:
        async with serving(origin) as behind:
            transport = AsyncCacheTransport(inner, cache=manager, shared=True)
            async with (
                httpx2.AsyncClient(transport=transport, timeout=_TIMEOUT) as proxied,
                serving(ReverseProxy(proxied, f"http://{HOST}:{behind}")) as port,
            ):
                return await _all(cases, origin, client(port))
    finally:
        await manager.aclose()


async def _all(cases: Mapping[str, Case], origin: ScriptedOrigin, ask: Ask) -> dict[str, Result]:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(case: Case) -> Result:
        async with at_once:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    return await play(case, origin.scripts.__setitem__, ask, asleep)
            except TimeoutError:
                return Result("error", "timeout")

    return dict(zip(cases, await asyncio.gather(*map(one, cases.values())), strict=True))


def _client_of_http2(port: int) -> Ask:
    async def ask(method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> Answer:
        async with asked(port, target, method, fields, body) as request:
            answer = await request.end()
        if answer.reset:
            raise ConnectionError(f"reset with {answer.reset}")
        interim = [(status, joined(lines)) for status, lines in answer.interim]
        return Answer(answer.status, answer.lines, answer.body, interim)

    return ask


def _client(port: int) -> Ask:
    async def ask(method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> Answer:
        connection = h11.Connection(h11.CLIENT)
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            length = [("Content-Length", str(len(body)))] if body else []
            headers = [("Host", f"{HOST}:{port}"), ("Connection", "close"), *length, *fields]
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            writer.write(connection.send(h11.Request(method=method, target=target, headers=raw)) or b"")
            if body:
                writer.write(connection.send(h11.Data(data=body)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            return await _answer(connection, reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return ask


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    answer = Answer(0, [], b"")
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.InformationalResponse):
            answer.interim.append((event.status_code, {name.decode(): value.decode() for name, value in event.headers}))
        elif isinstance(event, h11.Response):
            answer.status = event.status_code
            answer.lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
        elif isinstance(event, h11.Data):
            answer.body += event.data
        else:
            return answer


@contextlib.asynccontextmanager
async def _serving(app: ASGIApp) -> AsyncIterator[int]:
    # Without a Date of its own: the origin's is to reach the client.
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", http="h11", date_header=False, server_header=False
    )
    async with running(config) as port:
        yield port
