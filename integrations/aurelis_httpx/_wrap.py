"""A cache for a client that is already there."""

from __future__ import annotations

from typing import TypeVar, Unpack

import httpx

from aurelis.cache.client import AnyManager, Duration, ModelOptions, find_client
from aurelis.cache.exceptions import ConfigurationError

from ._transports import AsyncCacheTransport, CacheTransport

C = TypeVar("C")


def wrap(
    client: C, *, cache: AnyManager | None = None, ttl: Duration = 3600.0, **model_options: Unpack[ModelOptions]
) -> C:
    """Put a cache between a client and the network, in place.

    Args:
        client: of httpx, or of an SDK that makes its requests with one, such as `OpenAI` and `AsyncAnthropic`. What
            shares its connections, like the copies of `with_options`, gets the cache, too.
        cache: manager; `None` means the process's.
        ttl: seconds (or timedelta) for which the answer of a model call is served.
        model_options: as for `CacheTransport`.

    Returns:
        The same client.

    Raises:
        ConfigurationError: it has a cache already, or an option is out of range.
        TypeError: no client of httpx was found in it.
    """
    inner = find_client(client, (httpx.Client, httpx.AsyncClient))
    # Proxies of the environment have transports of their own. `None` among them stands for the first one.
    mounted = {pattern: transport for pattern, transport in inner._mounts.items() if transport is not None}
    if any(isinstance(one, (CacheTransport, AsyncCacheTransport)) for one in (inner._transport, *mounted.values())):
        raise ConfigurationError("the client has a cache already")
    kind = AsyncCacheTransport if isinstance(inner, httpx.AsyncClient) else CacheTransport
    made = {pattern: kind(transport, cache=cache, ttl=ttl, **model_options) for pattern, transport in mounted.items()}
    inner._transport = kind(inner._transport, cache=cache, ttl=ttl, **model_options)
    inner._mounts.update(made)
    return client
