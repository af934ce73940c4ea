"""The middleware among the parts of Starlette and FastAPI that apps are made of."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi import Request as FastAPIRequest
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from aurelis.cache import CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.conftest import MakeManager
from tests.asgi.counts import loads
from tests.asgi.origin import Call, Origin, fixed
from tests.asgi.sockets import connect, connected, fetch, served
from tests.asgi.visits import Visit, ask
from tests.managers import eventually

FRESH = {"cache-control": "max-age=60"}
LARGE = "x" * 2000


class Counted:
    """An endpoint that counts its calls."""

    def __init__(self, body: str = "body", **fields: str) -> None:
        self.calls = 0
        self._body = body
        self._fields = {name.replace("_", "-"): value for name, value in fields.items()} or FRESH

    async def endpoint(self, request: Request) -> Response:
        """Answers."""
        self.calls += 1
        return PlainTextResponse(f"{self._body} {self.calls}", headers=self._fields)


def starlette(endpoint: Counted, *middleware: Middleware) -> Starlette:
    """An app with one route, and middleware from the outermost to the innermost."""
    return Starlette(routes=[Route("/{name}", endpoint.endpoint)], middleware=middleware)


# Where it stands


async def test_under_a_mount_rules_are_for_the_paths_below(manager: CacheManager) -> None:
    origin = fixed()
    cached = CacheMiddleware(origin, cache=manager, rules=[CacheRule("/items/*", ttl=60)], cache_status="debug")
    app = Starlette(routes=[Mount("/v1", app=cached), Mount("/v2", routes=[Mount("/deep", app=cached)])])
    for _ in range(2):
        assert (await ask(app, "/v1/items/1")).body == b"body 1"
        assert (await ask(app, "/v2/deep/items/1")).body == b"body 2"
    assert len(origin.calls) == 2
    assert (await ask(app, "/v1/other")).cache_status.endswith("detail=not-fresh")


async def test_a_root_path_of_the_server_is_no_part_of_a_rules_path(manager: CacheManager) -> None:
    endpoint = Counted("body", x_nothing="said")
    app = starlette(endpoint, Middleware(CacheMiddleware, cache=manager, rules=[CacheRule("/items", ttl=60)]))
    for _ in range(2):
        assert (await ask(app, "/api/items", root_path="/api")).body == b"body 1"


@pytest.mark.parametrize("same", [True, False], ids=["one cache", "two caches"])
async def test_twice_in_one_app_it_still_works(make_manager: MakeManager, same: bool) -> None:
    outer = make_manager(name="outer")
    inner = outer if same else make_manager(name="inner")
    endpoint = Counted()
    app = starlette(endpoint, Middleware(CacheMiddleware, cache=outer), Middleware(CacheMiddleware, cache=inner))
    visits = [Visit(app, "/a").begin() for _ in range(5)]
    for visit in visits:
        assert (await visit.end()).body == b"body 1"
        assert len(visit.fields("cache-status")) == 2
    assert (await ask(app, "/a")).fields("cache-status")[1:] == ["outer; hit; ttl=60"]
    assert endpoint.calls == 1
    assert (await ask(app, "/a", "POST")).status == 405


async def test_a_hit_names_the_route_that_made_the_response(manager: CacheManager) -> None:
    """For telemetry outside, which counts requests by it."""
    cached = CacheMiddleware(starlette(Counted()), cache=manager)
    for app in (cached, Starlette(routes=[Mount("/v1", app=cached)])):
        target = "/a" if app is cached else "/v1/a"
        for expected in ("fwd", "hit"):
            visit = await ask(app, target)
            assert expected in visit.cache_status
            assert visit.scope["route"].path == "/{name}"


async def test_lifespan_and_websockets_pass(manager: CacheManager) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
        seen.append("up")
        yield {"shared": "state"}
        seen.append("down")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"{await websocket.receive_text()} {websocket.state.shared}")
        await websocket.close()

    async def page(request: Request) -> Response:
        return PlainTextResponse(request.state.shared, headers=FRESH)

    routes = [WebSocketRoute("/ws", socket), Route("/", page)]
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(CacheMiddleware, cache=manager)])

    def use() -> None:
        with TestClient(app) as client:
            with client.websocket_connect("/ws") as websocket:
                websocket.send_text("hello")
                assert websocket.receive_text() == "hello state"
            for expected in ("fwd", "hit"):
                response = client.get("/")
                assert response.text == "state"
                assert expected in response.headers["cache-status"]

    await asyncio.to_thread(use)
    assert seen == ["up", "down"]


# GZip


async def test_gzip_inside_makes_variants(manager: CacheManager) -> None:
    endpoint = Counted(LARGE)
    app = starlette(endpoint, Middleware(CacheMiddleware, cache=manager), Middleware(GZipMiddleware))
    for _ in range(2):
        packed = await ask(app, "/a", "GET", {"accept-encoding": "gzip"})
        plain = await ask(app, "/a", "GET", {"accept-encoding": "identity"})
        assert (packed.field("content-encoding"), plain.field("content-encoding")) == ("gzip", None)
        assert gzip.decompress(packed.body).decode() == f"{LARGE} 1"
        assert plain.body.decode() == f"{LARGE} 2"
    assert endpoint.calls == 2


@pytest.mark.parametrize(("body", "packs"), [(LARGE, True), ("small", False)])
async def test_gzip_outside_treats_every_answer_alike(manager: CacheManager, body: str, packs: bool) -> None:
    """It leaves small bodies alone, if they come in one piece."""
    endpoint = Counted(body)
    app = starlette(endpoint, Middleware(GZipMiddleware), Middleware(CacheMiddleware, cache=manager))
    visits = [await ask(app, "/a", "GET", {"accept-encoding": "gzip"}) for _ in range(2)]
    for visit in visits:
        assert visit.field("content-encoding") == ("gzip" if packs else None)
        assert visit.field("content-length") == str(len(visit.body))
        assert (gzip.decompress(visit.body) if packs else visit.body).decode() == f"{body} 1"
    assert [("hit" in visit.cache_status) for visit in visits] == [False, True]


# CORS


@pytest.mark.parametrize("outside", [True, False])
async def test_each_origin_gets_its_own_cors_fields(manager: CacheManager, outside: bool) -> None:
    endpoint = Counted()
    cors = Middleware(CORSMiddleware, allow_origins=["https://a.example", "https://b.example"], allow_methods=["GET"])
    cache = Middleware(CacheMiddleware, cache=manager)
    app = starlette(endpoint, *((cors, cache) if outside else (cache, cors)))
    origins = ["https://a.example", "https://b.example", "https://evil.example"]
    for _ in range(2):
        for origin in origins:
            visit = await ask(app, "/a", "GET", {"origin": origin})
            assert visit.field("access-control-allow-origin") == (None if "evil" in origin else origin)
    assert endpoint.calls == (1 if outside else 3)
    preflight = {"origin": origins[0], "access-control-request-method": "GET"}
    visit = await ask(app, "/a", "OPTIONS", preflight)
    assert (visit.status, visit.field("access-control-allow-origin")) == (200, origins[0])


# BaseHTTPMiddleware


class Neighbour(BaseHTTPMiddleware):
    """Adds a field to each response and remembers what came."""

    statuses: list[int]

    def __init__(self, app: ASGIApp, statuses: list[int]) -> None:
        super().__init__(app)
        self.statuses = statuses

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass it on."""
        response = await call_next(request)
        self.statuses.append(response.status_code)
        response.headers["x-neighbour"] = "was here"
        return response


