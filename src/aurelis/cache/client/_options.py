"""What can be chosen about the cache behind a transport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aurelis.cache._options import Duration, seconds, whole, yes_or_no
from aurelis.cache.exchange import DEFAULT_MAX_BODY_BYTES
from aurelis.cache.http import target_names


def require_transport(inner: object, method: str) -> None:
    """Refuse what cannot ask an origin: a manager in its place, or a transport of the other kind.

    Args:
        method: that answers a request.

    Raises:
        TypeError: it has no such method.
    """
    if not callable(getattr(inner, method, None)):
        raise TypeError(
            f"inner_transport must be a transport with {method}(), not {type(inner).__name__}; "
            "a cache is given as cache=..."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Options of a transport.

    Attributes:
        ttl: seconds (or timedelta) for which the answer of a model call is served; 0 keeps none.
        shared: plain HTTP by the rules of a shared cache, whose responses go to callers with any credentials.
        share_across_credentials: model calls that differ in their credentials alone have one answer.
        honour_cache_control: keep no answer of a model whose `Cache-Control` says `no-store`.
        honour_request_directives: heed `Cache-Control` and `Pragma` of plain HTTP requests.
        max_body_bytes: larger bodies pass through and are not stored.
        cache_control_fields: names of response fields that are meant for this cache and count in place of
            `Cache-Control` and `Expires` (RFC 9213), the first that is there; `None`: `CDN-Cache-Control` if it is
            shared, and none otherwise.

    Raises:
        ConfigurationError: `max_body_bytes` is not positive, a name is none, or a switch is neither `True` nor `False`.
        ValueError: `ttl` is negative or not a number.
    """

    ttl: Duration = 3600.0
    shared: bool = False
    share_across_credentials: bool = False
    honour_cache_control: bool = False
    honour_request_directives: bool = True
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    cache_control_fields: Sequence[str] | None = None

    def __post_init__(self) -> None:
        seconds(self.ttl)
        for name in ("shared", "share_across_credentials", "honour_cache_control", "honour_request_directives"):
            yes_or_no(name, getattr(self, name))
        whole("max_body_bytes", self.max_body_bytes)
        self.targets()

    def targets(self) -> tuple[bytes, ...] | None:
        """Those names as the rules take them."""
        return None if self.cache_control_fields is None else target_names(self.cache_control_fields)
