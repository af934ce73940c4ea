"""An error that several callers get tells none of them what another one was doing."""

import asyncio
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from aurelis.cache import CacheManager, EntryOptions, cached
from aurelis.cache._shared_errors import SharedError, detach
from aurelis_httpx2 import CacheTransport
from tests.managers import WITHIN, eventually, opened

SECRET = "what another caller was doing"


class Raised:
    """An error of an origin, which has handled another one before."""

    def __init__(self) -> None:
        self.errors: list[ValueError] = []

    def __call__(self) -> object:
        try:
            raise LookupError("the origin's own")
        except LookupError:
            self.errors.append(ValueError("broken"))
            raise self.errors[-1]  # noqa: B904  # the context is what this is about


def assert_clean(error: BaseException) -> None:
    """Nothing of the other caller is in it, and its own history is."""
    assert "broken" in str(error)
    text = "".join(traceback.format_exception(error))
    assert SECRET not in text
    assert "the origin's own" in text


async def handling(ask: Callable[[], Any]) -> ValueError:
    """Asks while an error is handled, and returns what that raised."""
    try:
        raise KeyError(SECRET)
    except KeyError:
        try:
            await ask()
        except ValueError as error:
            if hasattr(error, "__notes__"):
                raise AssertionError("it has the note of another caller") from None
            error.add_note("a note")
            return error
    raise AssertionError("it has not failed")


def handling_in_a_thread(ask: Callable[[], Any]) -> ValueError:
    """The same without an event loop."""
    try:
        raise KeyError(SECRET)
    except KeyError:
        try:
            ask()
        except ValueError as error:
            return error
    raise AssertionError("it has not failed")


async def test_those_who_wait_for_a_load_do_not_see_each_other() -> None:
    gate, raised = asyncio.Event(), Raised()

    async def load() -> object:
        await gate.wait()
        return raised()

    async with opened() as cache:
        asking = [asyncio.create_task(handling(lambda: cache.get_or_compute("k", load))) for _ in range(3)]
        await eventually(lambda: cache._engine.flights.waiting == 2)
        gate.set()
        for error in await asyncio.gather(*asking):
            assert error is raised.errors[0]
            assert_clean(error)


async def test_who_gets_a_failure_that_is_remembered_does_not_see_who_caused_it() -> None:
    options, raised = EntryOptions(negative_ttl=60), Raised()

    async def load() -> object:
        return raised()

    async with opened() as cache:
        for _ in range(2):
            assert_clean(await handling(lambda: cache.get_or_compute("k", load, options=options)))
        with pytest.raises(ValueError, match="broken") as found:
            await cache.get_or_compute("k", load, options=options)
        assert_clean(found.value)
    assert len(raised.errors) == 1


def test_threads_that_wait_for_a_function_do_not_see_each_other() -> None:
    gate, raised, cache = threading.Event(), Raised(), CacheManager()

    @cached(cache=cache)
    def load() -> object:
        assert gate.wait(WITHIN)
        return raised()

    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(handling_in_a_thread, load) for _ in range(3)]
        while cache._engine.flights.waiting < 2:
            pass
        gate.set()
        for each in asking:
            assert_clean(each.result(WITHIN))
    assert len(raised.errors) == 1
    asyncio.run(cache.aclose())


@pytest.mark.parametrize("where", ["head", "body"])
def test_threads_that_wait_for_a_response_do_not_see_each_other(where: str) -> None:
    gate, raised = threading.Event(), Raised()

    class Body(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"begun"
            assert gate.wait(WITHIN)
            raised()

    def origin(request: httpx2.Request) -> httpx2.Response:
        if where == "head":
            assert gate.wait(WITHIN)
            raised()
        return httpx2.Response(200, headers={"cache-control": "max-age=60"}, stream=Body())

    cache = CacheManager()
    with (
        httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache)) as client,
        ThreadPoolExecutor(3) as threads,
    ):
        asking = [threads.submit(handling_in_a_thread, lambda: client.get("http://x.example/")) for _ in range(3)]
        while cache._engine.flights.waiting < 2:
            pass
        gate.set()
        for each in asking:
            assert_clean(each.result(WITHIN))
    assert len(raised.errors) == 1
    asyncio.run(cache.aclose())


def test_threads_that_wait_for_the_same_items_do_not_see_each_other() -> None:
    gate, raised = threading.Event(), Raised()

    def origin(request: httpx2.Request) -> httpx2.Response:
        assert gate.wait(WITHIN)
        raised()
        raise AssertionError("it has raised")

    cache, body = CacheManager(), {"model": "m", "input": ["one", "two"]}
    with (
        httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache)) as client,
        ThreadPoolExecutor(3) as threads,
    ):

        def embed() -> httpx2.Response:
            return client.post("http://x.example/v1/embeddings", json=body)

        asking = [threads.submit(handling_in_a_thread, embed) for _ in range(3)]
        while cache._engine.flights.waiting < 4:  # two for each who follows
            pass
        gate.set()
        for each in asking:
            assert_clean(each.result(WITHIN))
    assert len(raised.errors) == 1
    asyncio.run(cache.aclose())


def test_an_error_is_raised_as_it_was() -> None:
    raised = Raised()
    with pytest.raises(ValueError, match="broken") as found:
        raised()
    found.value.add_note("the load's own")
    shared = SharedError.of(found.value)
    for _ in range(3):
        try:
            raise KeyError(SECRET)
        except KeyError:
            with pytest.raises(ValueError, match="broken") as found:
                shared.again()
        assert found.value is raised.errors[0]
        assert_clean(found.value)
        assert found.value.__notes__ == ["the load's own"]
        found.value.add_note(SECRET)


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and what was handled when it was raised."""
    return [] if error is None else [error, *chain(error.__context__)]


def test_only_what_was_handled_before_is_taken_away() -> None:
    handled, own, error = KeyError(SECRET), LookupError("own"), ValueError("broken")
    own.__context__, error.__context__ = handled, own
    for other in (None, error, KeyError()):
        detach(error, other)
        assert chain(error) == [error, own, handled]
    detach(error, handled)
    assert chain(error) == [error, own]
    own.__context__ = error  # which Python itself would not do
    detach(error, handled)