def with_neighbour(app: ASGIApp, manager: CacheManager, statuses: list[int], *, outside: bool) -> ASGIApp:
    """The app behind both."""
    if outside:
        return Neighbour(CacheMiddleware(app, cache=manager), statuses)
    return CacheMiddleware(Neighbour(app, statuses), cache=manager)


outside_or_inside = pytest.mark.parametrize("outside", [True, False], ids=["neighbour outside", "neighbour inside"])


@outside_or_inside
async def test_a_neighbour_of_the_base_class_sees_whole_responses(manager: CacheManager, outside: bool) -> None:
    statuses: list[int] = []
    endpoint = Counted()
    app = with_neighbour(starlette(endpoint), manager, statuses, outside=outside)
    async with served(app) as port:
        answers = await asyncio.gather(*(fetch(port, "/a") for _ in range(20)))
        answers.append(await fetch(port, "/a"))
    assert {(answer.body, answer.fields["x-neighbour"]) for answer in answers} == {(b"body 1", "was here")}
    assert "; hit" in answers[-1].cache_status
    assert endpoint.calls == 1
    assert statuses == [200] * (21 if outside else 1)


@outside_or_inside
@pytest.mark.parametrize("kept", [True, False], ids=["recorded", "passing"])
async def test_a_stream_through_such_a_neighbour_is_live(manager: CacheManager, outside: bool, kept: bool) -> None:
    gate = asyncio.Event()

    async def endpoint(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            await gate.wait()
            yield b"two"

        return StreamingResponse(body(), headers=FRESH if kept else {})

    app = with_neighbour(Starlette(routes=[Route("/", endpoint)]), manager, [], outside=outside)
    async with served(app) as port, connected(port) as connection:
        await connection.send("/")
        await connection.read_head()
        assert await connection.read_chunk() == b"one"
        gate.set()
        assert [await connection.read_chunk() for _ in range(2)] == [b"two", b""]
        assert ("; hit" in (await connection.ask("/")).cache_status) is kept


@outside_or_inside
@pytest.mark.parametrize("stage", ["before the head", "in the body"])
async def test_clients_that_leave_are_no_error_of_such_a_neighbour(
    manager: CacheManager, outside: bool, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(call: Call) -> None:
        if stage == "in the body":
            await call.start(200, cache_control="max-age=60")
            await call.chunk(b"1")
        await asyncio.Event().wait()

    origin = Origin(handler)
    statuses: list[int] = []
    app = with_neighbour(origin, manager, statuses, outside=outside)
    async with served(app) as port:
        connections = [await connect(port) for _ in range(3)]
        for connection in connections:
            await connection.send("/")
        await eventually(lambda: manager._engine.flights.waiting == 2)
        if stage == "in the body":
            for connection in connections:
                await connection.read_head()
        for connection in connections:
            connection.abort()
        await eventually(lambda: origin.cancelled == 1)
        for connection in connections:
            await connection.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    if outside and stage == "before the head":
        assert statuses == [499] * 3


@outside_or_inside
async def test_such_a_neighbour_can_read_a_request_that_waited(manager: CacheManager, outside: bool) -> None:
    gate = asyncio.Event()

    async def endpoint(request: Request) -> Response:
        await request.body()
        await gate.wait()
        return PlainTextResponse("body", headers={"cache-control": "no-store"})

    app = with_neighbour(Starlette(routes=[Route("/", endpoint)]), manager, [], outside=outside)
    async with served(app) as port:
        asking = [asyncio.create_task(fetch(port, "/")) for _ in range(5)]
        await eventually(lambda: manager._engine.flights.waiting == 4)
        gate.set()
        assert {(await answer).status for answer in asking} == {200}


@outside_or_inside
async def test_errors_pass_through_such_a_neighbour(manager: CacheManager, outside: bool) -> None:
    async def handler(call: Call) -> None:
        raise LookupError("broken")

    app = with_neighbour(Origin(handler), manager, [], outside=outside)
    visits = [Visit(app).begin() for _ in range(3)]
    for visit in visits:
        with pytest.raises(LookupError, match="broken"):
            await visit.end()


# Authentication


class ByToken(AuthenticationBackend):
    """Believes what the client says."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Who is asking."""
        token = conn.headers.get("authorization")
        return None if token is None else (AuthCredentials(["user"]), SimpleUser(token))


def signed_in(scope: Mapping[str, Any]) -> str | None:
    """The user whom the middleware outside has found."""
    user: BaseUser = scope["user"]
    return user.display_name if user.is_authenticated else None


async def test_the_user_of_authentication_middleware_can_be_the_principal(manager: CacheManager) -> None:
    calls: list[str] = []

    async def me(request: Request) -> Response:
        calls.append(request.user.display_name)
        return PlainTextResponse(request.user.display_name)

    rule = CacheRule("/me", ttl=60, principal=signed_in)
    app = Starlette(
        routes=[Route("/me", me)],
        middleware=[
            Middleware(AuthenticationMiddleware, backend=ByToken()),
            Middleware(CacheMiddleware, cache=manager, rules=[rule], cache_status="debug"),
        ],
    )
    for _ in range(2):
        for user in ("alice", "bob"):
            assert (await ask(app, "/me", "GET", {"authorization": user})).body == user.encode()
    assert calls == ["alice", "bob"]
    assert (await ask(app, "/me")).cache_status == "default; fwd=bypass; detail=principal"


class Strict(ByToken):
    """Lets nobody in who is not known."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Who is asking."""
        found = await super().authenticate(conn)
        if found is None:
            raise AuthenticationError("who are you?")
        return found


def behind_authentication(manager: CacheManager, rule: CacheRule, *, outside: bool) -> tuple[Starlette, list[str]]:
    """An app with a page for members, and the users for whom the page was made."""
    made: list[str] = []

    async def page(request: Request) -> Response:
        made.append(request.user.display_name)
        return PlainTextResponse("for members")

    known, cached = Middleware(AuthenticationMiddleware, backend=Strict()), Middleware(CacheMiddleware, manager, [rule])
    middleware = [known, cached] if outside else [cached, known]
    return Starlette(routes=[Route("/page", page)], middleware=middleware), made


async def test_authentication_outside_is_asked_for_hits_too(manager: CacheManager) -> None:
    """So a page that is the same for all members can be shared among them, and nobody else gets it."""
    app, made = behind_authentication(manager, CacheRule("/page", ttl=60, shared=True), outside=True)
    for user in ("alice", "bob"):
        assert (await ask(app, "/page", "GET", {"authorization": user})).body == b"for members"
    assert made == ["alice"]
    stranger = await ask(app, "/page")
    assert (stranger.status, stranger.field("cache-status")) == (400, None)


async def test_authentication_inside_is_not_asked_for_hits(manager: CacheManager) -> None:
    """Whoever says that a page is for everybody gives it to everybody."""
    app, made = behind_authentication(manager, CacheRule("/page", ttl=60, shared=True), outside=False)
    assert (await ask(app, "/page")).status == 400
    await ask(app, "/page", "GET", {"authorization": "alice"})
    assert ((await ask(app, "/page")).body, made) == (b"for members", ["alice"])


@pytest.mark.parametrize("outside", [True, False])
async def test_without_a_word_of_the_rule_nobody_gets_what_is_for_members(manager: CacheManager, outside: bool) -> None:
    """On either side: what was made for a request with credentials is not stored."""
    app, made = behind_authentication(manager, CacheRule("/page", ttl=60), outside=outside)
    for user in ("alice", "bob"):
        assert (await ask(app, "/page", "GET", {"authorization": user})).body == b"for members"
    assert made == ["alice", "bob"]
    assert (await ask(app, "/page")).status == 400


async def test_a_principal_by_the_credentials_is_safe_inside_too(manager: CacheManager) -> None:
    """It must not look at `scope["user"]`, which is not known yet."""

    def by_token(scope: Mapping[str, Any]) -> str | None:
        token: bytes | None = dict(scope["headers"]).get(b"authorization")
        return None if token is None else token.decode("latin-1")

    app, made = behind_authentication(manager, CacheRule("/page", ttl=60, principal=by_token), outside=False)
    for user in ("alice", "bob", "alice", "bob"):
        assert (await ask(app, "/page", "GET", {"authorization": user})).body == b"for members"
    assert made == ["alice", "bob"]
    assert (await ask(app, "/page")).status == 400


# FastAPI


async def test_fastapi_dependencies_are_torn_down_once_for_each_load(manager: CacheManager) -> None:
    order: list[str] = []

    async def session() -> AsyncIterator[str]:
        order.append("open")
        try:
            yield "session"
        finally:
            order.append("close")

    def sync_session() -> Iterator[str]:
        order.append("sync open")
        yield "session"
        order.append("sync close")

    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=manager, rules=[CacheRule("/**", ttl=60)])

    @app.get("/items/{item}")
    async def read(
        item: int, one: Annotated[str, Depends(session)], two: Annotated[str, Depends(sync_session)]
    ) -> dict[str, object]:
        order.append("answer")
        return {"item": item, "by": [one, two]}

    async with served(app) as port:
        answers = await asyncio.gather(*(fetch(port, "/items/7") for _ in range(10)))
        answers.append(await fetch(port, "/items/7"))
    assert {answer.body for answer in answers} == {b'{"item":7,"by":["session","session"]}'}
    assert order == ["open", "sync open", "answer", "sync close", "close"]


async def test_fastapi_exception_handlers_answer_through_the_cache(manager: CacheManager) -> None:
    class Teapot(Exception):
        pass

    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=manager, rules=[CacheRule("/**", ttl=60)])
    calls: list[int] = []

    @app.exception_handler(Teapot)
    async def on_teapot(request: FastAPIRequest, error: Teapot) -> JSONResponse:
        return JSONResponse({"detail": "short and stout"}, 418)

    @app.get("/items/{item}")
    async def read(item: int) -> None:
        calls.append(item)
        if item == 418:
            raise Teapot
        raise HTTPException(item, headers={"x-item": str(item)})

    for _ in range(2):
        for status in (404, 418, 503):
            visit = await ask(app, f"/items/{status}")
            assert visit.status == status
        assert (await ask(app, "/items/word")).status == 422
    assert calls == [404, 418, 503, 418, 503]  # what is missing is worth remembering, a failure is not


