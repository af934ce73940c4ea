"""By which names a stored response can be invalidated: those of its rule, and those it gives itself (RFC 9875)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import quote

from aurelis.cache._tags import tag
from aurelis.cache.exceptions import ConfigurationError

from ._messages import HttpRequest

MAX_TAGS: Final = 128
"""Of one response. One with more is not stored: what is left out could not be invalidated."""

MAX_TAG_LENGTH: Final = 512
"""Characters."""

RuleTags: TypeAlias = Sequence[str] | Callable[[Mapping[str, str]], Iterable[str]]
"""Tags as a rule gives them: texts, in which `{name}` stands for a parameter of the path, or a function of them all."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SPACE_OR_COMMA = re.compile(rb"[ \t,]+")

# A structured field (RFC 9651): members are parsed as far as this field needs. The rest of the grammar makes a member
# that is not a string, which is left out, or a field that is not a list, of which nothing counts.
_SF_STRING = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+)"')
_SF_OTHER = re.compile(
    rb"-?[0-9]{1,15}(?:\.[0-9]{1,3})?"  # number
    rb"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+"  # token
    rb"|:[A-Za-z0-9+/=]*+:"  # bytes
    rb"|\?[01]"  # boolean
    rb"|@-?[0-9]{1,15}"  # date
    rb'|%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*+"'  # display string
)
_SF_PARAMETER = re.compile(rb";[ ]*+[a-z*][a-z0-9_.*-]*+(=?)")
_SF_NEXT = re.compile(rb"[ \t]*+,[ \t]*+")
_SF_ESCAPED = re.compile(rb'\\(["\\])')


@dataclass(frozen=True, slots=True)
class TagTemplates:
    """The tags of a rule, ready to be filled in.

    Attributes:
        source: as they were given.
        constant: those without parameters, if all are.
    """

    source: RuleTags
    constant: tuple[str, ...] | None
    _pieces: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, source: object, parameters: Sequence[str]) -> TagTemplates:
        """The tags of a rule whose path has these parameters.

        Raises:
            ConfigurationError: they cannot be tags.
        """
        if callable(source):
            return cls(source, None, ())
        if isinstance(source, (str, bytes, Mapping)) or not isinstance(source, Iterable):
            raise ConfigurationError(f"tags={source!r}: pass a list of texts, for instance [{source!r}], or a function")
        given = tuple(source)
        pieces = [cls._split(each, parameters) for each in given]
        if len(given) > MAX_TAGS:
            raise ConfigurationError(f"tags: {len(given)} are more than the {MAX_TAGS} that a response can have")
        constant = tuple(dict.fromkeys(given)) if all(len(each) == 1 for each in pieces) else None
        return cls(given, constant, tuple(pieces))

    @staticmethod
    def _split(text: object, parameters: Sequence[str]) -> tuple[str, ...]:
        if not isinstance(text, str) or not text or len(text) > MAX_TAG_LENGTH:
            raise ConfigurationError(f"tags: {text!r} is no tag; pass a text of 1 to {MAX_TAG_LENGTH} characters")
        pieces = _PLACEHOLDER.split(text)
        if any("{" in piece or "}" in piece for piece in pieces):
            raise ConfigurationError(f"tags: {text!r} has a brace that belongs to no {{name}}")
        for name in pieces[1::2]:
            if name not in parameters:
                known = ", ".join(f"{{{each}}}" for each in parameters) or "no parameters"
                raise ConfigurationError(f"tags: {{{name}}} in {text!r} is not in the path, which has {known}")
        return tuple(pieces)

    def fill(self, parameters: Mapping[str, str]) -> tuple[str, ...] | None:
        """The tags for a path with these parameters, each once; `None`: too many, or one is too long.

        Values are escaped as in URLs, so that none of them can look like a part of the template.

        Raises:
            TypeError: a function gave something else than texts. Its own errors pass unchanged.
        """
        if self.constant is not None:
            return self.constant
        if callable(self.source):
            return bounded(_texts(self.source(parameters)))
        return bounded(
            "".join(quote(parameters[piece], safe="") if place % 2 else piece for place, piece in enumerate(pieces))
            for pieces in self._pieces
        )


def bounded(names: Iterable[str]) -> tuple[str, ...] | None:
    """The names, each once; `None`: they are more, or one is longer, than a response may have."""
    found = tuple(dict.fromkeys(names))
    return None if len(found) > MAX_TAGS or any(len(name) > MAX_TAG_LENGTH for name in found) else found


def response_tags(request: HttpRequest, fields: Mapping[bytes, bytes]) -> tuple[str, ...] | None:
    """The tags of a response, in their internal form, each once; `None`: it has more or longer ones than it may.

    Args:
        request: whose rule may give some.
        fields: of the response, by lower-case name.
    """
    of_rule = () if request.rule is None else request.rule.tags
    if _TAG_FIELDS.isdisjoint(fields):
        return of_rule
    own = bounded([*named_tags(fields), *groups(request.url, fields.get(b"cache-groups"))])
    if own is None:
        return None
    found = tuple(dict.fromkeys((*of_rule, *map(tag, own))))
    return found if len(found) <= MAX_TAGS else None


