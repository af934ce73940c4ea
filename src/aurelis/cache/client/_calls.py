"""Pure rules of the client side: what of a request and of a response matters to the cache."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from aurelis.cache._call_options import NO_CALL_OPTIONS, CallOptions
from aurelis.cache._tags import tags
from aurelis.cache.http import (
    SAFE_METHODS,
    Fields,
    HttpRequest,
    ResponseHead,
    RuleEffect,
    combine,
    encoded_elsewhere,
    storable_fields,
    told_elsewhere,
)
from aurelis.cache.models import (
    Batch,
    Catalogue,
    ModelRequest,
    apart,
    clean_url,
    credential_partition,
    partition,
    recognise,
    replay_fields,
)
from aurelis.cache.typing import Pass, Record

from ._library import Request, Response

Call = HttpRequest | ModelRequest

_REMEMBERED_TURNS = 10_000
# With one of these a GET may be more than a question for what a URL names.
_UNUSUAL_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"upgrade"})
_CREDENTIAL_FIELDS = frozenset({b"authorization", b"cookie"})
# What a caller may want of a plain request, in the words of HTTP.
_CACHE_CONTROL: Mapping[str | None, bytes] = {"refresh": b"no-cache", "only_if_cached": b"only-if-cached"}
# With one of these the body that was sent is the only one that will be taken, or any other passes for the same request.
_BOUND_FIELDS = frozenset(
    {
        *(b"content-digest", b"content-md5", b"digest", b"signature"),
        *(b"x-amz-content-sha256", b"x-ms-content-sha256"),
        *(b"idempotency-key", b"repeatability-request-id", b"x-idempotency-key"),
    }
)
_SIGNING_SCHEME = b"aws4-"  # its signatures are of the body, also where no field says so
# They describe the encoded bytes, and what is recorded is decoded.
_ENCODED_FIELDS = frozenset(
    {b"content-digest", b"content-encoding", b"content-length", b"content-md5", b"digest", b"repr-digest"}
)


class Turns:
    """Which of several answers to a call comes next: each in turn, as far as this process remembers the call.

    Args:
        variants: how many there are, ≥ 1.
    """

    __slots__ = ("_next", "_variants")

    def __init__(self, variants: int) -> None:
        self._variants = variants
        self._next: dict[str, int] = {}

    def next(self, call: str) -> int:
        """The number of the next one, from 0 on."""
        if self._variants == 1:
            return 0
        if len(self._next) >= _REMEMBERED_TURNS:
            self._next.clear()
        turn = self._next.get(call, 0)
        self._next[call] = (turn + 1) % self._variants
        return turn


class Recogniser:
    """Tells which requests are the cache's business, and what they are to the rules.

    Args:
        bytes_stream: class of request bodies that can be read twice.
        secret: key of the hashes that stand for credentials, at most 64 bytes.
        catalogue: says which calls of models there are, and where.
        shared: plain requests are not kept apart by credentials.
        share_across_credentials: nor are model calls.
        by_user: those are kept apart by the user whom they name.
        variants: how many answers there are to each model call.
    """

    __slots__ = ("_by_user", "_bytes_stream", "_catalogue", "_secret", "_share_across_credentials", "_shared", "_turns")

    def __init__(
        self,
        bytes_stream: type,
        secret: bytes,
        catalogue: Catalogue,
        *,
        shared: bool,
        share_across_credentials: bool,
        by_user: bool = False,
        variants: int = 1,
    ) -> None:
        self._bytes_stream = bytes_stream
        self._secret = secret
        self._catalogue = catalogue
        self._shared = shared
        self._share_across_credentials = share_across_credentials
        self._by_user = by_user
        self._turns = Turns(variants)

    def __call__(self, request: Request, options: CallOptions = NO_CALL_OPTIONS) -> Call | None:
        """The request as the rules see it; `None`: it passes untouched."""
        method = request.method
        if method == "POST":
            if not self._catalogue.may_be_call(request.url.raw_path):
                return None
        elif method != "GET" and method != "HEAD":
            return None
        address, fields = self._read(request)
        if address is None:
            return None
        if method == "POST":
            return self._model_call(request, address, fields, options)
        if not _UNUSUAL_FIELDS.isdisjoint(fields) and not _is_plain(fields):
            return None
        address, token = self._identity(address, fields, options.namespace)
        rule = self._rule(fields, options)
        if options.mode not in _CACHE_CONTROL:
            return HttpRequest(method, address, fields, token, rule)
        fields = {**fields, b"cache-control": _CACHE_CONTROL[options.mode]}
        return HttpRequest(method, address, fields, token, rule, insists=True)

    def apart(self, call: ModelRequest, body: bytes) -> tuple[ModelRequest, Batch, list[ModelRequest]] | None:
        """A call for several items, what it asks for, and a call for each; `None`: it is to be served as a whole."""
        if not call.call.items or _is_bound(call.fields):
            return None
        return apart(call, body, by_user=self._by_user)

    def _rule(self, fields: Mapping[bytes, bytes], options: CallOptions) -> RuleEffect | None:
        """What the options of a plain request are to the rules; `None`: nothing."""
        windows = options.stale_while_revalidate, options.stale_if_error
        if options is NO_CALL_OPTIONS or (options.ttl is None and not options.tags and windows == (None, None)):
            return None
        ttl = options.ttl or None
        if self._shared and not _CREDENTIAL_FIELDS.isdisjoint(fields):
            ttl = None  # in a shared cache only the response itself can say that it is for others, too
        return RuleEffect(
            ttl,
            tags=tags(options.tags),
            stale_while_revalidate=windows[0],
            stale_if_error=windows[1],
            longest=options.ttl,
        )

    def unsafe(self, request: Request, options: CallOptions = NO_CALL_OPTIONS) -> HttpRequest | None:
        """A request that may put stored responses out of date; `None`: it does not, or not here."""
        if request.method in SAFE_METHODS:
            return None
        address, fields = self._read(request)
        if address is None:
            return None
        _, token = self._identity(address, fields, options.namespace)
        return HttpRequest(request.method, address, fields, token)

    def addresses(self, url: str) -> tuple[str, ...]:
        """The addresses that a URL has in keys, which hold no credentials of its query."""
        clean = clean_url(url)
        return (clean,) if self._has_credentials(url) else tuple({url, clean})

    def _read(self, request: Request) -> tuple[str | None, Mapping[bytes, bytes]]:
        """The address and the fields; `None`: the request is for something else than its URL says."""
        url = request.url
        fields = combine([(name.lower(), value) for name, value in request.headers.raw])
        authority = url.netloc
        if fields.get(b"host", authority) != authority or "target" in request.extensions:
            return None, fields
        return f"{url.scheme}://{authority.decode('ascii')}{url.raw_path.decode('ascii')}", fields

    def _identity(self, address: str, fields: Mapping[bytes, bytes], namespace: str | None) -> tuple[str, str]:
        """The address as it is in keys, and what keeps its responses apart from those of others."""
        token = "" if self._shared else credential_partition(fields, self._secret)
        if self._has_credentials(address):
            # Keys can be read in a shared layer: of credentials in the query only a hash goes into them.
            token = blake2b(f"{token} {address}".encode("ascii"), digest_size=16, key=self._secret).hexdigest()
            address = clean_url(address)
        if told := told_elsewhere(fields):
            # Who hands on the requests of others hands on what they say of the target, too.
            source = b"%b %b" % (token.encode("ascii"), encoded_elsewhere(told))
            token = blake2b(source, digest_size=16, key=self._secret).hexdigest()
        if namespace:
            named = ascii((token, namespace)).encode("ascii")
            token = blake2b(named, digest_size=16, key=self._secret).hexdigest()
        return address, token

    def _has_credentials(self, url: str) -> bool:
        """Whether the query of a URL holds some."""
        query = url.partition("?")[2]
        return bool(query and partition({}, query, self._secret))

    def _model_call(
        self, request: Request, address: str, fields: Mapping[bytes, bytes], options: CallOptions
    ) -> ModelRequest | None:
        if not isinstance(request.stream, self._bytes_stream):
            return None  # to read an upload is to use it up
        query = address.partition("?")[2]
        url = clean_url(address)
        path = url.partition("?")[0]
        profiles = self._catalogue.at(path)
        content_type = fields.get(b"content-type", b"")
        call = recognise("POST", path, content_type, request.read(), profiles, by_user=self._by_user)
        if call is None:
            return None
        token = "" if self._share_across_credentials else partition(fields, query, self._secret)
        by_item = call.profile.items is not None or call.profile.item is not None
        turn = 0 if by_item else self._turns.next(call.digest)
        return ModelRequest(
            url, fields, call, token, options, turn, patience_for_head(request), _timeout(request, "pool")
        )


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


def _is_bound(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a request of these fields can have no other body."""
    if not _BOUND_FIELDS.isdisjoint(fields):
        return True
    return fields.get(b"authorization", b"").lower().startswith(_SIGNING_SCHEME)


def head_of(response: Response) -> ResponseHead:
    """The head of a response as it came, but for the case of names."""
    return ResponseHead(response.status_code, tuple((name.lower(), value) for name, value in response.headers.raw))


def decoded_head(response: Response, call: Call, decodes: frozenset[bytes]) -> tuple[ResponseHead, str]:
    """The head of a response as it is with its body decoded, and why that cannot be had; empty: it can.

    Args:
        decodes: content codings that the library's responses decode.
    """
    head = head_of(response)
    codings = {
        coding
        for name, value in head.headers
        if name == b"content-encoding"
        for coding in value.lower().replace(b" ", b"").split(b",")
    } - {b"", b"identity"}
    if not codings:
        return head, ""
    # What was not asked for is nothing that this caller expects to be decoded.
    if not codings <= decodes or not codings <= _accepted(call.fields.get(b"accept-encoding", b""), codings):
        return head, "content-encoding"
    kept = tuple(line for line in head.headers if line[0] not in _ENCODED_FIELDS)
    return ResponseHead(head.status, kept), ""


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
