"""Caching of functions and methods by their arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MethodType
from typing import Any, Final, cast

from . import _tags
from ._call_keys import CallKeys
from ._decorated import FunctionDecorator, MethodDecorator
from ._engine import MISSING
from ._identities import Identities, Identity
from ._options import Duration, seconds
from .exceptions import ConfigurationError
from .manager import AnyManager, CacheManager, get_cache_manager, manager_of

_NAMELESS: Final = "<lambda>"


def cached(
    ttl: Duration = 3600,
    key_func: Callable[..., str] | None = None,
    category: str = "function",
    *,
    tags: Iterable[str] = (),
    invalidate_on: Iterable[str] = (),
    ignore: Iterable[str] = (),
    cache: AnyManager | None = None,
) -> FunctionDecorator:
    """Cache what a function returns, by its arguments. For coroutine functions and for others.

    Concurrent calls with equal arguments share one call of the function. Arguments are told apart by value and type:
    `1`, `True` and `1.0` are different, a list is not a tuple. Calls that bind the same parameters are the same call,
    however they are written.

    Immutable plain data that a function closes over when it is decorated counts like an argument. Anything else around
    it (a client, a session) does not: functions of one name that close over different ones share their results.

    A function that is not a coroutine function is called in the thread of its caller, which blocks while another one
    runs it. A result in memory is given at once.

    What is returned is the function with `invalidate`, `refresh` and `key_for` beside it, which take its arguments; see
    `aurelis.cache.typing.CachedFunction`.

    Args:
        ttl: seconds or timedelta that a result lives.
        key_func: makes the identifier from the arguments, in place of the function's name and all arguments.
        category: first part of the key.
        tags: names by which results can be invalidated together with others.
        invalidate_on: events after which no result is used any more; see `CacheInvalidator`.
        ignore: names of parameters that make no difference, such as a session.
        cache: manager; `None` means the process's, found at each call, so nothing is made when a module is imported.

    Raises:
        ConfigurationError: there are no parentheses; it is no function, or a generator; it is a bound method or a
            `functools.partial`, whose own arguments would be missing in the key, or a lambda, whose name is that of all
            others, and there is no `key_func`; a name in `ignore` is no parameter's; or there are both `ignore` and
            `key_func`.
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
    plan = _Plan.of("@cached", ttl, key_func, category, tags, invalidate_on, ignore, cache)
    return cast(FunctionDecorator, plan.decorate)


def cached_method(
    ttl: Duration = 3600,
    key_func: Callable[..., str] | None = None,
    category: str = "function",
    *,
    tags: Iterable[str] = (),
    invalidate_on: Iterable[str] = (),
    ignore: Iterable[str] = (),
    cache: AnyManager | None = None,
    identity: Identity | None = None,
) -> MethodDecorator:
    """`cached` for methods, whose results depend on the instance or the class as well.

    Class methods go on the inside, `@cached_method()` above `@classmethod`; so do static methods. A class is known by
    its name.

    Args:
        ttl: as for `cached`, and so are the others.
        key_func: is given the instance as its first argument.
        identity: what tells instances apart: the name of an attribute, or a function of the instance that returns plain
            data. It counts together with the name of the instance's class. `None`: each instance has results of its
            own, in this process only, that nobody finds any more when it is gone.

    Raises:
        ConfigurationError: as `cached`; the method takes no instance; or there are both `identity` and `key_func`.
        UnkeyableError: when called, as `cached`; or there is no `identity`, and the instance allows no weak references.

    Example:
        >>> import asyncio
        >>> class Service:
        ...     def __init__(self, tenant: str) -> None:
        ...         self.tenant = tenant
        ...     @cached_method(ttl=60, identity="tenant")
        ...     async def price(self, article: int) -> str:
        ...         return f"{self.tenant}: {article}"
        >>> async def main() -> str:
        ...     await Service("a").price.invalidate(7)
        ...     return await Service("a").price(7)
        >>> asyncio.run(main())
        'a: 7'
    """
    _check_identity(identity, key_func)
    plan = _Plan.of("@cached_method", ttl, key_func, category, tags, invalidate_on, ignore, cache)

    def decorate(method: object) -> object:
        if isinstance(method, staticmethod):
            if identity is not None:
                raise ConfigurationError("@cached_method: a static method has no instance that could be identified")
            return staticmethod(plan.decorate(method.__func__))
        of_class = isinstance(method, classmethod)
        inner = method.__func__ if isinstance(method, classmethod) else method
        return _Method(plan.decorate(inner, Identities(identity)), of_class=of_class)

    return cast(MethodDecorator, decorate)


