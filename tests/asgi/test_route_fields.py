"""`cache_control` and `cache_tags` on routes of Starlette and FastAPI."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Response
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from aurelis.cache import CacheManager
from aurelis.cache.exceptions import ConfigurationError
from aurelis_asgi import CacheMiddleware, cache_control, cache_tags

VALUE = "max-age=60, stale-if-error=30"
Decorator = Callable[[Any], Any]


class Item(BaseModel):
    """What a route returns."""

    name: str
    number: int = 0


async def get(app: Any, path: str) -> httpx.Response:
    """One request."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://example.com") as client:
        return await client.get(path)


def same(function: Any) -> Any:
    """Decorates with nothing."""
    return function


def api(control: Decorator, tags: Decorator) -> FastAPI:
    """An app with routes of all kinds."""
    app = FastAPI()

    @app.get("/async/{number}")
    @control
    @tags
    async def read_async(number: int, q: str = "x") -> Item:
        """Reads."""
        return Item(name=q, number=number)

    @app.get("/sync/{number}")
    @tags
    @control
    def read_sync(number: int, q: str = "x") -> dict[str, Any]:
        return {"number": number, "q": q}

    @app.get("/own")
    @control
    @tags
    async def read_own(response: Response, q: Annotated[str, Depends(lambda: "x")]) -> str:
        response.headers["x-own"] = q
        return "own"

    @app.get("/dynamic")
    @control
    @tags
    async def read_dynamic(response: Response) -> str:
        response.headers["cache-control"] = "max-age=1"
        response.headers["cache-tag"] = "t1, own"
        return "dynamic"

    @app.get("/model", response_model=Item, status_code=203)
    @control
    @tags
    async def read_model() -> dict[str, Any]:
        return {"name": "a", "secret": 1}

    @app.get("/response")
    @control
    @tags
    def read_response(request: Request) -> JSONResponse:
        return JSONResponse(request.url.path, headers={"x-a": "b"})

    @app.get("/stream")
    @control
    @tags
    async def read_stream() -> StreamingResponse:
        return StreamingResponse(iter([b"a", b"b"]))

    @app.get("/error")
    @control
    @tags
    async def read_error() -> str:
        raise HTTPException(404)

    return app


PATHS = ["/async/1?q=y", "/sync/1?q=y", "/own", "/model", "/response", "/stream"]


@pytest.mark.parametrize("cached", [False, True])
async def test_routes_of_fastapi_say_it_whatever_they_return(manager: CacheManager, cached: bool) -> None:
    plain, app = api(same, same), api(cache_control(max_age=60, stale_if_error=30), cache_tags("t1", "t 2"))
    if cached:
        app.add_middleware(CacheMiddleware, cache=manager)
    for path in PATHS:
        expected, answer = await get(plain, path), await get(app, path)
        assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
        assert (answer.headers["cache-control"], answer.headers["cache-tag"]) == (VALUE, "t1,t 2")
        more = {"cache-control", "cache-tag", *(["cache-status"] if cached else [])}
        assert {name for name in answer.headers if name not in expected.headers} == more
    if cached:
        assert "; hit" in (await get(app, "/own")).headers["cache-status"]
        await manager.invalidate_tags("t 2")
        assert "; fwd=uri-miss" in (await get(app, "/own")).headers["cache-status"]


def test_fastapi_documents_the_same() -> None:
    assert api(cache_control(max_age=60), cache_tags("t")).openapi() == api(same, same).openapi()


async def test_a_route_has_the_last_word() -> None:
    answer = await get(api(cache_control(max_age=60), cache_tags("t1", "t2")), "/dynamic")
    assert answer.headers["cache-control"] == "max-age=1"
    assert answer.headers["cache-tag"] == "t1, own, t2"


async def test_errors_do_not_get_it() -> None:
    answer = await get(api(cache_control(max_age=60), cache_tags("t")), "/error")
    assert answer.status_code == 404
    assert not {"cache-control", "cache-tag"} & set(answer.headers)


