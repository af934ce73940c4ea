"""What the transports are to their libraries, and to what they stand on."""

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from aurelis.cache import UnifiedCacheManager, get_cache_manager, set_cache_manager
from aurelis.cache.client import ClientOptions, ModelOptions
from aurelis.cache.exceptions import CacheClosedError, ConfigurationError
from tests.client.stack import KINDS, Stack, closing
from tests.client.upstream import Upstream
from tests.managers import opened, run_script
from tests.models.examples import chat

LIBRARIES = ["httpx2", "httpx"]


@pytest.fixture
def process_manager() -> Iterator[None]:
    """What was the process's manager before is so afterwards."""
    set_cache_manager(None)
    yield
    set_cache_manager(None)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["CacheTransport", "AsyncCacheTransport"])
def test_a_transport_is_of_one_library(library: str, name: str) -> None:
    """Some SDKs choose their library by the classes that a transport derives from."""
    transport = getattr(importlib.import_module(f"aurelis_{library}"), name)
    base = getattr(importlib.import_module(library), name.replace("Cache", "Base"))
    assert transport.__mro__ == (transport, base, object)


@pytest.mark.parametrize(("library", "other"), [("httpx2", "httpx"), ("httpx", "httpx2")])
def test_an_integration_imports_its_own_library_alone(library: str, other: str) -> None:
    run_script(
        f"""
        import sys
        import aurelis_{library}
        assert "{library}" in sys.modules
        assert "{other}" not in sys.modules
        """
    )


def test_one_library_may_go_by_both_names() -> None:
    """httpx2 can be made to stand in for httpx in a whole process."""
    run_script(
        """
        import httpx2
        httpx2.alias_httpx()
        import httpx
        assert httpx is httpx2
        from aurelis.cache import CacheManager
        import aurelis_httpx, aurelis_httpx2

        cache = CacheManager()
        inner = httpx.MockTransport(lambda request: httpx.Response(200, headers={"cache-control": "max-age=60"}))
        statuses = []
        for package in (aurelis_httpx, aurelis_httpx2):
            with httpx.Client(transport=package.CacheTransport(inner, cache=cache)) as client:
                statuses.append(client.get("http://example.com/").headers["cache-status"])
        assert "fwd" in statuses[0] and "hit" in statuses[1], statuses
        """
    )


@pytest.mark.parametrize("name", ["CacheTransport", "AsyncCacheTransport"])
def test_both_libraries_have_the_same_options(name: str) -> None:
    packages = [importlib.import_module(f"aurelis_{library}") for library in LIBRARIES]
    options = [
        {
            parameter.name: (parameter.kind, parameter.default)
            for parameter in inspect.signature(getattr(package, name)).parameters.values()
        }
        for package in packages
    ]
    assert options[0] == options[1]
    assert list(options[0]) == [
        "inner_transport",
        "cache",
        "ttl",
        "shared",
        "share_across_credentials",
        "honour_cache_control",
        "honour_request_directives",
        "max_body_bytes",
        "cache_control_fields",
        "model_options",
    ]
    named = set(options[0]) - {"inner_transport", "cache", "model_options"}
    assert named | set(get_type_hints(ModelOptions)) == {field.name for field in fields(ClientOptions)}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_inner_transport_may_be_left_out(kind: str, upstream: Upstream, process_manager: None) -> None:
    async with closing(Stack(kind, get_cache_manager().manager)) as stack:
        name = "CacheTransport" if stack.blocking else "AsyncCacheTransport"
        client = stack.client(getattr(stack.package, name)())
        url = f"{upstream.url}/v1/chat/completions"
        for _ in range(2):
            answer = await stack.send("POST", url, json=chat(), client=client)
        assert answer.is_hit
        # Somebody closes the process's manager: the next one is made, as everywhere else.
        await get_cache_manager().aclose()
        for _ in range(2):
            answer = await stack.send("POST", url, json=chat(), client=client)
        assert answer.is_hit
        assert upstream.calls == 2
    await get_cache_manager().aclose()


async def test_a_manager_that_was_closed_says_so(stack: Stack, upstream: Upstream) -> None:
    await stack.manager.aclose()
    with pytest.raises(CacheClosedError):
        await stack.send("POST", f"{upstream.url}/v1/chat/completions", json=chat())


