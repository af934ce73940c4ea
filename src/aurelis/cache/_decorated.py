"""What decorated functions are to a type checker: themselves, with three functions beside them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
C = TypeVar("C")


class CachedFunction(Protocol[P, R_co]):
    """A coroutine function whose results are cached."""

    @property
    def __name__(self) -> str:
        """The function's own."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """The result, from the cache or from the function."""
        ...

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of this call everywhere; true if there was one. A call under way is not stored.

        Raises:
            LayerError: a shared layer could not be reached, so other processes may still use it.
        """
        ...

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function whatever is stored, and store the result in every process.

        Until then others get what is stored, and so they do if the function raises. No call that has begun before is
        shared.
        """
        ...

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The full key of this call's result."""
        ...


class CachedSyncFunction(Protocol[P, R_co]):
    """A function whose results are cached, for callers that do not wait in an event loop."""

    @property
    def __name__(self) -> str:
        """The function's own."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The result, from the cache or from the function."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As `CachedFunction.invalidate`."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """As `CachedFunction.refresh`."""
        ...

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The full key of this call's result."""
        ...


class CachedMethod(CachedFunction[P, R_co], Protocol[P, R_co]):
    """A method that is a `CachedFunction` of its instances."""

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedMethod[Concatenate[Any, Q], R], instance: object, owner: type | None = None, /
    ) -> CachedFunction[Q, R]: ...


class CachedSyncMethod(CachedSyncFunction[P, R_co], Protocol[P, R_co]):
    """A method that is a `CachedSyncFunction` of its instances."""

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> CachedSyncFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedSyncMethod[Concatenate[Any, Q], R], instance: object, owner: type | None = None, /
    ) -> CachedSyncFunction[Q, R]: ...


class FunctionDecorator(Protocol):
    """What `cached(...)` gives."""

    # A coroutine function is also a function that returns a coroutine, so the order decides.
    @overload
    def __call__(  # type: ignore[overload-overlap]  # as said
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedSyncFunction[P, R]: ...


class MethodDecorator(Protocol):
    """What `cached_method(...)` gives. What takes a class first is a class method, bound by `@classmethod`."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # as in `FunctionDecorator`
        self, method: Callable[Concatenate[type[C], Q], Coroutine[Any, Any, R]], /
    ) -> CachedFunction[Q, R]: ...
    @overload
    def __call__(self, method: Callable[Concatenate[type[C], Q], R], /) -> CachedSyncFunction[Q, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # as in `FunctionDecorator`
        self, method: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CachedMethod[P, R]: ...
    @overload
    def __call__(self, method: Callable[P, R], /) -> CachedSyncMethod[P, R]: ...
