"""What a caller wants of the cache for the calls that it makes, given where those are made or around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from ._options import Duration, seconds
from .exceptions import ConfigurationError

T = TypeVar("T")

Mode = Literal["use", "refresh", "bypass", "only_if_cached"]
"""What the cache is to do: answer and store; load anew and store; nothing; answer or refuse."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of some calls. What is not given is left as it is otherwise.

    Attributes:
        ttl: seconds ≥ 0 for which a new answer is kept; 0: not at all; `None`: not given.
        namespace: calls of different namespaces never share answers; `None`: not given; empty: none.
        mode: what the cache is to do; `None`: not given.
        tags: names by which a new answer can be invalidated.
        stale_while_revalidate: seconds ≥ 0 after its ttl in which an answer may be given while it is loaded anew;
            `None`: not given.
        stale_if_error: the same where it cannot be loaded anew.
        negative_ttl: seconds ≥ 0 for which a failure is given again; `None`: not given.
    """

    ttl: float | None = None
    namespace: str | None = None
    mode: Mode | None = None
    tags: tuple[str, ...] = ()
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    negative_ttl: float | None = None

    def over(self, outer: CallOptions) -> CallOptions:
        """These options where they say something, and else those around them; tags add up."""
        return CallOptions(
            _inner(self.ttl, outer.ttl),
            _inner(self.namespace, outer.namespace),
            _inner(self.mode, outer.mode),
            tuple(dict.fromkeys((*outer.tags, *self.tags))),
            _inner(self.stale_while_revalidate, outer.stale_while_revalidate),
            _inner(self.stale_if_error, outer.stale_if_error),
            _inner(self.negative_ttl, outer.negative_ttl),
        )


def _inner(own: T | None, outer: T | None) -> T | None:
    return outer if own is None else own


NO_CALL_OPTIONS: Final = CallOptions()

_in_force: ContextVar[CallOptions | None] = ContextVar("aurelis.cache.options", default=None)
in_force: Final = _in_force.get
"""The options around the present call; `None`: there are none."""


def call_options(
    *,
    ttl: Duration | None = None,
    namespace: str | None = None,
    refresh: bool | None = None,
    bypass: bool | None = None,
    only_if_cached: bool | None = None,
    tags: Sequence[str] = (),
    stale_while_revalidate: Duration | None = None,
    stale_if_error: Duration | None = None,
    negative_ttl: Duration | None = None,
) -> CallOptions:
    """Options from what callers write.

    Raises:
        ConfigurationError: a value is of the wrong kind or out of range, or two contradict each other.
    """
    if namespace is not None and not isinstance(namespace, str):
        raise ConfigurationError(f"cache options: namespace must be a str, not {type(namespace).__name__}")
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise ConfigurationError("cache options: tags must be a sequence of str, such as ['answers']")
    names: Sequence[object] = tags
    if not all(isinstance(tag, str) and tag for tag in names):
        raise ConfigurationError("cache options: a tag must be a str that is not empty")
    return CallOptions(
        _seconds("ttl", ttl),
        namespace,
        _mode({"refresh": refresh, "bypass": bypass, "only_if_cached": only_if_cached}),
        tuple(dict.fromkeys(tags)),
        _seconds("stale_while_revalidate", stale_while_revalidate),
        _seconds("stale_if_error", stale_if_error),
        _seconds("negative_ttl", negative_ttl),
    )


def _seconds(name: str, duration: Duration | None) -> float | None:
    try:
        return None if duration is None else seconds(duration, name)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"cache options: {error}") from None


def _mode(flags: Mapping[Mode, object]) -> Mode | None:
    wanted: list[Mode] = []
    for name, flag in flags.items():
        if flag is not None and not isinstance(flag, bool):
            raise ConfigurationError(f"cache options: {name} must be True or False, not {type(flag).__name__}")
        if flag:
            wanted.append(name)
    if len(wanted) > 1:
        raise ConfigurationError(f"cache options: {wanted[0]} and {wanted[1]} contradict each other")
    if wanted:
        return wanted[0]
    return None if all(flag is None for flag in flags.values()) else "use"


@contextmanager
def cache_options(
    *,
    ttl: Duration | None = None,
    namespace: str | None = None,
    refresh: bool | None = None,
    bypass: bool | None = None,
    only_if_cached: bool | None = None,
    tags: Sequence[str] = (),
    stale_while_revalidate: Duration | None = None,
    stale_if_error: Duration | None = None,
    negative_ttl: Duration | None = None,
) -> Iterator[None]:
    """Options for all calls that are made inside, by whatever framework, through caching transports.

    They are kept in a context variable: tasks begun inside have them, and so have threads that run in a copy of the
    context, as with `asyncio.to_thread`. Inner options win over outer ones, and tags add up. What a request itself says
    wins over both.

    Args:
        ttl: seconds (or timedelta) for which new answers are kept; 0: not at all.
        namespace: calls of different namespaces never share answers.
        refresh: answers are loaded anew and stored.
        bypass: the cache has no part in the calls. `False` ends what is around it, like `refresh` and `only_if_cached`.
        only_if_cached: what is not stored is not asked for: the response is a 504.
        tags: names by which new answers can be invalidated.
        stale_while_revalidate: seconds (or timedelta) after its ttl in which an answer is still given while one load
            goes on in the background. For how long it is kept is up to the call that stores it.
        stale_if_error: the same where the origin fails.
        negative_ttl: seconds (or timedelta) at most for which the failure of a call of a model is given again to those
            who make the same call.

    Raises:
        ConfigurationError: a value is of the wrong kind or out of range, or two contradict each other.

    Example:
        >>> with cache_options(ttl=60, tags=["weather"]):
        ...     pass
    """
    options = call_options(
        ttl=ttl,
        namespace=namespace,
        refresh=refresh,
        bypass=bypass,
        only_if_cached=only_if_cached,
        tags=tags,
        stale_while_revalidate=stale_while_revalidate,
        stale_if_error=stale_if_error,
        negative_ttl=negative_ttl,
    )
    outer = _in_force.get()
    token = _in_force.set(options if outer is None else options.over(outer))
    try:
        yield
    finally:
        _in_force.reset(token)
