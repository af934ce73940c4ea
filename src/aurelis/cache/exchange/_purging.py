"""Taking stored responses out of use by URL or pattern, and looking at what there is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from aurelis.cache import _patterns, _tags
from aurelis.cache._entry import Entry
from aurelis.cache._first_layer import Found
from aurelis.cache._keys import escape
from aurelis.cache._searching import matching, stored
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import StoredPart, StoredResponse, identifier_of
from aurelis.cache.manager import AnyManager, CacheManager, manager_of
from aurelis.cache.models import pattern_without_credentials, without_credentials

_MAX_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One stored response in one layer, without anything of its body, its fields or the requests that it answers.

    Attributes:
        layer: `l1`, `l2`, …
        status: of the response; 206: a part of one.
        age: seconds since the origin made it, ≥ 0.
        ttl: seconds for which it is fresh; negative: since when it is not.
        life: seconds until the layer forgets it.
        source: who gave the lifetime: `explicit`, `rule`, `heuristic`.
        vary: names of the request fields that selected it.
        apart: requests share it that have something in common beside the URL: a variant, a principal, cookies.
        tags: by which it can be invalidated.
        size: bytes of the body.
        route: template of the route that made it; empty: not known.
    """

    layer: str
    status: int
    age: float
    ttl: float
    life: float
    source: str
    vary: tuple[str, ...]
    apart: bool
    tags: tuple[str, ...]
    size: int
    route: str


class Purging:
    """What a manager keeps of HTTP responses, addressed by URL.

    Keys hold no credentials of a query, so whoever names some means all that is stored of the URL without them.

    Args:
        cache: manager; `None` means the process's.
        category: of the keys, as in `HttpPolicy`.
    """

    def __init__(self, cache: AnyManager | None, *, category: str = "http") -> None:
        self._cache = cache
        self._category = category

    @property
    def manager(self) -> CacheManager:
        """The manager; the process's may be another one after it was closed."""
        return manager_of(self._cache)

    async def url(self, url: str, *, soft: bool = False) -> None:
        """Take all responses of one URL out of use, whoever they are for.

        Args:
            url: scheme, authority, path and query as in keys.
            soft: they are not gone but stale.

        Raises:
            LayerError: a shared layer could not be reached, so other processes may still serve them.
        """
        manager, identifier = self.manager, identifier_of(without_credentials(url))
        # Everything with params, variants and principals, has the tag of the identifier; the plain key has not.
        apart = _tags.identifier(self._category, identifier)
        try:
            await manager.delete(manager.key_builder.build_key(self._category, identifier), soft=soft)
        finally:
            await manager._engine.invalidate((apart,), soft=soft)

    async def pattern(self, pattern: str, *, soft: bool = False, everything: bool = False) -> int:
        """Take all responses out of use whose URL matches, by looking at every key.

        Args:
            pattern: for whole URLs; `*` is any text, and nothing else has a meaning.
            soft: they are not gone but stale.
            everything: allows a pattern that begins with `*`.

        Returns:
            How many entries there were.

        Raises:
            ConfigurationError: the pattern is empty, or begins with `*` without `everything`.
            LayerError: a shared layer failed meanwhile; what was found until then is out of use.
        """
        if not pattern:
            raise ConfigurationError("a pattern must not be empty")
        if pattern.startswith("*") and not everything:
            raise ConfigurationError("a pattern that begins with '*' means every host: say so by everything=True")
        manager = self.manager
        names = "*".join(escape(part) for part in identifier_of(pattern_without_credentials(pattern)).split("*"))
        whole = f"{escape(self._category)}:{names}"
        if not soft:
            return await manager.invalidate_pattern(whole)
        matches = _patterns.matcher(whole, escape(manager.config.namespace) + ":", everything=False)
        found = 0
        async for key in matching(manager._engine.stack, matches, _patterns.literal_start(whole)):
            found += await manager.delete(key, soft=True)
        return found

    async def entries(self, url: str, *, limit: int = _MAX_SHOWN) -> list[StoredEntry]:
        """What is stored of a URL, in each layer. Looks at every key, for those of principals and old variants.

        Raises:
            LayerError: a shared layer failed.
        """
        url = without_credentials(url)
        engine, clock = self.manager._engine, self.manager._engine.clock
        whole = f"{escape(self._category)}:{escape(identifier_of(url))}"
        matches = _patterns.matcher(whole, escape(self.manager.config.namespace) + ":", everything=False)
        shown: list[StoredEntry] = []
        seen: set[str] = set()
        async for key in matching(engine.stack, matches, whole):
            if key in seen:
                continue
            seen.add(key)
            for found in await stored(engine.stack, key):
                value = found.entry.value
                if isinstance(value, StoredPart):
                    value = replace(value.response, status=206)
                if isinstance(value, StoredResponse):
                    apart = _tags.identifier(self._category, identifier_of(url)) in engine.stack.implied(key)
                    shown.append(_shown(found, found.entry, value, clock.monotonic(), apart=apart))
            if len(shown) >= limit:
                break
        return shown


def _shown(found: Found, entry: Entry, response: StoredResponse, now: float, *, apart: bool) -> StoredEntry:
    ttl = entry.fresh_until - now
    return StoredEntry(
        layer=found.layer,
        status=response.status,
        age=max(response.lifetime - ttl, 0.0),
        ttl=ttl,
        life=max(entry.expires - now, 0.0),
        source=response.source,
        vary=tuple(name.decode("latin-1") for name in response.vary),
        apart=apart,
        tags=_tags.names(entry.details.tags),
        size=sum(map(len, response.chunks)),
        route=response.route,
    )
