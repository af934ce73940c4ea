"""A cache for a client that is already there."""

from __future__ import annotations

from typing import Any, TypeVar, Unpack

import httpx2

from aurelis.cache.client import AnyManager, Duration, ModelOptions, find_clients
from aurelis.cache.exceptions import ConfigurationError

from ._transports import AsyncCacheTransport, CacheTransport

C = TypeVar("C")


def wrap(
    client: C, *, cache: AnyManager | None = None, ttl: Duration = 3600.0, **model_options: Unpack[ModelOptions]
) -> C:
    """Put a cache between a client and the network, in place.

    Args:
        client: of httpx2, or of an SDK that makes its requests with one, such as `OpenAI` and `AsyncAnthropic`; of an
            SDK with an interface for each mode, both. What shares its connections, like the copies of `with_options`,
            gets the cache, too.
        cache: manager; `None` means the process's.
        ttl: seconds (or timedelta) for which the answer of a model call is served.
        model_options: as for `CacheTransport`.

    Returns:
        The same client.

    Raises:
        ConfigurationError: it has a cache already, or an option is out of range.
        TypeError: no client of httpx2 was found in it.

    Example:
        One key of the app's own serves many users, who share no answers.

        >>> import contextvars
        >>> from openai import OpenAI
        >>> user: contextvars.ContextVar[str] = contextvars.ContextVar("user")  # without one, calls fail
        >>> client = wrap(OpenAI(api_key="sk-..."), namespace=user.get)
    """
    inner = find_clients(client, (httpx2.Client, httpx2.AsyncClient))
    if any(isinstance(transport, (CacheTransport, AsyncCacheTransport)) for one in inner for transport in _ways(one)):
        raise ConfigurationError("the client has a cache already")
    made: list[tuple[Any, list[Any]]] = []  # all before one is put in place: what is refused changes nothing
    for one in inner:
        kind = AsyncCacheTransport if isinstance(one, httpx2.AsyncClient) else CacheTransport
        made.append((one, [kind(transport, cache=cache, ttl=ttl, **model_options) for transport in _ways(one)]))
    for one, (own, *mounted) in made:
        one._transport = own
        one._mounts.update(zip(_mounts(one), mounted, strict=True))
    return client


def _ways(client: Any) -> list[Any]:
    """Its transports, its own first."""
    return [client._transport, *_mounts(client).values()]


def _mounts(client: Any) -> dict[Any, Any]:
    """Proxies of the environment have transports of their own. `None` among them stands for the client's."""
    return {pattern: transport for pattern, transport in client._mounts.items() if transport is not None}
