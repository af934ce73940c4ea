"""What the records of a cache key are called in Redis: readable, never the same for two keys, all of one slot."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from aurelis.cache._keys import escape
from aurelis.cache.codecs import to_bytes

_GLOB: Final = re.compile(rb"[*?\[\]\\^]")
# A key as `CacheKeyBuilder` makes it when there are params: namespace, version:category:identifier, digest.
_VARIANT: Final = re.compile(r"([^:{}]+):([^:{}]*:[^:{}]*:[^:{}]*):([0-9a-f]{32})")


class Names:
    """Names of the records of one namespace.

    A name reads `namespace:kind:` and what `tagged` makes of the key. Whatever the key is, the first brace of the name
    opens its hash tag, since an escaped namespace has none.
    """

    __slots__ = ("_entry", "_lease", "_tag", "channel", "clock", "entries")

    def __init__(self, namespace: str) -> None:
        prefix = escape(namespace)
        self._entry = f"{prefix}:e:".encode()
        self._lease = f"{prefix}:l:".encode()
        self._tag = f"{prefix}:t:".encode()
        self.clock = f"{prefix}:clock".encode()
        """The name of the number of invalidations."""
        self.channel = f"{prefix}:news:1".encode()
        """The channel on which processes tell each other of changes; the number is the version of the messages."""
        # Escaping leaves no character that means something in a pattern.
        self.entries = self._entry + b"*"
        """The pattern that all names of entries match, and no other name."""

    def entry(self, key: str) -> bytes:
        """The name of the entry of a key."""
        return self._entry + tagged(key)

    def key(self, name: bytes) -> str | None:
        """The key of an entry's name; `None`: it is none of ours."""
        if not name.startswith(self._entry):
            return None
        try:
            text = name[len(self._entry) :].decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None
        if text.startswith("{") and text.endswith("}"):
            return text[1:-1]
        if text.startswith("{.") and text.endswith("}."):
            return unquote(text[2:-2], errors="surrogatepass")
        thing, brace, rest = text[1:].partition("}:")
        namespace, colon, params = rest.rpartition(":")
        return f"{namespace}:{thing}:{params}" if brace and colon and text.startswith("{") else None

    def beginning(self, start: str) -> bytes:
        """The pattern that the names of keys match whose `category:identifier` begins so, and perhaps others."""
        return self._entry + b"{*:" + _GLOB.sub(rb"\\\g<0>", start.encode("utf-8", "surrogatepass")) + b"*"

    def tag(self, tag: str) -> bytes:
        """The name of the generations of a tag."""
        return self._tag + tag.encode("utf-8", "surrogatepass")

    def entry_and_lease(self, key: str) -> tuple[bytes, bytes]:
        """The names of the entry and of the lease of a key, which are in one slot of a cluster."""
        own = tagged(key)
        return self._entry + own, self._lease + own


def tagged(key: str) -> bytes:
    """The key with a hash tag of Redis Cluster around what decides its slot; different for different keys.

    That is the whole key, or for a key with a digest of params what comes before it, so that all variants of a thing
    are in one slot. What is returned ends in `}` for a whole key, in a digit for a variant, and in a dot for the keys
    whose tag would be empty; so no two of these forms can be the same.

    Example:
        >>> tagged("aurelis:v1:user:17")
        b'{aurelis:v1:user:17}'
        >>> tagged("aurelis:v1:search:shoes:92a374ade7cc7dd1a9a8a0d4e323e2ce")
        b'{v1:search:shoes}:aurelis:92a374ade7cc7dd1a9a8a0d4e323e2ce'
    """
    if len(key) > 33 and key[-33] == ":" and (parts := _VARIANT.fullmatch(key)) is not None:
        namespace, thing, params = parts.groups()
        text = f"{{{thing}}}:{namespace}:{params}"
    elif key and key[0] != "}":
        text = "{" + key + "}"
    else:  # Redis takes `{}` for no tag at all, and would put the records of this key into different slots
        text = f"{{.{escape(key)}}}."
    return to_bytes(text)