async def test_functions_that_are_not_async_run_once_in_their_thread(manager: CacheManager) -> None:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=manager, rules=[CacheRule("/**", ttl=60)])
    threads: list[int] = []
    gate = threading.Event()

    @app.get("/")
    def read() -> int:
        threads.append(threading.get_ident())
        gate.wait(10)
        return 1

    async with served(app) as port:
        asking = [asyncio.create_task(fetch(port, "/")) for _ in range(10)]
        await eventually(lambda: manager._engine.flights.waiting == 9 and threads)
        gate.set()
        assert {(await answer).body for answer in asking} == {b"1"}
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


# Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file."""
    (tmp_path / "file.txt").write_text("0123456789" * 20_000)
    return tmp_path


async def test_static_files_under_a_rule(manager: CacheManager, folder: Path) -> None:
    cached = CacheMiddleware(StaticFiles(directory=folder), cache=manager, rules=[CacheRule("/**", ttl=60)])
    async with served(Starlette(routes=[Mount("/static", app=cached)])) as port:
        first, second = await fetch(port, "/static/file.txt"), await fetch(port, "/static/file.txt")
        assert first.body == second.body == (folder / "file.txt").read_bytes()
        assert second.cache_status == "default; hit; ttl=60"
        known = await fetch(port, "/static/file.txt", {"if-none-match": first.fields["etag"]})
        assert (known.status, known.cache_status.split(";")[1]) == (304, " hit")
        part = await fetch(port, "/static/file.txt", {"range": "bytes=10-19"})
        assert (part.status, part.body) == (206, b"0123456789")
        assert (await fetch(port, "/static/missing.txt")).status == 404


