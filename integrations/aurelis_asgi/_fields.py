"""What a route says about caching, declared beside it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

from starlette.responses import Response

from aurelis.cache.exceptions import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")

_RESPONSE = "_aurelis_response"
_MAX_TAG_LENGTH = 512


def cache_control(
    *,
    max_age: float | timedelta | None = None,
    s_maxage: float | timedelta | None = None,
    stale_while_revalidate: float | timedelta | None = None,
    stale_if_error: float | timedelta | None = None,
    public: bool = False,
    private: bool = False,
    no_store: bool = False,
    no_cache: bool = False,
    no_transform: bool = False,
    must_revalidate: bool = False,
    proxy_revalidate: bool = False,
    must_understand: bool = False,
    immutable: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a route send `Cache-Control` (RFC 9111 §5.2.2, RFC 5861, RFC 8246), with or without `CacheMiddleware`.

    For functions and coroutine functions that return a response, and with FastAPI for those that return plain data; to
    be written below the decorator of the route. A route that sets the field itself has the last word. An exception
    gives a response of its own, which does not get it.

    Args:
        max_age: seconds, rounded down, or a `timedelta`; also the other durations.

    Raises:
        ConfigurationError: nothing is said, a duration is negative, or directives contradict each other.

    Example:
        >>> @cache_control(max_age=60, stale_if_error=600)
        ... async def news(): ...
    """
    flags = {
        "public": public,
        "private": private,
        "no-store": no_store,
        "no-cache": no_cache,
        "no-transform": no_transform,
        "must-revalidate": must_revalidate,
        "proxy-revalidate": proxy_revalidate,
        "must-understand": must_understand,
        "immutable": immutable,
    }
    durations = {
        "max-age": max_age,
        "s-maxage": s_maxage,
        "stale-while-revalidate": stale_while_revalidate,
        "stale-if-error": stale_if_error,
    }
    said = [name for name, is_set in flags.items() if is_set]
    given = {name: _whole_seconds(name, value) for name, value in durations.items() if value is not None}
    _refuse_contradictions({*said, *given})
    value = ", ".join([*said, *(f"{name}={seconds}" for name, seconds in given.items())])

    def set_field(response: Response) -> None:
        response.headers.setdefault("cache-control", value)

    return _decorator(set_field)


def cache_tags(*tags: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a route send `Cache-Tag`, by which its responses can be purged; used as `cache_control` is.

    Args:
        tags: each without commas, spaces around it and characters that are not ASCII.

    Raises:
        ConfigurationError: none is given, or one cannot be sent.

    Example:
        >>> @cache_tags("catalog", "front-page")
        ... def catalog(): ...
    """
    if not tags:
        raise ConfigurationError("cache_tags() needs at least one tag")
    for tag in tags:
        sendable = 0 < len(tag) <= _MAX_TAG_LENGTH and tag.isascii() and tag.isprintable()
        if not sendable or "," in tag or tag != tag.strip():
            raise ConfigurationError(
                f"cache_tags: {tag!r} cannot be sent in a header field; pass 1 to {_MAX_TAG_LENGTH} printable ASCII"
                " characters without a comma"
            )

    def add_field(response: Response) -> None:
        sent = [each.strip() for line in response.headers.getlist("cache-tag") for each in line.split(",")]
        missing = [tag for tag in tags if tag not in sent]
        if missing:
            response.headers.append("cache-tag", ",".join(missing))

    return _decorator(add_field)


def _decorator(change: Callable[[Response], None]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def decorate(endpoint: Callable[P, R]) -> Callable[P, R]:
        function = cast("Callable[..., Any]", endpoint)  # its parameters are handed on as they came
        if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):
            raise ConfigurationError("a generator has no response to say it on; return a StreamingResponse")
        if not inspect.isroutine(endpoint):
            raise ConfigurationError("decorate the function of the route, below the decorator that makes it one")
        signature, name, added = _with_response(endpoint)

        def finish(result: object, kwargs: dict[str, Any]) -> None:
            # What the route returns goes out as it is; FastAPI adds the fields of its own response to plain data.
            response = result if isinstance(result, Response) else kwargs.get(name)
            if isinstance(response, Response):
                change(response)

        def own(kwargs: dict[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in kwargs.items() if key != name} if added else kwargs

        if inspect.iscoroutinefunction(endpoint):

            @wraps(endpoint)
            async def call_async(*args: Any, **kwargs: Any) -> object:
                result = await function(*args, **own(kwargs))
                finish(result, kwargs)
                return result

            call_async.__signature__ = signature  # type: ignore[attr-defined]  # `inspect` looks for it
            return cast("Callable[P, R]", call_async)

        @wraps(endpoint)
        def call(*args: Any, **kwargs: Any) -> object:
            result = function(*args, **own(kwargs))
            finish(result, kwargs)
            return result

        call.__signature__ = signature  # type: ignore[attr-defined]  # `inspect` looks for it
        return cast("Callable[P, R]", call)

    return decorate


def _with_response(endpoint: Callable[..., object]) -> tuple[inspect.Signature, str, bool]:
    """A signature by which FastAPI hands over the response whose fields it adds to plain data.

    Returns:
        The signature, the name of the parameter, and whether the function itself has none.
    """
    signature = inspect.signature(endpoint)
    parameters = list(signature.parameters.values())
    try:
        hints = get_type_hints(endpoint)
    except (NameError, TypeError):  # names for type checkers alone
        hints = {}
    for parameter in parameters:
        annotation = hints.get(parameter.name, parameter.annotation)
        if parameter.name == _RESPONSE or (inspect.isclass(annotation) and issubclass(annotation, Response)):
            return signature, parameter.name, False
    hidden = inspect.Parameter(_RESPONSE, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Response)
    last = len(parameters)
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        last -= 1
    return signature.replace(parameters=[*parameters[:last], hidden, *parameters[last:]]), _RESPONSE, True


def _whole_seconds(name: str, value: float | timedelta) -> int:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{name}={value!r}: pass seconds from 0 on, or a timedelta")
    return int(seconds)


_CONTRADICTIONS = (
    ("public", {"private"}, "everybody or one user"),
    ("no-store", {"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "immutable"}, "keep it or not"),
    ("no-store", {"no-cache", "must-revalidate", "proxy-revalidate"}, "what is not kept is not confirmed"),
    ("private", {"s-maxage", "proxy-revalidate"}, "these are for shared caches"),
    ("no-cache", {"immutable", "stale-while-revalidate"}, "confirm it each time or not"),
    ("must-revalidate", {"stale-while-revalidate", "stale-if-error"}, "serve it stale or not"),
)


def _refuse_contradictions(said: set[str]) -> None:
    if not said:
        raise ConfigurationError("cache_control() says nothing; pass for instance max_age=60 or no_store=True")
    for one, others, reason in _CONTRADICTIONS:
        # `no-store` beside a lifetime has a meaning if there is `must-understand` (RFC 9111 §5.2.2.3).
        if one not in said or (one == "no-store" and "must-understand" in said):
            continue
        if both := sorted(others & said):
            raise ConfigurationError(f"{one} and {both[0]} contradict each other ({reason}): leave one of them out")
    if "must-understand" in said and "no-store" not in said:
        raise ConfigurationError("must_understand=True means nothing without no_store=True (RFC 9111 §5.2.2.3)")
    if "immutable" in said and "max-age" not in said:
        raise ConfigurationError("immutable=True is about the time while a response is fresh (RFC 8246): pass max_age=")