def _check_identity(identity: object, key_func: object) -> None:
    if identity is None:
        return
    if not isinstance(identity, str) and not callable(identity):
        raise ConfigurationError("@cached_method: identity is the name of an attribute or a function of the instance")
    if key_func is not None:
        raise ConfigurationError("@cached_method: key_func gets the instance, so identity has nothing to say beside it")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a decorator was told."""

    name: str
    ttl: float
    key_func: Callable[..., str] | None
    category: str
    tags: tuple[str, ...]
    ignored: tuple[str, ...]
    cache: CacheManager | None

    @classmethod
    def of(
        cls,
        name: str,
        ttl: Duration,
        key_func: Callable[..., str] | None,
        category: str,
        tags: Iterable[str],
        events: Iterable[str],
        ignore: Iterable[str],
        cache: AnyManager | None,
    ) -> _Plan:
        if callable(ttl):
            raise ConfigurationError(f"{name} needs parentheses: write {name}() or {name}(ttl=60)")
        if key_func is not None and not callable(key_func):
            raise ConfigurationError(f"{name}: key_func takes the arguments of a call and returns a str")
        if isinstance(ignore, str):
            raise ConfigurationError(f"{name}: ignore must be a sequence of str; write ignore=[{ignore!r}]")
        ignored = tuple(ignore)
        if ignored and key_func is not None:
            raise ConfigurationError(f"{name}: key_func decides what counts, so ignore has nothing to say beside it")
        names = dict.fromkeys((*_tags.tags(tags), *_tags.tags(events, "invalidate_on")))
        given = None if cache is None else manager_of(cache)
        return cls(name, seconds(ttl), key_func, category, tuple(names), ignored, given)

    def manager(self) -> CacheManager:
        return self.cache or get_cache_manager().manager

    def decorate(self, function: Any, identities: Identities | None = None) -> Callable[..., Any]:
        is_async = inspect.iscoroutinefunction(function)
        self._check(function)
        keys = CallKeys(function, self.key_func, self.category, ignored=self.ignored, identities=identities)
        wrapper = self._async(function, keys) if is_async else self._sync(function, keys)

        def key_for(*args: Any, **kwargs: Any) -> str:
            return keys.key(self.manager().key_builder, args, kwargs)

        wrapper.key_for = key_for  # type: ignore[attr-defined]  # `CachedFunction` and its like say what there is
        return wrapper

    def _check(self, function: Any) -> None:
        kind = type(function).__name__
        name = getattr(function, "__qualname__", kind)
        if inspect.isclass(function) or not callable(function):
            raise ConfigurationError(f"{self.name} takes functions and coroutine functions; {name} is none")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"{self.name}: {name} is a generator; return a list of what it yields instead")
        if self.key_func is not None:
            return
        if not inspect.isfunction(function) or isinstance(inspect.unwrap(function), (MethodType, functools.partial)):
            raise ConfigurationError(
                f"{self.name}: a {type(inspect.unwrap(function)).__name__} may hold arguments that would not be part "
                "of the key; cache the function itself, or give key_func"
            )
        if function.__name__ == _NAMELESS:
            raise ConfigurationError(
                f"{self.name}: all lambdas of a module would have the same key; write def, or give key_func"
            )

    def _async(self, function: Callable[..., Any], keys: CallKeys) -> Callable[..., Any]:
        given, ttl, tags, key_of = self.cache, self.ttl, self.tags, keys.key

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            manager = given or get_cache_manager().manager
            key = key_of(manager.key_builder, args, kwargs)
            value = manager._engine.read_memory(key)
            if value is MISSING:
                load = functools.partial(function, *args, **kwargs)
                value = await manager._computing.get_or_compute(key, load, ttl, tags)
            return value

        async def invalidate(*args: Any, **kwargs: Any) -> bool:
            manager = self.manager()
            return await manager.delete(key_of(manager.key_builder, args, kwargs))

        async def refresh(*args: Any, **kwargs: Any) -> Any:
            manager = self.manager()
            key = key_of(manager.key_builder, args, kwargs)
            load = functools.partial(function, *args, **kwargs)
            return await manager._computing.get_or_compute(key, load, ttl, tags, anew=True)

        wrapper.invalidate, wrapper.refresh = invalidate, refresh  # type: ignore[attr-defined]  # as `key_for`
        return wrapper

    def _sync(self, function: Callable[..., Any], keys: CallKeys) -> Callable[..., Any]:
        given, ttl, tags, key_of = self.cache, self.ttl, self.tags, keys.key

        def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                if inspect.iscoroutine(value):
                    value.close()
                raise TypeError(
                    f"{self.name}: {getattr(function, '__qualname__', 'the function')} returned something to be "
                    "awaited, which can be had once only; make it a coroutine function (async def)"
                )
            return value

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            manager = given or get_cache_manager().manager
            key = key_of(manager.key_builder, args, kwargs)
            value = manager._engine.read_memory(key)
            if value is MISSING:
                load = functools.partial(call, args, kwargs)
                value = manager._computing.get_or_compute_blocking(key, load, ttl, tags)
            return value

        def invalidate(*args: Any, **kwargs: Any) -> bool:
            manager = self.manager()
            return manager._computing.delete_blocking(key_of(manager.key_builder, args, kwargs))

        def refresh(*args: Any, **kwargs: Any) -> Any:
            manager = self.manager()
            key = key_of(manager.key_builder, args, kwargs)
            load = functools.partial(call, args, kwargs)
            return manager._computing.get_or_compute_blocking(key, load, ttl, tags, anew=True)

        wrapper.invalidate, wrapper.refresh = invalidate, refresh  # type: ignore[attr-defined]  # as `key_for`
        return wrapper


class _Method:
    """Binds a decorated function as functions are bound, to its instance or, of a class method, to the class."""

    def __init__(self, function: Callable[..., Any], *, of_class: bool) -> None:
        self._function = function
        self._of_class = of_class
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        if self._of_class:
            return _Bound(self._function, type(instance) if owner is None else owner)
        return self._function if instance is None else _Bound(self._function, instance)


class _Bound(functools.partial[Any]):
    """A decorated method of one instance: called as fast as a method, with functions beside it."""

    @property
    def __self__(self) -> object:
        return self.args[0]

    @property
    def __name__(self) -> str:
        return self.func.__name__

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        return self.func.invalidate(*self.args, *args, **kwargs)  # type: ignore[attr-defined]  # see `_Plan.decorate`

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        return self.func.refresh(*self.args, *args, **kwargs)  # type: ignore[attr-defined]  # likewise

    def key_for(self, *args: Any, **kwargs: Any) -> str:
        return self.func.key_for(*self.args, *args, **kwargs)  # type: ignore[attr-defined, no-any-return]  # likewise