async def test_a_file_response_is_recorded_although_the_server_could_send_the_path(
    manager: CacheManager, folder: Path
) -> None:
    async def endpoint(_: Request) -> Response:
        return FileResponse(folder / "file.txt", headers=FRESH)

    app = CacheMiddleware(Starlette(routes=[Route("/", endpoint)]), cache=manager)
    for expected in ("fwd", "hit"):
        visit = await ask(app, extensions={"http.response.pathsend": {}, "http.response.zerocopysend": {}})
        assert len(visit.body) == 200_000
        assert expected in visit.cache_status


# An app that asks itself


@pytest.mark.parametrize("kept", [True, False], ids=["recorded", "passing"])
async def test_a_route_that_asks_for_its_own_url_does_not_hang(manager: CacheManager, kept: bool) -> None:
    depths: list[int] = []

    async def endpoint(request: Request) -> Response:
        depths.append(len(depths))
        inner = ""
        if len(depths) < 4:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://example.com") as client:
                inner = (await client.get("/self", timeout=10)).text
        return PlainTextResponse(f"({inner})", headers=FRESH if kept else {})

    app = CacheMiddleware(Starlette(routes=[Route("/self", endpoint)]), cache=manager)
    visit = await ask(app, "/self")
    assert visit.body == b"(((())))"  # what it would get without a cache
    assert (await ask(app, "/self")).body == (b"(((())))" if kept else b"()")
    assert len(depths) == (4 if kept else 5)


async def test_routes_that_ask_for_each_other_do_not_hang(manager: CacheManager) -> None:
    calls: list[str] = []

    async def endpoint(request: Request) -> Response:
        name = request.path_params["name"]
        calls.append(name)
        if len(calls) > 6:
            return PlainTextResponse(name, headers=FRESH)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://example.com") as client:
            inner = await client.get("/b" if name == "a" else "/a", timeout=10)
        return PlainTextResponse(name + inner.text, headers=FRESH)

    app = CacheMiddleware(Starlette(routes=[Route("/{name}", endpoint)]), cache=manager)
    visits = [Visit(app, target).begin() for target in ("/a", "/b")]
    for visit in visits:
        assert (await visit.end()).status == 200
    assert loads(manager) == len(calls)
