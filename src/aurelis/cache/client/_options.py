"""What can be chosen about the cache behind a transport."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypedDict

from aurelis.cache._options import Duration, seconds, whole, yes_or_no
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.exchange import DEFAULT_MAX_BODY_BYTES
from aurelis.cache.http import target_names
from aurelis.cache.models import Cost


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


_SWITCHES = (
    *("shared", "share_across_credentials", "honour_cache_control", "honour_request_directives"),
    "partition_by_user",
)

LONGEST_LINGER: Final = 60.0
"""Seconds for which a connection is held for nobody at most."""

Pacing = Literal["burst", "recorded"] | float
"""How fast a stored stream is given: at once, as it came, or so many chunks a second."""

Namespace = str | Callable[[], str | None] | None
"""Name that keeps calls apart, or a function that gives it for each call."""


class ModelOptions(TypedDict, total=False):
    """Options of a transport for calls of models, all of which may be left out.

    Attributes:
        namespace: requests of different namespaces never share responses, plain ones neither: a name, or a function
            that is called for each request, such as the `get` of a context variable.
        partition_by_user: the user on whose behalf a model is called (`user`, `safety_identifier`, `metadata.user_id`)
            keeps calls apart.
        key_headers: names of request fields that keep calls apart, beside those that are known.
        max_temperature: calls of a higher temperature pass by the cache; `None`: there is no limit.
        variants: how many answers are kept of each call, which are given in turn.
        keep: kinds of answers that are kept although they are not whole: `length`, `filtered`, `incomplete`,
            `unterminated`.
        operations: kinds of operations that are cached beside those of texts: `audio`, `images`, `moderation`.
        protocols: what is spoken below a base URL, in place of all that is known: a protocol (`openai`), one operation
            of it at any path (`openai/chat`), or `None` for nothing that is to be cached.
        pacing: how fast a stored stream is given: `burst`, `recorded`, or so many chunks a second.
        stale_while_revalidate: seconds (or timedelta) after its ttl in which an answer is still given while one load
            goes on in the background.
        stale_if_error: seconds after its ttl in which it is given if the provider fails: by 408, 429 or 5xx, or because
            it cannot be reached or takes too long.
        throttle: seconds after such a failure in which it is given without trying again.
        negative_ttl: seconds at most for which a failure itself is given again to those who make the same call, where
            there is no answer to give.
        linger: seconds (or timedelta) at most for which a stream is read on after its last reader has left, if it lacks
            nothing but its terminator by then, so that it can be kept; 0: it is not read on.
        cost: what calls have cost whose answers are used again: `genai-prices` (the list prices of providers, by the
            extra `cost`), or a function of a `BilledCall` that gives US dollars, or `None` where they are not known.
    """

    namespace: Namespace
    partition_by_user: bool
    key_headers: Collection[str]
    max_temperature: float | None
    variants: int
    keep: Collection[str]
    operations: Collection[str]
    protocols: Mapping[str, str | None]
    pacing: Pacing
    stale_while_revalidate: Duration
    stale_if_error: Duration
    throttle: Duration
    negative_ttl: Duration
    linger: Duration
    cost: Cost


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

    The others are as in `ModelOptions`.

    Raises:
        ConfigurationError: a value is out of range or unknown, or a switch neither `True` nor `False`.
        ValueError: `ttl` is negative or not a number.
    """

    ttl: Duration = 3600.0
    shared: bool = False
    share_across_credentials: bool = False
    honour_cache_control: bool = False
    honour_request_directives: bool = True
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    cache_control_fields: Sequence[str] | None = None
    namespace: Namespace = None
    partition_by_user: bool = False
    key_headers: Collection[str] = ()
    max_temperature: float | None = None
    variants: int = 1
    keep: Collection[str] = ()
    operations: Collection[str] = ()
    protocols: Mapping[str, str | None] = field(default_factory=dict)
    pacing: Pacing = "burst"
    stale_while_revalidate: Duration = 0.0
    stale_if_error: Duration = 0.0
    throttle: Duration = 30.0
    negative_ttl: Duration = 0.0
    linger: Duration = 1.0
    cost: Cost = None

    def __post_init__(self) -> None:
        seconds(self.ttl)
        for name in ("stale_while_revalidate", "stale_if_error", "throttle", "negative_ttl", "linger"):
            seconds(getattr(self, name), name)
        if seconds(self.linger) > LONGEST_LINGER:
            raise ConfigurationError(f"linger must be {LONGEST_LINGER:g} seconds at most, not {self.linger!r}")
        if not (self.namespace is None or isinstance(self.namespace, str) or callable(self.namespace)):
            raise ConfigurationError("namespace must be a str or a function that returns one")
        self._check_pacing()
        for name in _SWITCHES:
            yes_or_no(name, getattr(self, name))
        whole("max_body_bytes", self.max_body_bytes)
        whole("variants", self.variants)
        self.targets()

    def targets(self) -> tuple[bytes, ...] | None:
        """`cache_control_fields` as the rules take them."""
        return None if self.cache_control_fields is None else target_names(self.cache_control_fields)

    def _check_pacing(self) -> None:
        pacing = self.pacing
        if pacing in ("burst", "recorded"):
            return
        if isinstance(pacing, (bool, str)) or not 0 < pacing < math.inf:
            raise ConfigurationError(f"pacing must be 'burst', 'recorded' or chunks a second, > 0, not {pacing!r}")
