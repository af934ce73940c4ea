"""Which request fields select a response, and how requests compare in them (RFC 9111 §4.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from ._grammar import is_token, split_list

# Values of these are compared as they are: a comma in them does not separate members of a list, or what
# stands there is a secret and nothing is known about its syntax.
_OPAQUE = frozenset({b"authorization", b"cookie", b"host", b"origin", b"referer", b"user-agent"})

# Their values are case-insensitive, and what counts are the weights of the members and not their order (RFC 9110
# §12.5.2 to §12.5.4). Of Accept that is true as well, but apps choose the first of what they are offered.
_WEIGHTED = frozenset({b"accept-charset", b"accept-encoding", b"accept-language"})
_LANGUAGE = re.compile(rb"[a-z]{1,8}(?:-[a-z0-9]{1,8})*")
MAX_CHOICE_LENGTH = 512
"""Bytes of a value of Accept-Language for which the origin's choice is remembered."""

_WEIGHTED_MEMBER = re.compile(rb"([^;\s]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")


def vary_names(value: bytes | None) -> tuple[bytes, ...] | None:
    """The names in a Vary field: lower case, sorted, each once; empty where the field is absent or empty.

    Returns:
        `None` where no request can be known to select the response: the value has a `*` (RFC 9110 §12.5.5) or
        a member that is no field name.
    """
    if value is None:
        return ()
    members, _ = split_list(value)
    names = {member.lower() for member in members}
    if b"*" in names or not all(map(is_token, names)):
        return None
    return tuple(sorted(names))


def normalised(name: bytes, value: bytes) -> bytes:
    """A field value without what means nothing: whitespace around list members, case where it is free.

    Args:
        name: of the field, lower case.
        value: its lines joined with commas, the first normalisation that RFC 9111 §4.1 names.
    """
    if name in _OPAQUE:
        return value.strip(b" \t")
    members, closed = split_list(value)
    if not closed:  # a broken value: it is unknown which commas separate
        return value.strip(b" \t")
    if name in _WEIGHTED:
        members = _by_weight([member.lower() for member in members])
    return b",".join(members)


def language_of(value: bytes | None) -> bytes | None:
    """The one language of a response, lower case; `None`: it says none, or several."""
    language = (value or b"").strip(b" \t").lower()
    return language if _LANGUAGE.fullmatch(language) is not None else None


def chosen_language(value: bytes | None, choices: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The language that the origin would choose for a request, as far as that is known.

    It is what the origin has chosen for the same value before, or the language that the request prefers to all others,
    where there is a response in it.

    Args:
        value: of Accept-Language; `None`: the field is absent.
        choices: normalised values and the languages that were chosen for them.
    """
    if value is None or not choices or len(value) > MAX_CHOICE_LENGTH:
        return None
    normal = normalised(b"accept-language", value)
    for known, language in choices:
        if known == normal:
            return language
    preferred = _preferred_language(normal)
    return preferred if any(language == preferred for _, language in choices) else None


def _preferred_language(normal: bytes) -> bytes | None:
    """What a normalised Accept-Language prefers to all else; `None`: nothing."""
    weights: dict[bytes, float] = {}
    for member in normal.split(b","):
        match = _WEIGHTED_MEMBER.fullmatch(member)
        if match is None:
            return None
        weights[match[1]] = float(match[2] or b"1")
    best = max(weights.values())
    preferred = [language for language, weight in weights.items() if weight == best]
    return preferred[0] if best > 0 and len(preferred) == 1 else None


def _by_weight(members: list[bytes]) -> list[bytes]:
    """The members in an order that depends on their weights and names alone; as they are where one is malformed."""
    weighted: list[tuple[float, bytes]] = []
    for member in members:
        match = _WEIGHTED_MEMBER.fullmatch(member)
        if match is None:
            return members
        weighted.append((-float(match[2] or b"1"), match[1]))
    return [name if weight == -1 else b"%b;q=%.3f" % (name, -weight) for weight, name in sorted(weighted)]


def variant_digest(names: tuple[bytes, ...], fields: Mapping[bytes, bytes]) -> str:
    """A digest of what a request says in the selecting fields: 32 hexadecimal digits, 128 bits.

    Requests with the same digest select the same response. Its length is bounded whatever a client sends, and
    no value can be read from it.

    Args:
        names: as `vary_names` gives them.
        fields: of the request, by lower-case name.
    """
    digest = blake2b(digest_size=16)
    for name in names:
        value = fields.get(name)
        # Lengths before contents make the encoding injective; an absent field differs from an empty one.
        if value is None:
            digest.update(b"%d:%b-" % (len(name), name))
        else:
            value = normalised(name, value)
            digest.update(b"%d:%b+%d:%b" % (len(name), name, len(value), value))
    return digest.hexdigest()


def selects_same(names: tuple[bytes, ...], one: Mapping[bytes, bytes], other: Mapping[bytes, bytes]) -> bool:
    """Whether a response selected by one request is selected by another too (RFC 9111 §4.1).

    Args:
        names: as `vary_names` gives them; empty: any request selects it.
        one: fields by lower-case name.
        other: likewise.
    """
    for name in names:
        left, right = one.get(name), other.get(name)
        if left == right:
            continue
        if left is None or right is None or normalised(name, left) != normalised(name, right):
            return False
    return True
