"""Which requests are model calls that a cache may answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ._canonicalise import canonical_body, parse_object
from ._profiles import PROFILES, Profile


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A recognised call. Holds nothing of the prompt.

    Attributes:
        profile: its protocol and operation.
        model: name as the request gives it; empty where it gives none, as with a server of one model.
        stream: the answer was asked for as a stream.
        digest: of the canonical body, 32 hexadecimal digits.
    """

    profile: Profile
    model: str
    stream: bool
    digest: str

    @property
    def operation(self) -> str:
        """What the call asks for: `chat`."""
        return self.profile.operation


def recognise(
    method: str, path: str, content_type: bytes, body: bytes, profiles: Sequence[Profile] = PROFILES
) -> ModelCall | None:
    """The model call that a request is, or `None` for anything else, which the model rules leave alone.

    `None` also for a call that must reach the provider (stateful, with tools that run there) and for a body
    that could be read in more than one way. Never raises. `path` is that of the URL; `content_type` is empty
    where the field is missing. Linear in the size of the body.
    """
    if method != "POST":
        return None
    for profile in profiles:
        if path.endswith(profile.path_suffix):
            break
    else:
        return None
    if content_type != b"application/json" and not _is_utf8_json(content_type):
        return None
    document = parse_object(body)
    if document is None or not profile.admits(document):
        return None
    model = document.get("model", "")
    stream = document.get("stream", profile.body.stream_default)
    if stream is None:
        stream = profile.body.stream_default
    if not isinstance(model, str) or not isinstance(stream, bool):
        return None
    try:
        canonical = canonical_body(document, profile.body)
    except (ValueError, RecursionError):
        return None
    return ModelCall(profile, model, stream, blake2b(canonical, digest_size=16).hexdigest())


def _is_utf8_json(content_type: bytes) -> bool:
    media_type, _, parameters = content_type.lower().partition(b";")
    if media_type.strip() != b"application/json":
        return False
    parameters = parameters.strip()
    return not parameters or parameters in (b"charset=utf-8", b'charset="utf-8"')
