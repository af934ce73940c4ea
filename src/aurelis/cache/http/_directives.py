"""Cache directives of responses and requests (RFC 9111 §5.2), also those for some caches alone (RFC 9213).

Any bytes give a result. Where a value is malformed, the result is the one under which less is reused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aurelis.cache.exceptions import ConfigurationError

from ._grammar import delta_seconds, is_token, split_list, unquote

_OWS = b" \t"
_NO_FIELDS: frozenset[bytes] = frozenset()

# A dictionary of RFC 8941 §3.2, whose values have no structure that matters here.
_KEY = rb"[a-z*][a-z0-9_.*-]*"
_BARE_ITEM = (
    rb'(?:-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}|"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"'
    rb"|[A-Za-z*][!#$%%&'*+.^_`|~0-9A-Za-z:/-]*|:[A-Za-z0-9+/=]*:|\?[01])"
)
_PARAMETERS = rb"(?:;[ ]*%b(?:=%b)?)*" % (_KEY, _BARE_ITEM)
_INNER_LIST = rb"\([ ]*(?:%b%b(?:[ ]+|(?=\))))*+\)" % (_BARE_ITEM, _PARAMETERS)
_DICTIONARY_MEMBER = re.compile(
    rb"(?P<key>%b)(?:=(?P<value>%b|%b))?%b(?P<end>[ \t]*,[ \t]*(?=.)|\Z)" % (_KEY, _BARE_ITEM, _INNER_LIST, _PARAMETERS)
)
_MAX_TARGETED_LENGTH = 8192

_Arguments = dict[bytes, list[bytes | None]]


@dataclass(frozen=True, slots=True)
class ResponseDirectives:
    """The response directives that these rules know (RFC 9111 §5.2.2, RFC 5861, RFC 8246); others are ignored.

    Durations are seconds from 0 to `MAX_DELTA_SECONDS`. One that is malformed, or given twice with different
    values, is 0: invalid freshness information means not fresh (RFC 9111 §4.2.1).

    Attributes:
        no_cache: the whole response (RFC 9111 §5.2.2.4).
        no_cache_fields: names of fields, lower case, that must not be reused.
        private: the whole response (RFC 9111 §5.2.2.7).
        private_fields: names of fields, lower case, that only a private cache may store.
        malformed: a quote never closes, so it is unknown what belongs to what.
    """

    no_store: bool = False
    no_cache: bool = False
    no_cache_fields: frozenset[bytes] = _NO_FIELDS
    private: bool = False
    private_fields: frozenset[bytes] = _NO_FIELDS
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    immutable: bool = False
    max_age: int | None = None
    s_maxage: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    malformed: bool = False


@dataclass(frozen=True, slots=True)
class RequestDirectives:
    """The request directives that these rules know (RFC 9111 §5.2.1, RFC 5861 §4).

    Others and malformed ones are ignored.
    Durations are seconds from 0 to `MAX_DELTA_SECONDS`; of several values the most demanding counts.

    Attributes:
        max_stale: how stale an answer may be; infinite: any is good.
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    max_stale: float | None = None
    min_fresh: int | None = None
    stale_if_error: int | None = None


NO_RESPONSE_DIRECTIVES = ResponseDirectives()
NO_REQUEST_DIRECTIVES = RequestDirectives()


def response_directives(value: bytes | None) -> ResponseDirectives:
    """The directives of a response's Cache-Control field (RFC 9111 §5.2.2); `None`: the field is absent."""
    if not value:
        return NO_RESPONSE_DIRECTIVES
    directives, malformed = _directives(value)
    return _of_response(directives, malformed=malformed)


def targeted_directives(fields: Mapping[bytes, bytes], targets: Sequence[bytes]) -> ResponseDirectives | None:
    """The directives of the first targeted field that is there, valid and not empty (RFC 9213 §2.2); `None`: none is.

    Args:
        fields: of the response, by lower-case name.
        targets: names of the fields that are meant for this cache, lower case, the most specific first.
    """
    for name in targets:
        value = fields.get(name)
        directives = _dictionary(value) if value else None
        if directives:
            return _of_response(directives, malformed=False)
    return None


def target_names(names: Sequence[object]) -> tuple[bytes, ...]:
    """The names of targeted fields as the rules take them.

    Raises:
        ConfigurationError: one of them is no name of a field, or they are not a sequence.
    """
    if isinstance(names, (str, bytes)):
        raise ConfigurationError(f"cache_control_fields={names!r}: pass a tuple of names, for instance ({names!r},)")
    found = []
    for name in names:
        encoded = name.encode("utf-8", "replace").lower() if isinstance(name, str) else b""
        if not is_token(encoded):
            raise ConfigurationError(f"cache_control_fields: {name!r} is not the name of a header field")
        found.append(encoded)
    return tuple(found)