def confirmed_tags(
    url: str, before: Sequence[str], fields: Mapping[bytes, bytes], now: Sequence[str]
) -> tuple[str, ...] | None:
    """The tags of a stored response that was confirmed, each once; `None`: more than it may have.

    Those that the app gave it when it was stored stay, whoever confirms it.

    Args:
        url: of the response.
        before: its tags so far, internal form.
        fields: its header fields so far, by lower-case name.
        now: its tags by what it says by now and by the request that confirms it, internal form.
    """
    own: set[str] = set()
    if before and not _TAG_FIELDS.isdisjoint(fields):
        own.update(map(tag, (*named_tags(fields), *groups(url, fields.get(b"cache-groups")))))
    found = tuple(dict.fromkeys((*now, *(name for name in before if name not in own))))
    return found if len(found) <= max(MAX_TAGS, len(now)) else None


_TAG_FIELDS = frozenset({b"surrogate-key", b"cache-tag", b"xkey", b"cache-groups"})


def named_tags(fields: Mapping[bytes, bytes]) -> list[str]:
    """The tags in `Surrogate-Key` (between spaces), `Cache-Tag` (commas) and `xkey` (either)."""
    found = fields.get(b"surrogate-key", b"").replace(b"\t", b" ").split(b" ")
    # Several lines of this field were joined by commas, which are allowed in a key, so only those between lines go.
    found = [member[:-1] if member.endswith(b",") else member for member in found]
    found += [member.strip(b" \t") for member in fields.get(b"cache-tag", b"").split(b",")]
    found += _SPACE_OR_COMMA.split(fields.get(b"xkey", b""))
    return [member.decode("utf-8", "surrogateescape") for member in found if member]


def groups(url: str, value: bytes | None) -> list[str]:
    """The tags of the groups in `Cache-Groups` or `Cache-Group-Invalidation` (RFC 9875 §2, §3).

    A group belongs to one origin, so the origin is part of its tag.

    Args:
        url: of the request: scheme, authority, path and query.
        value: of the field, its lines joined; `None`: absent.
    """
    names = string_list(value)
    if not names:
        return []
    origin = origin_of(url)
    return [f"group {origin} {name}" for name in names]


def origin_of(url: str) -> str:
    """Scheme and authority of a URL, in lower case, the default port left out (RFC 6454 §4, RFC 9110 §4.2.3)."""
    scheme, _, rest = url.partition("://")
    end = min((at for char in "/?#" if (at := rest.find(char)) >= 0), default=len(rest))
    scheme, authority = scheme.lower(), rest[:end].lower()
    return f"{scheme}://{authority.removesuffix(':443' if scheme == 'https' else ':80')}"


def group_tag(origin: str, name: str) -> str:
    """The tag of one group of an origin, as `invalidate_tags` takes it.

    Args:
        origin: scheme and authority, or any URL of it.
        name: of the group.
    """
    return f"group {origin_of(origin)} {name}"


def invalidated_groups(request: HttpRequest, fields: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """The tags that the response to an unsafe request invalidates, as `invalidate_tags` takes them (RFC 9875 §3).

    It may be ignored after all, so of a field that names more groups than a response can be in, the first count.

    Args:
        request: with an unsafe method; for any other the field does not count.
        fields: of the response, by lower-case name.
    """
    if request.method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        return ()
    found = dict.fromkeys(groups(request.url, fields.get(b"cache-group-invalidation")))
    return tuple(found)[:MAX_TAGS]


def string_list(value: bytes | None) -> list[str]:
    """The strings of a structured field that is a list (RFC 9651 §3.1); empty where it is none.

    Members of other types, and all parameters, are left out.
    """
    if value is None:
        return []
    text = value.strip(b" ")
    found: list[str] = []
    at = 0
    while at < len(text):
        string = _SF_STRING.match(text, at)
        item = string or _SF_OTHER.match(text, at)
        if item is None:
            return []
        if string is not None:
            found.append(_SF_ESCAPED.sub(rb"\1", string[1]).decode("ascii"))
        end = _after_parameters(text, item.end())
        if end == len(text):
            return found
        following = _SF_NEXT.match(text, end)
        if following is None or following.end() == len(text):
            return []
        at = following.end()
    return found


def _after_parameters(text: bytes, at: int) -> int:
    while (parameter := _SF_PARAMETER.match(text, at)) is not None:
        at = parameter.end()
        if parameter[1]:
            value = _SF_STRING.match(text, at) or _SF_OTHER.match(text, at)
            if value is None:
                return at - 1  # what stands here is no parameter, and no comma either
            at = value.end()
    return at


def _texts(tags: object) -> tuple[str, ...]:
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise TypeError(f"tags= of a CacheRule returned {type(tags).__qualname__}: return a list of texts")
    found = tuple(tags)
    for each in found:
        if not isinstance(each, str) or not each:
            raise TypeError(f"tags= of a CacheRule returned a tag that is {type(each).__qualname__} or empty")
    return found
