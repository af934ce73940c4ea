"""Which protocols are spoken where: everywhere by the paths that they have, or as declared for a base URL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from aurelis.cache.exceptions import ConfigurationError

from ._partition import clean_url
from ._profiles import OPTIONAL, PROFILES, Profile


class Catalogue:
    """The operations that are looked for at an address.

    Args:
        operations: kinds of operations beside those that are always known: `audio`, `images`, `moderation`.
        protocols: what is spoken below a base URL, in place of all that is known: the name of a protocol (`openai`), of
            one operation, which then has any path (`openai/chat`), or `None` for nothing that is to be cached. The
            longest base that fits counts.

    Raises:
        ConfigurationError: a name or a base is not known as such.
        TypeError: `operations` is a string.
    """

    __slots__ = ("_bases", "_forced", "_suffixes", "_usual")

    def __init__(self, operations: Collection[str] = (), protocols: Mapping[str, str | None] | None = None) -> None:
        if isinstance(operations, str):
            raise TypeError(f"operations must be several names; write operations=[{operations!r}]")
        unknown = sorted(set(operations) - set(OPTIONAL))
        if unknown:
            raise ConfigurationError(f"operations: {unknown[0]!r} is none of {', '.join(sorted(OPTIONAL))}")
        self._usual = PROFILES + tuple(one for kind in sorted(set(operations)) for one in OPTIONAL[kind])
        self._suffixes = tuple(one.path_suffix.encode("ascii") for one in self._usual)
        bases = {}
        for base, name in (protocols or {}).items():
            bases[_clean_base(base)] = None if name is None else self._named(name)
        self._bases: Final = sorted(bases.items(), key=lambda item: -len(item[0]))
        # Where one operation has any path, the path does not tell what is none of the cache's business.
        self._forced = any(found is not None and not _by_path(found) for found in bases.values())

    def _named(self, name: str) -> tuple[Profile, ...]:
        protocol, slash, operation = name.partition("/")
        found = tuple(one for one in self._usual if one.name == protocol and (not slash or operation == one.operation))
        if not found:
            known = sorted({one.name for one in self._usual} | {f"{one.name}/{one.operation}" for one in self._usual})
            raise ConfigurationError(f"protocols: {name!r} is none of {', '.join(known)}")
        return tuple(_with_any_path(one) for one in found) if slash else found

    def may_be_call(self, target: bytes) -> bool:
        """Whether a call of a model may be addressed to this path, which a query may follow. The hot path."""
        return self._forced or target.partition(b"?")[0].endswith(self._suffixes)

    def at(self, address: str) -> tuple[Profile, ...]:
        """The operations that may be found at an address: absolute, without a query, as `clean_url` gives it."""
        for base, found in self._bases:
            if address.startswith(base) and address[len(base) : len(base) + 1] in ("", "/", ":"):
                return found or ()
        return self._usual


def _by_path(profiles: tuple[Profile, ...]) -> bool:
    return all(one.path_suffix for one in profiles)


def _with_any_path(profile: Profile) -> Profile:
    return replace(profile, path_suffix="")


def _clean_base(base: str) -> str:
    scheme, separator, rest = base.partition("://")
    if scheme.lower() not in ("http", "https") or not separator or not rest or "?" in base or "#" in base:
        raise ConfigurationError(f"protocols: {base!r} is no base URL, such as https://gateway.example/llm")
    return clean_url(base).rstrip("/")