def request_directives(fields: Mapping[bytes, bytes]) -> RequestDirectives:
    """The directives of a request; `Pragma: no-cache` where it has no Cache-Control (RFC 9111 §5.4)."""
    value = fields.get(b"cache-control")
    if value is None:
        pragma = fields.get(b"pragma")
        if pragma is not None and b"no-cache" in _directives(pragma)[0]:
            return RequestDirectives(no_cache=True)
        return NO_REQUEST_DIRECTIVES
    directives, _ = _directives(value)
    return RequestDirectives(
        no_store=b"no-store" in directives,
        no_cache=b"no-cache" in directives,
        only_if_cached=b"only-if-cached" in directives,
        max_age=min(_valid(directives.get(b"max-age")), default=None),
        max_stale=_max_stale(directives.get(b"max-stale")),
        min_fresh=max(_valid(directives.get(b"min-fresh")), default=None),
        stale_if_error=min(_valid(directives.get(b"stale-if-error")), default=None),
    )


def _of_response(directives: _Arguments, *, malformed: bool) -> ResponseDirectives:
    no_cache, no_cache_fields = _whole_or_fields(directives.get(b"no-cache"))
    private, private_fields = _whole_or_fields(directives.get(b"private"))
    return ResponseDirectives(
        no_store=b"no-store" in directives,
        no_cache=no_cache,
        no_cache_fields=no_cache_fields,
        private=private,
        private_fields=private_fields,
        public=b"public" in directives,
        must_revalidate=b"must-revalidate" in directives,
        proxy_revalidate=b"proxy-revalidate" in directives,
        must_understand=b"must-understand" in directives,
        immutable=b"immutable" in directives,
        max_age=_only(directives.get(b"max-age")),
        s_maxage=_only(directives.get(b"s-maxage")),
        stale_while_revalidate=_only(directives.get(b"stale-while-revalidate")),
        stale_if_error=_only(directives.get(b"stale-if-error")),
        malformed=malformed,
    )


def _directives(value: bytes) -> tuple[_Arguments, bool]:
    """Arguments by lower-case name, in order, `None` for no argument; and whether a quote stays open."""
    members, closed = split_list(value)
    directives: _Arguments = {}
    for member in members:
        name, separator, argument = member.partition(b"=")
        # Whitespace around "=" is not in the grammar: the name still counts, the argument is not valid.
        directives.setdefault(name.strip(_OWS).lower(), []).append(
            unquote(argument) if separator and name[-1:] not in (b" ", b"\t") else None
        )
    return directives, not closed


def _dictionary(value: bytes) -> _Arguments | None:
    """Arguments by name of a dictionary (RFC 8941 §4.2.2), parameters left out; `None`: it is none."""
    value = value.strip(b" ")
    if len(value) > _MAX_TARGETED_LENGTH:
        return None
    directives: _Arguments = {}
    position = 0
    while position < len(value):
        member = _DICTIONARY_MEMBER.match(value, position)
        if member is None:
            return None
        position = member.end()
        argument: bytes | None = member["value"]
        directives.pop(member["key"], None)  # of several the last counts
        if argument == b"?0":
            continue
        # What is quoted is no number here (RFC 9213 §2.1), but may be a list of names.
        is_string = argument is not None and argument[:1] == b'"'
        if argument == b"?1" or argument is None:
            directives[member["key"]] = [None]
        elif is_string:
            directives[member["key"]] = [unquote(argument) if member["key"] in (b"private", b"no-cache") else None]
        else:
            directives[member["key"]] = [argument]
    return directives


def _whole_or_fields(arguments: list[bytes | None] | None) -> tuple[bool, frozenset[bytes]]:
    """Whether a directive is for the whole response, and else the names that it is for."""
    if arguments is None:
        return False, _NO_FIELDS
    names: set[bytes] = set()
    for argument in arguments:
        named = [] if argument is None else [name.strip(_OWS).lower() for name in argument.split(b",")]
        named = [name for name in named if name]
        if not named or not all(map(is_token, named)):
            return True, _NO_FIELDS
        names.update(named)
    return False, frozenset(names)


def _max_stale(arguments: list[bytes | None] | None) -> float | None:
    if arguments is None:
        return None
    limits = [float("inf") if argument is None else delta_seconds(argument) for argument in arguments]
    valid = [limit for limit in limits if limit is not None]
    return min(valid) if len(valid) == len(limits) else None


def _valid(arguments: list[bytes | None] | None) -> list[int]:
    parsed = (delta_seconds(argument) for argument in arguments or () if argument is not None)
    return [seconds for seconds in parsed if seconds is not None]


def _only(arguments: list[bytes | None] | None) -> int | None:
    """The value all arguments agree on; 0 where they don't or one is no number; `None`: none is given."""
    if arguments is None:
        return None
    values = _valid(arguments)
    return values[0] if len(values) == len(arguments) and len(set(values)) == 1 else 0
