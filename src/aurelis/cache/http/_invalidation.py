"""What the response to an unsafe request says of what is stored (RFC 9111 §4.4, RFC 9110 §9.3.3)."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from ._directives import response_directives
from ._messages import Fields, HttpRequest, ResponseHead, combine

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND", "QUERY", "REPORT", "SEARCH", "TRACE"})
"""Registered methods that are safe (RFC 9110 §9.2.1). Any other changes something, also one that nobody knows."""

_MAX_LENGTH = 8192


def invalidated(request: HttpRequest, head: ResponseHead) -> tuple[str, ...]:
    """The URIs whose stored responses are out of date after this response, each once.

    Args:
        request: with any method; a safe one puts nothing out of date.
        head: of its response; names of fields in lower case.
    """
    if request.method in SAFE_METHODS or not 200 <= head.status <= 399:
        return ()
    found = {request.url: None}
    for name in (b"location", b"content-location"):
        other = _resolved(request.url, head.headers, name)
        if other is not None:
            found[other] = None
    return tuple(found)


def as_get(request: HttpRequest, head: ResponseHead) -> HttpRequest | None:
    """The GET request whose response this one may be stored as; `None`: it may not (RFC 9110 §9.3.3).

    That is so where a POST is answered with what the URI names by now, and the answer says itself how long that is
    fresh. No rule of the app speaks for it. One that sets a cookie is for the client that has sent the POST.

    Args:
        request: with any method.
        head: of its response; names of fields in lower case.
    """
    if request.method != "POST" or not 200 <= head.status <= 299:
        return None
    if _resolved(request.url, head.headers, b"content-location") != request.url:
        return None
    fields = combine(head.headers)
    directives = response_directives(fields.get(b"cache-control"))
    if b"set-cookie" in fields:
        return None
    if directives.max_age is None and directives.s_maxage is None and b"expires" not in fields:
        return None
    return HttpRequest("GET", request.url, request.fields, request.partition)


def _resolved(base: str, fields: Fields, name: bytes) -> str | None:
    """The URI in a field, if it belongs to the same origin as the request; no other may be put out of date."""
    values = [value for candidate, value in fields if candidate == name]
    if len(values) != 1 or len(values[0]) > _MAX_LENGTH:
        return None
    reference = values[0].strip(b" \t").decode("latin-1")
    try:
        target = urlsplit(urljoin(base, reference))
        own = urlsplit(base)
    except ValueError:  # a bracket that is not closed, for instance
        return None
    if target.scheme != own.scheme or _authority(target.scheme, target.netloc) != _authority(own.scheme, own.netloc):
        return None
    # As keys have it: the authority of the request, and no fragment.
    path = target.path or "/"
    return f"{own.scheme}://{own.netloc}{path}" + (f"?{target.query}" if target.query else "")


def _authority(scheme: str, netloc: str) -> str:
    return netloc.lower().removesuffix(":443" if scheme == "https" else ":80")