async def test_a_unified_manager_will_do(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(cache=UnifiedCacheManager(stack.manager))
    url = f"{upstream.url}/v1/chat/completions"
    await stack.send("POST", url, json=chat(), client=client)
    assert (await stack.send("POST", url, json=chat())).is_hit


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ttl": -1}, ValueError),
        ({"ttl": float("nan")}, ValueError),
        ({"max_body_bytes": 0}, ConfigurationError),
        ({"cache_control_fields": ["a b"]}, ConfigurationError),
        ({"max_body_bytes": "1"}, ConfigurationError),
        ({"shared": "no"}, ConfigurationError),
        ({"cache": "redis://"}, TypeError),
    ],
    ids=str,
)
async def test_wrong_options_are_refused_at_once(stack: Stack, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        stack.transport(stack.mock(lambda request: None), **options)


async def test_an_inner_transport_must_be_one_of_this_kind(stack: Stack) -> None:
    other = stack.library.AsyncHTTPTransport if stack.blocking else stack.library.HTTPTransport
    for wrong in (stack.manager, other(), "http://127.0.0.1"):
        with pytest.raises(TypeError, match=r"inner_transport must be a transport with handle_.*cache=") as caught:
            stack.transport(wrong)
        assert type(wrong).__name__ in str(caught.value)


async def test_closing_closes_the_inner_transport_and_not_the_manager(stack: Stack) -> None:
    events = []
    base = stack.library.BaseTransport if stack.blocking else stack.library.AsyncBaseTransport

    class Inner(base):  # type: ignore[misc,valid-type]  # a class of either library
        def __enter__(self) -> Any:
            events.append("enter")
            return self

        async def __aenter__(self) -> Any:
            return self.__enter__()

        def close(self) -> None:
            events.append("close")

        async def aclose(self) -> None:
            self.close()

    client = stack.client(stack.transport(Inner()))
    if stack.blocking:
        with client:
            pass
        client.close()
    else:
        async with client:
            pass
    assert events[:2] == ["enter", "close"]
    stack.transport(Inner())
    await stack.manager.set("key", 1)
    assert await stack.manager.get("key") == 1


async def test_errors_are_those_of_the_inner_transport(stack: Stack) -> None:
    error = stack.library.ConnectTimeout("too slow")

    def fails(request: Any) -> Any:
        raise error

    client = stack.client(stack.transport(stack.mock(fails)))
    for url in ("http://example.com/", "http://example.com/v1/chat/completions"):
        method = "POST" if "chat" in url else "GET"
        with pytest.raises(stack.library.ConnectTimeout) as caught:
            await stack.send(method, url, json=chat() if method == "POST" else None, client=client)
        assert caught.value is error
        assert str(caught.value.request.url) == url


async def test_an_error_that_is_no_error_of_the_library_passes_unchanged(stack: Stack) -> None:
    error = RuntimeError("a bug")

    def fails(request: Any) -> Any:
        raise error

    client = stack.client(stack.transport(stack.mock(fails)))
    with pytest.raises(RuntimeError) as caught:
        await stack.send("GET", "http://example.com/", client=client)
    assert caught.value is error


async def test_responses_are_of_the_library(stack: Stack, upstream: Upstream) -> None:
    url = f"{upstream.url}/v1/chat/completions"
    for _ in range(3):
        opened_ = await stack.open("POST", url, json=chat())
        response = opened_.response
        assert isinstance(response, stack.library.Response)
        assert response.http_version == "HTTP/1.1"
        await opened_.rest()
        assert response.elapsed.total_seconds() >= 0
        assert response.num_bytes_downloaded > 0
        await opened_.close()


async def test_whose_load_it_is_gets_the_extensions_of_the_response(stack: Stack) -> None:
    """A reason phrase of the server's own, and the connection for those who look at it."""
    connection = object()

    def origin(request: Any) -> Any:
        extensions = {"http_version": b"HTTP/2", "reason_phrase": b"Fine", "network_stream": connection}
        return stack.library.Response(200, headers={"cache-control": "max-age=60"}, content=b"x", extensions=extensions)

    client = stack.client(stack.transport(stack.mock(origin)))
    seen = []
    for _ in range(2):
        opened_ = await stack.open("GET", "http://example.com/", client=client)
        await opened_.rest()
        response = opened_.response
        seen.append((response.http_version, response.reason_phrase, response.extensions.get("network_stream")))
        await opened_.close()
    assert seen == [("HTTP/2", "Fine", connection), ("HTTP/1.1", "OK", None)]


async def test_an_infinite_ttl_is_possible(stack: Stack, upstream: Upstream) -> None:
    client = stack.client(ttl=float("inf"))
    url = f"{upstream.url}/v1/chat/completions"
    for _ in range(3):
        answer = await stack.send("POST", url, json=chat(), client=client)
    assert answer.cache_status == f"{stack.manager.config.name}; hit"
    assert upstream.calls == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_work_from_one_event_loop_after_another(kind: str, upstream: Upstream) -> None:
    """A client belongs to its loop; the manager does not."""
    async with opened() as manager:
        url = f"{upstream.url}/v1/chat/completions"
        async with closing(Stack(kind, manager)) as stack:
            await stack.send("POST", url, json=chat())
        async with closing(Stack(kind, manager)) as stack:
            assert (await stack.send("POST", url, json=chat())).is_hit
