"""Options of calls hold inside of their block, the inner ones before the outer ones."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aurelis.cache import cache_options
from aurelis.cache._call_options import CallOptions, call_options, in_force
from aurelis.cache.exceptions import ConfigurationError


def test_outside_there_are_none() -> None:
    assert in_force() is None
    with cache_options():
        assert in_force() == CallOptions()
    assert in_force() is None


def test_what_is_given_inside_wins_and_tags_add_up() -> None:
    with cache_options(ttl=timedelta(minutes=1), namespace="a", refresh=True, tags=["x", "y"]):
        with cache_options(ttl=0, tags=["y", "z"]):
            assert in_force() == CallOptions(0.0, "a", "refresh", ("x", "y", "z"))
        with cache_options(namespace="", refresh=False):
            assert in_force() == CallOptions(60.0, "", "use", ("x", "y"))
        with cache_options(only_if_cached=True):
            assert in_force() == CallOptions(60.0, "a", "only_if_cached", ("x", "y"))
        assert in_force() == CallOptions(60.0, "a", "refresh", ("x", "y"))


async def test_tasks_and_threads_begun_inside_have_them() -> None:
    with cache_options(namespace="a"):
        task = asyncio.create_task(asyncio.sleep(0, None))
        inside = asyncio.create_task(_namespace())
        thread = asyncio.create_task(asyncio.to_thread(in_force))
    outside = asyncio.create_task(_namespace())
    await task
    assert await inside == "a"
    assert await thread == CallOptions(namespace="a")
    assert await outside is None


async def _namespace() -> str | None:
    options = in_force()
    return None if options is None else options.namespace


@cache_options(bypass=True)
def decorated() -> CallOptions | None:
    """Runs with options."""
    return in_force()


def test_they_decorate_functions() -> None:
    for _ in range(2):
        assert decorated() == CallOptions(mode="bypass")


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": -1},
        {"ttl": True},
        {"ttl": float("nan")},
        {"namespace": b"a"},
        {"tags": "a"},
        {"tags": {"a"}},
        {"tags": [""]},
        {"refresh": 1},
        {"bypass": True, "refresh": True},
        {"bypass": True, "only_if_cached": True},
    ],
    ids=str,
)
def test_wrong_ones_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="cache options"):
        call_options(**options)
