"""What is known not to end well, and why. `docs/http-conformance.md` says the same for people."""

from collections.abc import Mapping
from typing import Final

_ONLY_LINKS = "of interim responses, ASGI knows 103 alone and no field of it but Link"
_NO_INTERIM = "ASGI servers send interim responses from HTTP/2 on only"
_NO_INTERIM_GIVEN = "the library's connections drop interim responses"
_SET_COOKIE = "deliberate: a cookie is for the one who asked, and a shared cache never stores it"
_TOO_SHORT = "a heuristic lifetime is a tenth of the time since the last modification, which is less than the pause"
_MALFORMED_TAG = "deliberate: what is no entity tag matches nothing, so the whole response is sent"
_READING = "deliberate: fields that say how to read the stored bytes are not updated"

EVERYWHERE: Final[Mapping[str, str]] = {
    "interim-102": _ONLY_LINKS,
    "interim-103": _ONLY_LINKS,
    "interim-no-header-reuse": _ONLY_LINKS,
    "heuristic-delta-5": _TOO_SHORT,
    "heuristic-delta-10": _TOO_SHORT,
    "heuristic-delta-30": _TOO_SHORT,
    "ccreq-max-stale-age": "what is stale when it comes, and has no validator, is not stored",
    "conditional-etag-quoted-respond-unquoted": _MALFORMED_TAG,
    "conditional-etag-unquoted-respond-unquoted": _MALFORMED_TAG,
    "conditional-etag-unquoted-respond-quoted": _MALFORMED_TAG,
    "conditional-etag-weak-respond-lowercase": _MALFORMED_TAG,
    "conditional-etag-weak-respond-backslash": _MALFORMED_TAG,
    "conditional-etag-weak-respond-omit-slash": _MALFORMED_TAG,
    "conditional-etag-strong-generate-unquoted": _MALFORMED_TAG,
    "conditional-etag-forward-unquoted": "the conditions of a client are forwarded as they came",
    "conditional-etag-vary-headers-mismatch": "a variant is not validated by the entity tag of another one",
    "304-etag-update-response-Content-Encoding": _READING,
    "304-etag-update-response-Content-Range": _READING,
    "304-etag-update-response-ETag": "a 304 with another entity tag is about another response (RFC 9111 §4.3.4)",
    "304-etag-update-response-Set-Cookie": _SET_COOKIE,
    "other-age-delay": "a response that was not stored before gets no Age",
}
"""Cases that end so in each of the runs."""

BY_RUN: Final[Mapping[str, Mapping[str, str]]] = {
    "in_process": EVERYWHERE,
    "behind_uvicorn": EVERYWHERE,
    "behind_uvicorn_over_http_1": {**EVERYWHERE, "interim-not-cached": _NO_INTERIM},
    "through_the_transport": EVERYWHERE,
}
"""The same for each run."""

OF_THE_LIBRARYS_CONNECTIONS: Final[Mapping[str, str]] = dict.fromkeys(
    ("interim-102", "interim-103", "interim-not-cached", "interim-no-header-reuse"), _NO_INTERIM_GIVEN
)
"""Cases of interim responses that do not end well through a transport around httpx2's own: all."""
