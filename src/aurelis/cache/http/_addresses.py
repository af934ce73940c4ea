"""Under which keys responses are stored: those of URIs, and of their variants (RFC 9111 §2, §4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Final, Protocol

from aurelis.cache._tags import identifier as identifier_tag

from ._messages import HttpRequest
from ._variants import variant_digest

# Bounds of what is remembered about keys, some megabytes whatever clients send. Lengths are in characters.
_REMEMBERED_KEYS: Final = 4096
_MAX_REMEMBERED_LENGTH: Final = 512

_ACCEPT_LANGUAGE = b"accept-language"
_CHOSEN_LANGUAGE = b"=language"


class KeyBuilder(Protocol):
    """Builds keys that differ whenever category, identifier or params do: `CacheKeyBuilder.build_key`."""

    def __call__(self, category: str, identifier: str, params: Mapping[str, object] | None = None) -> str:
        """The key."""
        ...


class Addresses:
    """Makes keys. Safe to share between threads; it remembers those of recent URLs, nothing else.

    Args:
        category: of the keys.
        keys: makes them of category, identifier and params.
    """

    __slots__ = ("_build", "_category", "_keys", "_remembered")

    def __init__(self, category: str, keys: KeyBuilder) -> None:
        self._category = category
        self._keys = keys
        # Most requests are for few URLs, and building a key costs several times as much as finding it here.
        self._build = partial(_build_key, keys, category)
        self._remembered = lru_cache(_REMEMBERED_KEYS)(self._build)

    def uri(self, url: str, partition: str) -> str:
        """The key of a URI in a partition."""
        if len(url) > _MAX_REMEMBERED_LENGTH:
            return self._build(url, partition)
        return self._remembered(url, partition)

    def variant(self, request: HttpRequest, names: tuple[bytes, ...], language: bytes | None = None) -> str:
        """The key of the variant that a request selects.

        Args:
            names: of the fields that select, as `vary_names` gives them.
            language: chosen by the origin, in place of Accept-Language; `None`: not known.
        """
        names, fields = _selecting(request, names, language)
        values = tuple(map(fields.get, names))
        length = len(request.url) + sum(len(value) for value in values if value)
        build = self._build if length > _MAX_REMEMBERED_LENGTH else self._remembered
        return build(request.url, request.partition, names, values)

    def variants(self, request: HttpRequest, digests: Iterable[str]) -> tuple[str, ...]:
        """The keys of variants with these digests."""
        return tuple(_place(self._keys, self._category, request.url, request.partition, digest) for digest in digests)

    def whole(self, url: str) -> tuple[str, str]:
        """The key of a URI, and the tag of all that is stored under it with params."""
        return self.uri(url, ""), identifier_tag(self._category, identifier_of(url))


def selected_variant(request: HttpRequest, names: tuple[bytes, ...], language: bytes | None) -> str:
    """The digest of the variant that a request selects; arguments as of `Addresses.variant`."""
    return variant_digest(*_selecting(request, names, language))


def _selecting(
    request: HttpRequest, names: tuple[bytes, ...], language: bytes | None
) -> tuple[tuple[bytes, ...], Mapping[bytes, bytes]]:
    """What selects a variant: names of fields, and fields with these names."""
    if language is None:
        return names, request.fields
    # In place of what the request says. No field has such a name, so no request can pass for it.
    place = names.index(_ACCEPT_LANGUAGE)
    return (*names[:place], _CHOSEN_LANGUAGE, *names[place + 1 :]), {**request.fields, _CHOSEN_LANGUAGE: language}


def _build_key(
    keys: KeyBuilder,
    category: str,
    url: str,
    partition: str,
    names: tuple[bytes, ...] = (),
    values: tuple[bytes | None, ...] = (),
) -> str:
    """Everything of one URI has the same identifier, so that it can be addressed as a whole."""
    if not names:
        return _place(keys, category, url, partition)
    fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return _place(keys, category, url, partition, variant_digest(names, fields))


def _place(keys: KeyBuilder, category: str, url: str, partition: str, variant: str = "") -> str:
    params: dict[str, object] = {}
    if partition:
        params["partition"] = partition
    if variant:
        params["variant"] = variant
    return keys(category, identifier_of(url), params or None)


def identifier_of(url: str) -> str:
    """The identifier in the keys of all that is stored of a URI."""
    return f"GET {url}"
