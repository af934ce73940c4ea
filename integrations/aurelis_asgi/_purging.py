"""Taking stored responses out of use, from the app's own code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.exchange import Purging, StoredEntry
from aurelis.cache.http import CacheRule, group_tag, rules_for
from aurelis.cache.manager import AnyManager

from ._request import authority_of, path_below_root

_URL = re.compile(r"(https?)://([^/?#@\s]+)(/[^?#\s]*)?(?:\?([^#\s]*))?", re.IGNORECASE)
_SCHEMES = ("http", "https")
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


class Purger:
    """Takes stored responses out of use: for good, or softly, so that they are stale and no more.

    A stale response is served while it is loaded anew or when that fails, as far as it allows that, and is confirmed by
    its validator where it has one.

    Args:
        cache: manager; `None` means the process's.
        rules: those of the middleware. Rules decide which parameters of a query count, so without them a URL has to be
            given as it is in keys.
        root_path: of the app that the middleware wraps.

    Raises:
        TypeError: `cache` is no manager.
    """

    def __init__(
        self, cache: AnyManager | None = None, *, rules: Sequence[CacheRule] = (), root_path: str = ""
    ) -> None:
        self._purging = Purging(cache)
        if cache is not None:
            _ = self._purging.manager  # refuses what is none
        self._rules = tuple(rules)
        self._root_path = root_path

    async def url(self, url: str, *, soft: bool = False) -> None:
        """Purge all responses of one URL: all variants, for everybody, by HTTP and by HTTPS.

        Args:
            url: with scheme and host, path and query as clients send them.

        Raises:
            ConfigurationError: that is no such URL.
            LayerError: a shared layer could not be reached, so other processes may still serve them.
        """
        for each in self._in_keys(url):
            await self._purging.url(each, soft=soft)

    async def tags(self, *tags: str, soft: bool = False) -> None:
        """Purge all responses with one of these tags, however many there are.

        Raises:
            ValueError: a tag is empty.
            LayerError: as for `url`.
        """
        await self._purging.manager.invalidate_tags(*tags, soft=soft)

    async def groups(self, origin: str, *groups: str, soft: bool = False) -> None:
        """Purge all responses of an origin that are in one of these cache groups (RFC 9875).

        Args:
            origin: scheme and host, such as `https://shop.example`.

        Raises:
            LayerError: as for `url`.
        """
        await self.tags(*(group_tag(origin, group) for group in groups), soft=soft)

    async def pattern(self, pattern: str, *, soft: bool = False, everything: bool = False) -> int:
        """Purge all responses whose whole URL matches, by looking at every key; returns how many entries there were.

        Args:
            pattern: such as `https://shop.example/catalog/*`; `*` is any text, and nothing else has a meaning.
            everything: allows a pattern that begins with `*`.

        Raises:
            ConfigurationError: the pattern is empty, or begins with `*` without `everything`.
            LayerError: a shared layer failed meanwhile; what was found until then is purged.
        """
        return await self._purging.pattern(pattern, soft=soft, everything=everything)

    async def entries(self, url: str) -> list[StoredEntry]:
        """What is stored of a URL, in each layer. Looks at every key.

        Raises:
            ConfigurationError: that is no URL with scheme and host.
            LayerError: a shared layer failed.
        """
        return [entry for each in self._in_keys(url) for entry in await self._purging.entries(each)]

    def _in_keys(self, url: str) -> list[str]:
        """The URL as it may be in keys."""
        parts = _URL.fullmatch(url)
        try:
            if parts is None:
                raise UnicodeError
            _, host, path, query = parts.groups(default="")
            host_name = host.encode("ascii" if host.isascii() else "idna")
            # As clients send them: what is ASCII is as they spelt it, the rest has to be escaped.
            path, query = quote(path or "/", safe=_ASCII), quote(query, safe=_ASCII)
        except UnicodeError:
            raise ConfigurationError(
                f"{url!r} is no URL with scheme and host, such as 'https://shop.example/catalog/7'"
            ) from None
        counted = query.encode("ascii")
        queries = dict.fromkeys([counted])
        below = path_below_root(unquote(path), self._root_path)
        found: dict[str, None] = {}
        for scheme in _SCHEMES:
            authority = authority_of(scheme, host_name)
            for said in rules_for(self._rules, below, authority, counted):
                queries[said.query] = None
            for each in queries:
                found[f"{scheme}://{authority}{path}" + (f"?{each.decode('ascii')}" if each else "")] = None
        return list(found)
