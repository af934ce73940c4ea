"""An ASGI scope as the record that the HTTP rules understand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from aurelis.cache.http import (
    CacheRule,
    Fields,
    HttpRequest,
    RuleEffect,
    TargetRule,
    encoded_elsewhere,
    rules_for,
)
from aurelis.cache.models import without_credentials

from ._telling import Tells

BODY_FIELDS = frozenset({b"content-length", b"transfer-encoding"})
"""Request fields that announce a body."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for, and what follows from that alone.

    Attributes:
        uri: target URI (RFC 9110 §7.1): scheme, authority, path and query. The path is taken as the client sent it: two
            spellings of one path have entries of their own, since the app may tell them apart. Of the query there is
            what counts.
        said: by the rule for it, or `None`.
        effect: what that says about every request; `None` without a rule.
        asks: each request has to be looked at.
        key: of the response, where requests are not kept apart.
        tells: how much responses say of the cache.
        partition: what keeps requests apart that say that their target is another one, or that have credentials in the
            query; empty: they don't.
        alternatives: the same for rules that count for some requests, in order, before this one.
    """

    uri: str = field(repr=False)
    said: TargetRule | None
    effect: RuleEffect | None
    asks: bool
    key: str = field(repr=False)
    tells: Tells
    partition: str = ""
    alternatives: tuple[Target, ...] = ()

    def chosen(self, method: str, fields: Mapping[bytes, bytes]) -> Target:
        """The target as the first rule sees it that counts for the request."""
        for other in self.alternatives:
            if other.said is not None and other.said.rule.applies(method, fields):
                return other
        return self


def make_target(
    rules: Sequence[CacheRule],
    key_of: Callable[[HttpRequest], str],
    tells: Tells,
    partition_of: Callable[[bytes], str],
    scheme: str,
    host: bytes | None,
    raw_path: bytes | None,
    path: str,
    query: bytes,
    root_path: str,
    elsewhere: Fields = (),
    server: Sequence[object] | None = None,
) -> Target:
    """Read what a scope says about the target.

    Args:
        tells: where no rule says it.
        partition_of: the keyed hash of what keeps requests apart.
        elsewhere: what fields say about another target, as `told_elsewhere` gives it.
        server: where there is no `host`.
    """
    partition = partition_of(encoded_elsewhere(elsewhere)) if elsewhere else ""
    name = (f"{server[0]}:{server[1]}" if server else "").encode() if host is None else host
    authority = authority_of(scheme, name)
    resource = f"{scheme}://{authority}{quote(path) if raw_path is None else raw_path.decode('latin-1')}"

    def seen_by(said: TargetRule | None, alternatives: tuple[Target, ...] = ()) -> Target:
        counts = query if said is None else said.query
        uri, apart = f"{resource}?{counts.decode('latin-1')}" if counts else resource, partition
        if (clean := without_credentials(uri)) != uri:
            # Keys can be read in a shared layer: of credentials in the query only a hash goes into them.
            uri, apart = clean, partition_of(f"{partition} {uri}".encode("utf-8", "surrogatepass"))
        key = key_of(HttpRequest("GET", uri, {}, apart))
        asks = said is not None and (said.rule.separates or said.refusal is not None)
        own = tells if said is None or said.rule.cache_status is None else said.rule.cache_status
        # What all hits have in common is prepared; one that tells something else has to be made for its request.
        asks = asks or own != tells or own == "debug"
        return Target(uri, said, None if said is None else said.effect, asks, key, own, apart, alternatives)

    found = rules_for(rules, path_below_root(path, root_path), authority, query) if rules else ()
    last = found[-1] if found and not found[-1].rule.is_conditional else None
    return seen_by(last, tuple(seen_by(said) for said in found if said is not last))


def authority_of(scheme: str, host: bytes) -> str:
    """A host as it is in keys: lower case, without the scheme's own port (RFC 9110 §4.2.3).

    What belongs in no host is escaped: with a slash in it, one part of a path could pass for another.
    """
    host = host.strip(b" \t").lower().removesuffix(b":443" if scheme == "https" else b":80")
    return quote(host, safe="-._~:[]")


def path_below_root(path: str, root: str) -> str:
    """The decoded path below the root path, which rules are written for."""
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :] or "/"
    return path


def has_body(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a body follows (RFC 9112 §6.3). On a GET it has no meaning for HTTP, but the app may read it."""
    length = fields.get(b"content-length")
    return b"transfer-encoding" in fields or (length is not None and length.strip() != b"0")
