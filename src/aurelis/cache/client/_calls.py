"""Pure rules of the client side: what of a request and of a response matters to the cache."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from aurelis.cache.http import SAFE_METHODS, Fields, HttpRequest, ResponseHead, combine, storable_fields
from aurelis.cache.models import (
    PROFILES,
    ModelRequest,
    clean_url,
    credential_partition,
    partition,
    recognise,
    replay_fields,
)
from aurelis.cache.typing import Pass, Record

from ._library import Request, Response

Call = HttpRequest | ModelRequest

_MODEL_PATHS = tuple(profile.path_suffix.encode("ascii") for profile in PROFILES)
# With one of these a GET may be more than a question for what a URL names.
_UNUSUAL_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"upgrade"})
# They describe the encoded bytes, and what is recorded is decoded.
_ENCODED_FIELDS = frozenset(
    {b"content-digest", b"content-encoding", b"content-length", b"content-md5", b"digest", b"repr-digest"}
)


def is_model_path(target: bytes) -> bool:
    """Whether calls of a model may be addressed to this path, which a query may follow."""
    return target.partition(b"?")[0].endswith(_MODEL_PATHS)


class Recogniser:
    """Tells which requests are the cache's business, and what they are to the rules.

    Args:
        bytes_stream: class of request bodies that can be read twice.
        secret: key of the hashes that stand for credentials, at most 64 bytes.
        shared: plain requests are not kept apart by credentials.
        share_across_credentials: nor are model calls.
    """

    __slots__ = ("_bytes_stream", "_secret", "_share_across_credentials", "_shared")

    def __init__(self, bytes_stream: type, secret: bytes, *, shared: bool, share_across_credentials: bool) -> None:
        self._bytes_stream = bytes_stream
        self._secret = secret
        self._shared = shared
        self._share_across_credentials = share_across_credentials

    def __call__(self, request: Request) -> Call | None:
        """The request as the rules see it; `None`: it passes untouched."""
        method = request.method
        if method == "POST":
            if not is_model_path(request.url.raw_path):
                return None
        elif method != "GET" and method != "HEAD":
            return None
        address, fields = self._read(request)
        if address is None:
            return None
        if method == "POST":
            return self._model_call(request, address, fields)
        if not _UNUSUAL_FIELDS.isdisjoint(fields) and not _is_plain(fields):
            return None
        address, token = self._identity(address, fields)
        return HttpRequest(method, address, fields, token)

    def unsafe(self, request: Request) -> HttpRequest | None:
        """A request that may put stored responses out of date; `None`: it does not, or not here."""
        if request.method in SAFE_METHODS:
            return None
        address, fields = self._read(request)
        if address is None:
            return None
        _, token = self._identity(address, fields)
        return HttpRequest(request.method, address, fields, token)

    def addresses(self, url: str) -> tuple[str, ...]:
        """The addresses that a URL has in keys."""
        return tuple({url, clean_url(url)})

    def _read(self, request: Request) -> tuple[str | None, Mapping[bytes, bytes]]:
        """The address and the fields; `None`: the request is for something else than its URL says."""
        url = request.url
        fields = combine([(name.lower(), value) for name, value in request.headers.raw])
        authority = url.netloc
        if fields.get(b"host", authority) != authority or "target" in request.extensions:
            return None, fields
        return f"{url.scheme}://{authority.decode('ascii')}{url.raw_path.decode('ascii')}", fields

    def _identity(self, address: str, fields: Mapping[bytes, bytes]) -> tuple[str, str]:
        """The address as it is in keys, and what keeps its responses apart from those of others."""
        token = "" if self._shared else credential_partition(fields, self._secret)
        query = address.partition("?")[2]
        if query and partition({}, query, self._secret):
            # Keys can be read in a shared layer: of credentials in the query only a hash goes into them.
            token = blake2b(f"{token} {address}".encode("ascii"), digest_size=16, key=self._secret).hexdigest()
            address = clean_url(address)
        return address, token

    def _model_call(self, request: Request, address: str, fields: Mapping[bytes, bytes]) -> ModelRequest | None:
        if not isinstance(request.stream, self._bytes_stream):
            return None  # to read an upload is to use it up
        path, _, query = address.partition("?")
        call = recognise("POST", path, fields.get(b"content-type", b""), request.read())
        if call is None:
            return None
        token = "" if self._share_across_credentials else partition(fields, query, self._secret)
        return ModelRequest(clean_url(address), fields, call, token)


def patience_for_chunk(request: Request) -> float | None:
    """Seconds that the caller would wait for the next piece of a response of its own; `None`: for ever."""
    return _timeout(request, "read")


def patience_for_head(request: Request) -> float | None:
    """The same for the head, before which there may be a connection to make."""
    read = _timeout(request, "read")
    return None if read is None else read + (_timeout(request, "connect") or 0.0)


def _timeout(request: Request, kind: str) -> float | None:
    timeouts = request.extensions.get("timeout")
    value = timeouts.get(kind) if isinstance(timeouts, Mapping) else None
    return value if isinstance(value, (int, float)) else None


def _is_plain(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a GET has no body and asks for no other protocol."""
    if b"upgrade" in fields or b"transfer-encoding" in fields:
        return False
    return fields.get(b"content-length", b"0").strip() == b"0"


def decoded_head(response: Response, call: Call, decodes: frozenset[bytes]) -> tuple[ResponseHead, str]:
    """The head of a response as it is with its body decoded, and why that cannot be had; empty: it can.

    Args:
        decodes: content codings that the library's responses decode.
    """
    lines = tuple((name.lower(), value) for name, value in response.headers.raw)
    codings = {
        coding
        for name, value in lines
        if name == b"content-encoding"
        for coding in value.lower().replace(b" ", b"").split(b",")
    } - {b"", b"identity"}
    if not codings:
        return ResponseHead(response.status_code, lines), ""
    # What was not asked for is nothing that this caller expects to be decoded.
    if not codings <= decodes or not codings <= _accepted(call.fields.get(b"accept-encoding", b""), codings):
        return ResponseHead(response.status_code, lines), "content-encoding"
    kept = tuple(line for line in lines if line[0] not in _ENCODED_FIELDS)
    return ResponseHead(response.status_code, kept), ""


def _accepted(value: bytes, codings: set[bytes]) -> set[bytes]:
    """Which of the codings an Accept-Encoding asks for (RFC 9110 §12.5.3)."""
    accepted: dict[bytes, bool] = {}
    for member in value.lower().replace(b" ", b"").split(b","):
        coding, _, weight = member.partition(b";")
        accepted[coding] = weight.rstrip(b"0").rstrip(b".") not in (b"q=", b"q=0")
    anything = accepted.get(b"*", False)
    return {coding for coding in codings if accepted.get(coding, anything)}


def shared_fields(head: ResponseHead, call: Call, decision: Record | Pass) -> Fields:
    """The fields of a response that was loaded for another caller: without what holds for that one alone."""
    if isinstance(call, ModelRequest):
        return replay_fields(head)
    return storable_fields(head, decision.left_out if isinstance(decision, Record) else frozenset())
