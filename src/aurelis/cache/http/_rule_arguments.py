"""What the arguments of a rule may be. Each function gives the argument in its final form, or says what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from aurelis.cache.exceptions import ConfigurationError

from ._grammar import is_token
from ._matching import HostPattern, Pattern, ValuePattern, names_expression

METHODS: Final = frozenset({"GET", "HEAD"})
STATUSES: Final = frozenset({200, 203, 301, 308, 404})
OVERRIDABLE: Final = frozenset({"no-store", "private", "no-cache"})
_NEVER_STORED: Final = frozenset({206, 304})


def lifetime(ttl: object) -> float:
    """A ttl in seconds, > 0."""
    seconds = _seconds("ttl", ttl)
    if not seconds > 0:  # also NaN
        raise ConfigurationError(f"ttl={ttl!r}: a rule keeps responses for more than 0 seconds")
    return seconds


def window(name: str, value: object) -> float | None:
    """A stale window in seconds, ≥ 0 and finite; `None`: not said."""
    if value is None:
        return None
    seconds = _seconds(name, value)
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{name}={value!r}: pass 0 seconds or more, and not for ever")
    return seconds


def methods(value: object) -> tuple[str, ...]:
    """The methods a rule speaks for."""
    found = (value,) if isinstance(value, str) else _listed("method", value, '("GET",)')
    for method in found:
        if not isinstance(method, str) or method not in METHODS:
            raise ConfigurationError(f"method: {method!r} cannot be cached; a rule speaks for GET, HEAD or both")
    if not found:
        raise ConfigurationError("method=(): the rule would match nothing; leave it out, or name GET or HEAD")
    return tuple(sorted({str(method) for method in found}))


def hosts(value: object) -> tuple[tuple[Pattern, ...], tuple[HostPattern, ...]]:
    """The patterns for hosts, as they were given and ready."""
    if value is None:
        return (), ()
    given = tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    if not given:
        raise ConfigurationError("host=(): the rule would match nothing; leave it out, or name a host")
    return given, tuple(map(HostPattern.of, given))


def conditions(value: object) -> tuple[tuple[tuple[str, Pattern], ...], tuple[tuple[bytes, ValuePattern], ...]]:
    """The patterns for request fields by lower-case name, as they were given and ready."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise ConfigurationError(f'headers={value!r}: pass a mapping, for instance {{"Accept": "*json*"}}')
    given = sorted(((_field("headers", name), pattern) for name, pattern in pairs), key=lambda pair: pair[0])
    ready = tuple((name.encode(), ValuePattern.of(pattern, f"headers[{name!r}]")) for name, pattern in given)
    return tuple(given), ready


def statuses(value: object) -> tuple[int, ...]:
    """The statuses that a rule keeps, sorted."""
    found = _listed("statuses", value, "(200, 404)")
    kept: set[int] = set()
    for status in found:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status < 500:
            raise ConfigurationError(f"statuses: {status!r} cannot be kept by a rule; name statuses from 200 to 499")
        if status in _NEVER_STORED:
            raise ConfigurationError(f"statuses: {status} is no response of its own; leave it out")
        kept.add(status)
    if not kept:
        raise ConfigurationError("statuses=(): the rule would keep nothing; leave it out, or use bypass=True")
    return tuple(sorted(kept))


def cookies(value: object) -> tuple[bytes, ...]:
    """The names of cookies; empty also where none is given."""
    if value is None:
        return ()
    names: list[bytes] = []
    for cookie in _listed("cookies", value, f"({value!r},)"):
        name = cookie.encode("utf-8", "replace") if isinstance(cookie, str) else b""
        if not is_token(name):
            raise ConfigurationError(f"cookies: {cookie!r} is not the name of a cookie")
        names.append(name)
    return tuple(names)


def fields(name: str, value: object) -> tuple[str, ...]:
    """Names of request fields, lower case, sorted, each once."""
    return tuple(sorted({_field(name, each) for each in _listed(name, value, f"({value!r},)")}))


def parameters(name: str, value: object) -> tuple[str, ...]:
    """Names of query parameters, in which `*` may stand for any text."""
    found = _listed(name, value, f"({value!r},)")
    names_expression(found, name)
    return tuple(map(str, found))


def overridden(value: object) -> frozenset[str]:
    """Response directives that a rule sets aside."""
    found = _listed("override", value, '("no-store",)')
    for directive in found:
        if not isinstance(directive, str) or directive not in OVERRIDABLE:
            names = ", ".join(sorted(OVERRIDABLE))
            raise ConfigurationError(f"override: {directive!r} cannot be set aside; a rule may override {names}")
    return frozenset(map(str, found))


def body_limit(value: object) -> int | None:
    """Bytes, > 0; `None`: the general limit."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(f"max_body_bytes={value!r}: pass 1 or more bytes")
    return value


def _listed(name: str, value: object, example: str) -> tuple[object, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise ConfigurationError(f"{name}={value!r}: pass a tuple of names, for instance {example}")
    return tuple(value)


def _field(argument: str, name: object) -> str:
    # `*` is a token, and in Vary it means that no request selects the response.
    if not isinstance(name, str) or not is_token(name.encode("utf-8", "replace")) or name == "*":
        raise ConfigurationError(f"{argument}: {name!r} is not the name of a header field")
    return name.lower()


def _seconds(name: str, value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ConfigurationError(f"{name}={value!r}: pass seconds or a timedelta")
