"""What a single request says to the cache: by an extension of its own, or by fields that are for the cache alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from aurelis.cache._call_options import NO_CALL_OPTIONS, CallOptions, call_options, in_force
from aurelis.cache.exceptions import ConfigurationError

from ._library import Request

Q = TypeVar("Q", bound=Request)

EXTENSION: Final = "aurelis"
_CONTROL: Final = b"x-cache-control"
_NAMESPACE: Final = b"x-cache-namespace"
_TAGS: Final = b"x-cache-tags"
_FIELDS: Final = frozenset({_CONTROL, _NAMESPACE, _TAGS})
_NAMES: Final = frozenset(
    {
        *("ttl", "namespace", "refresh", "bypass", "only_if_cached", "tags"),
        *("stale_while_revalidate", "stale_if_error", "negative_ttl"),
    }
)
_DIRECTIVES: Final[Mapping[str, str]] = {
    "no-cache": "refresh",
    "no-store": "bypass",
    "only-if-cached": "only_if_cached",
}
_DURATIONS: Final[Mapping[str, str]] = {
    "max-age": "ttl",
    "stale-while-revalidate": "stale_while_revalidate",
    "stale-if-error": "stale_if_error",
}


def wishes(request: Q) -> tuple[Q, CallOptions]:
    """The request as the origin may see it, without fields for the cache; and what is wanted for it.

    The extension wins over the fields, and both over the options around the call.

    Raises:
        ConfigurationError: something in it cannot be understood, or contradicts something else.
    """
    options = in_force() or NO_CALL_OPTIONS
    lines = request.headers.raw
    own: dict[bytes, bytes] = {}
    for name, value in lines:
        lower = name.lower()
        if lower in _FIELDS:
            own[lower] = own[lower] + b"," + value if lower in own else value
    if own:
        options = _from_fields(own).over(options)
        make: Any = type(request)  # of the caller's library, whose requests are all made alike
        request = make(
            request.method,
            str(request.url),
            headers=[line for line in lines if line[0].lower() not in _FIELDS],
            stream=request.stream,
            extensions=dict(request.extensions),
        )
    extension = request.extensions.get(EXTENSION)
    if extension is not None:
        options = _from_extension(extension).over(options)
    return request, options


def within(options: CallOptions, namespace: str) -> CallOptions:
    """The options of a call in the transport's own namespace, which no call can leave."""
    if not namespace:
        return options
    own = options.namespace
    return replace(options, namespace=ascii((namespace, own)) if own else namespace)


def _from_extension(extension: object) -> CallOptions:
    if not isinstance(extension, Mapping):
        raise ConfigurationError(f"extensions[{EXTENSION!r}] must be a mapping, not {type(extension).__name__}")
    for name in extension:
        if name not in _NAMES:
            raise ConfigurationError(f"extensions[{EXTENSION!r}]: {name!r} is none of {', '.join(sorted(_NAMES))}")
    return call_options(**extension)


def _from_fields(own: Mapping[bytes, bytes]) -> CallOptions:
    given: dict[str, Any] = {}
    for directive in own.get(_CONTROL, b"").decode("latin-1").lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name in _DIRECTIVES:
            given[_DIRECTIVES[name]] = True
        elif name in _DURATIONS:
            if not (value.isascii() and value.isdigit() and len(value) < 16):
                raise ConfigurationError(f"X-Cache-Control: {name} must be whole seconds, such as {name}=60")
            given[_DURATIONS[name]] = float(value)
        elif name:
            known = ", ".join((*_DIRECTIVES, *_DURATIONS))
            raise ConfigurationError(f"X-Cache-Control: {name!r} is none of {known}")
    if _NAMESPACE in own:
        given["namespace"] = own[_NAMESPACE].decode("latin-1").strip()
    if _TAGS in own:
        tags = own[_TAGS].decode("latin-1").split(",")
        given["tags"] = [tag.strip() for tag in tags if tag.strip()]
    return call_options(**given)