async def test_functions_stay_what_they_are() -> None:
    @cache_control(max_age=1)
    @cache_tags("t")
    async def read(number: int, *, q: str = "x") -> str:
        """Reads."""
        return f"{number}{q}"

    @cache_control(max_age=1)
    def read_sync(number: int) -> int:
        return number

    @cache_tags("t")
    def read_more(*numbers: int, **more: int) -> tuple[int, ...]:
        return (*numbers, *more.values())

    assert read_more(1, 2, a=3) == (1, 2, 3)
    assert list(inspect.signature(read_more).parameters)[-1] == "more"
    assert (read.__name__, read.__doc__, inspect.iscoroutinefunction(read)) == ("read", "Reads.", True)
    assert (await read(1, q="y"), read_sync(2), inspect.iscoroutinefunction(read_sync)) == ("1y", 2, False)
    assert list(inspect.signature(read).parameters)[:2] == ["number", "q"]
    with pytest.raises(TypeError):
        await read()  # type: ignore[call-arg]  # the mistake


async def test_routes_of_starlette() -> None:
    @cache_control(public=True, s_maxage=timedelta(minutes=1))
    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    @cache_tags("t")
    def read_sync(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    class Endpoint(HTTPEndpoint):
        @cache_control(no_store=True)
        async def get(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.url.path)

    app = Starlette(routes=[Route("/a", read), Route("/b", read_sync), Route("/c", Endpoint)])
    assert (await get(app, "/a")).headers["cache-control"] == "public, s-maxage=60"
    assert (await get(app, "/b")).headers["cache-tag"] == "t"
    assert (await get(app, "/c")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"max_age": 0}, "max-age=0"),
        ({"max_age": 1.9}, "max-age=1"),
        ({"no_cache": True, "private": True}, "private, no-cache"),
        ({"max_age": 5, "immutable": True}, "immutable, max-age=5"),
        ({"no_store": True, "must_understand": True, "max_age": 5}, "no-store, must-understand, max-age=5"),
        ({"max_age": 5, "proxy_revalidate": True, "no_transform": True}, "no-transform, proxy-revalidate, max-age=5"),
        ({"max_age": 5, "stale_while_revalidate": 6}, "max-age=5, stale-while-revalidate=6"),
    ],
)
async def test_arguments_are_directives(arguments: dict[str, Any], value: str) -> None:
    @cache_control(**arguments)
    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse("a")

    assert (await get(Starlette(routes=[Route("/", read)]), "/")).headers["cache-control"] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "says nothing"),
        ({"public": True, "private": True}, "public and private contradict"),
        ({"no_store": True, "max_age": 1}, "no-store and max-age contradict"),
        ({"no_store": True, "no_cache": True}, "no-store and no-cache contradict"),
        ({"private": True, "s_maxage": 1}, "private and s-maxage contradict"),
        ({"no_cache": True, "immutable": True, "max_age": 1}, "no-cache and immutable contradict"),
        ({"must_revalidate": True, "max_age": 1, "stale_if_error": 1}, "must-revalidate and stale-if-error"),
        ({"must_understand": True, "max_age": 1}, "nothing without no_store=True"),
        ({"immutable": True}, "pass max_age="),
        ({"max_age": -1}, "seconds from 0 on"),
        ({"max_age": float("nan")}, "seconds from 0 on"),
        ({"max_age": float("inf")}, "seconds from 0 on"),
        ({"max_age": True}, "seconds from 0 on"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        cache_control(**arguments)


@pytest.mark.parametrize(
    "tags", [(), ("",), ("a,b",), (" a",), ("ä",), ("a\nb",), ("a\r\nset-cookie: x",), ("x" * 513,)]
)
def test_tags_that_cannot_be_sent_are_refused(tags: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="cache_tags"):
        cache_tags(*tags)


def test_what_is_no_function_of_a_route_is_refused() -> None:
    def stream() -> Iterator[bytes]:
        yield b""

    async def stream_async() -> AsyncIterator[bytes]:
        yield b""

    class Endpoint(HTTPEndpoint):
        pass

    for function in (stream, stream_async, Endpoint):
        with pytest.raises(ConfigurationError):
            cache_control(max_age=1)(function)
