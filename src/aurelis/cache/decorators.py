"""Caching of functions by their arguments."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from types import FunctionType
from typing import Any, Final, ParamSpec, TypeVar

from cachetools import LRUCache

from ._engine import MISSING
from ._options import Duration, seconds
from .codecs import is_immutable
from .exceptions import ConfigurationError
from .manager import AnyManager, CacheManager, get_cache_manager, manager_of

P = ParamSpec("P")
R = TypeVar("R")

_MEMOISED_KEYS: Final = 1024
_MEMOISED_LENGTH: Final = 1024
"""Characters and bytes in all arguments of a call: a memo must not keep a thousand long prompts alive."""
_MEMOISABLE: Final = frozenset({str, bytes, int, bool, type(None)})
"""Types of arguments whose keys are remembered. Equal arguments of one of these types, and of the same type, always
have the same key; a float is left out because 0.0 and -0.0 are equal and have different ones."""
_CLOSURE: Final = "<closure>"
"""Stands beside the names of parameters, and can be none."""


def cached(
    ttl: Duration = 3600,
    key_func: Callable[..., str] | None = None,
    category: str = "function",
    *,
    cache: AnyManager | None = None,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Cache what a coroutine function returns, by its arguments.

    Concurrent calls with equal arguments share one call of the function. Arguments are told apart by value and type:
    `1`, `True` and `1.0` are different, a list is not a tuple. Calls that bind the same parameters are the same call,
    however they are written.

    Immutable plain data that a function closes over when it is decorated counts like an argument. Anything else around
    it (a client, a session) does not: functions of one name that close over different ones share their results.

    Args:
        ttl: seconds or timedelta that a result lives.
        key_func: makes the identifier from the arguments, in place of the function's name and all arguments.
        category: first part of the key.
        cache: manager; `None` means the process's, found at each call, so nothing is made when a module is imported.

    Raises:
        ConfigurationError: there are no parentheses; the function is not a coroutine function; or it is a bound method
            or a `functools.partial`, whose own arguments would be missing in the key, and there is no `key_func`.
        UnkeyableError: when called, with an argument that cannot be part of a key (a session, a request, `self`); the
            message names the argument.
        ValueError: the ttl is negative or not a number.

    Example:
        >>> import asyncio
        >>> @cached(ttl=60)
        ... async def square(number: int) -> int:
        ...     print("computing")
        ...     return number * number
        >>> async def main() -> list[int]:
        ...     return [await square(7), await square(number=7)]
        >>> asyncio.run(main())
        computing
        [49, 49]
    """
    if callable(ttl):
        raise ConfigurationError("@cached needs parentheses: write @cached() or @cached(ttl=60)")
    if key_func is not None and not callable(key_func):
        raise ConfigurationError("@cached: key_func takes the arguments of a call and returns a str")
    life = seconds(ttl)
    given = None if cache is None else manager_of(cache)

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if not inspect.iscoroutinefunction(function):
            name = getattr(function, "__qualname__", type(function).__name__)
            raise ConfigurationError(f"@cached takes coroutine functions (async def); {name} is none")
        if key_func is None and not inspect.isfunction(function):
            raise ConfigurationError(
                f"@cached: a {type(function).__name__} already holds arguments that would not be part of the key; "
                "cache the function itself, or give key_func"
            )
        keys = _Keys(function, key_func, category)

        @functools.wraps(function)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            manager = given or get_cache_manager().manager
            engine = manager._engine
            key = keys.key(manager, args, kwargs)
            value = engine.read_memory(key)
            if value is MISSING:
                load = functools.partial(function, *args, **kwargs)
                value = await manager._computing.get_or_compute(key, load, life)
            return value  # type: ignore[return-value]  # what is stored under the key is what the function gives

        return wrapper

    return decorate


class _Keys:
    """Makes and remembers the keys of one function's calls."""

    def __init__(self, function: Callable[..., Any], key_func: Callable[..., str] | None, category: str) -> None:
        self._name = "" if key_func is not None else f"{function.__module__}.{function.__qualname__}"
        self._closure = _closure_of(function)
        self._signature = inspect.signature(function)
        self._key_func = key_func
        self._category = category
        self._known: LRUCache[object, str] = LRUCache(_MEMOISED_KEYS)

    def key(self, manager: CacheManager, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The full key of a call."""
        builder = manager.key_builder
        if self._key_func is not None:
            return builder.build_key(self._category, self._key_func(*args, **kwargs))
        call: object = None
        types = tuple(map(type, args))
        if not kwargs and _MEMOISABLE.issuperset(types):
            call = (builder.namespace, args, types)
            try:
                return self._known[call]
            except KeyError:
                pass
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        params = dict(bound.arguments)
        if self._closure:
            params[_CLOSURE] = self._closure
        key = builder.build_key(self._category, self._name, params)
        if call is not None and sum(len(part) for part in args if isinstance(part, (str, bytes))) <= _MEMOISED_LENGTH:
            # Two threads may both store: the same key, and an LRU's worst is to forget one.
            try:
                self._known[call] = key
            except (KeyError, RuntimeError):
                self._known = LRUCache(_MEMOISED_KEYS)
        return key


def _closure_of(function: object) -> dict[str, object]:
    """What the function closes over that sets its results apart from those of others with the same name."""
    if not isinstance(function, FunctionType):
        return {}
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # assigned later, as the function's own name is
            if is_immutable(cell.cell_contents):
                found[name] = cell.cell_contents
    return found
