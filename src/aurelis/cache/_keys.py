"""Builds the keys under which values are kept: parts that nobody can forge, joined by ``:``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from ._canonical import digest
from .exceptions import ConfigurationError, UnkeyableError, type_name

# What `quote` leaves as it is: no separator, no glob character, no `%`, no hash tag of Redis Cluster.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]*:[A-Za-z0-9_.~-]*:[A-Za-z0-9_.~-]*", re.ASCII)


def escape(part: str) -> str:
    """Return a part of a key so that it contains only letters, digits, ``_ . ~ -`` and ``%``.

    Different parts stay different, and `urllib.parse.unquote(..., errors="surrogatepass")` gives the part
    back.

    Args:
        part: Any text, also with lone surrogates.
    """
    return quote(part, safe="", errors="surrogatepass")


class CacheKeyBuilder:
    """Builds keys that are the same in every process, and different for different arguments.

    A key reads ``namespace:version:category:identifier`` and, if there are params, ``:digest`` with 32
    hexadecimal digits (128 bits) of their canonical encoding. Each part is escaped, so neither ``:`` nor a
    glob character in a part can make it look like another key. In params, values of different types differ:
    ``1``, ``1.0``, ``True`` and ``"1"`` give four keys.

    Example:
        >>> keys = CacheKeyBuilder()
        >>> keys.build_key("user_data", "a:b*")
        'aurelis:v1:user_data:a%3Ab%2A'
        >>> keys.build_key("search", "shoes", {"page": 1, "limit": 10})
        'aurelis:v1:search:shoes:92a374ade7cc7dd1a9a8a0d4e323e2ce'
    """

    __slots__ = ("_prefix", "namespace")

    def __init__(self, namespace: str = "aurelis") -> None:
        """Make a builder for one namespace.

        Args:
            namespace: Separates this application's keys from those of its neighbours; not empty.

        Raises:
            ConfigurationError: The namespace is empty.
            UnkeyableError: It is no string.
        """
        _require_str(namespace=namespace)
        if not namespace:
            raise ConfigurationError("namespace must not be empty")
        self.namespace = namespace
        self._prefix = escape(namespace) + ":"

    def build_key(
        self,
        category: str,
        identifier: str,
        params: Mapping[str, object] | None = None,
        version: str = "v1",
    ) -> str:
        """Return the key of one value.

        Args:
            category: What kind of value it is, for example ``"user_data"``.
            identifier: Which one.
            params: What else the value depends on; the order does not count. `None` and an empty mapping are
                the same. See `aurelis.cache.UnkeyableError` for what may not be in it.
            version: Changes whenever the meaning of the stored values does.

        Raises:
            UnkeyableError: A part is no string, or something in `params` cannot become part of a key. A
                `TypeError`; names the place and the type.
        """
        return self._join(version, category, identifier, _params_digest(params, "params"))

    def build_model_key(self, model_type: str, prompt: str, parameters: Mapping[str, object] | None) -> str:
        """Return the key of a model's answer: category ``model``, identifier ``model_type:digest_of_prompt``.

        Args:
            model_type: Which model is asked.
            prompt: The whole prompt; the key has its digest of 128 bits.
            parameters: What else the answer depends on (temperature, ...); `None` and an empty mapping are
                the same.

        Raises:
            UnkeyableError: As `build_key`.
        """
        _require_str(model_type=model_type, prompt=prompt)
        # The digest has a fixed length and comes last, so no name of a model makes the identifier ambiguous.
        identifier = f"{str.__str__(model_type)}:{digest(str.__str__(prompt))}"
        return self._join("v1", "model", identifier, _params_digest(parameters, "parameters"))

    def _join(self, version: str, category: str, identifier: str, params: str) -> str:
        try:
            # Not an f-string, which would take a part of any type.
            key = ":".join((version, category, identifier))  # noqa: FLY002
        except TypeError:
            _require_str(version=version, category=category, identifier=identifier)
            raise
        # One match over the whole: it means that no part contains a ":" or anything else to be escaped.
        if _PLAIN.fullmatch(key) is None:
            key = f"{escape(version)}:{escape(category)}:{escape(identifier)}"
        return f"{self._prefix}{key}:{params}" if params else self._prefix + key


def _params_digest(params: Mapping[str, object] | None, argument: str) -> str:
    if params is None:
        return ""
    if not isinstance(params, Mapping):
        raise UnkeyableError(argument, type_name(type(params)), "pass a mapping")
    return digest(dict(params), root=argument) if params else ""


def _require_str(**parts: object) -> None:
    for argument, part in parts.items():
        if not isinstance(part, str):
            raise UnkeyableError(argument, type_name(type(part)), "pass a str")
