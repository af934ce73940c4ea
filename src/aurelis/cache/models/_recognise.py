"""Which requests are model calls that a cache may answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from ._canonicalise import canonical_body, parse_object
from ._items import Draft, digests
from ._profiles import PROFILES, Profile


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A recognised call. Holds nothing of the prompt.

    Attributes:
        profile: its protocol and operation.
        model: name as the request gives it; empty where it gives none, as with a server of one model.
        stream: the answer was asked for as a stream.
        digest: of the canonical body, 32 hexadecimal digits.
        temperature: of the call, by default that of the protocol; `None`: nothing is drawn at random.
        choices: how many answers are asked for, where the end of a stream depends on it.
        longest: seconds for which its answer may be kept at most, may be infinite.
        items: how many things it asks for that are looked up one by one; 0: it has one answer, as most calls.
    """

    profile: Profile
    model: str
    stream: bool
    digest: str
    temperature: float | None = None
    choices: int = 1
    longest: float = math.inf
    items: int = 0

    @property
    def operation(self) -> str:
        """What the call asks for: `chat`."""
        return self.profile.operation


def recognise(
    method: str,
    path: str,
    content_type: bytes,
    body: bytes,
    profiles: Sequence[Profile] = PROFILES,
    *,
    by_user: bool = False,
) -> ModelCall | None:
    """The model call that a request is, or `None` for anything else, which the model rules leave alone.

    `None` also for a call that must reach the provider (stateful, with tools that run there) and for a body
    that could be read in more than one way. Never raises. Linear in the size of the body.

    Args:
        path: of the URL.
        content_type: empty where the field is missing.
        profiles: those that are looked for; of those whose path fits, the first that admits the body.
        by_user: on whose behalf the call is made tells it from others.
    """
    if method != "POST":
        return None
    fitting = [profile for profile in profiles if path.endswith(profile.path_suffix)]
    if not fitting or (content_type != b"application/json" and not _is_utf8_json(content_type)):
        return None
    document = parse_object(body)
    if document is None:
        return None
    profile = next((one for one in fitting if one.admits(document)), None)
    if profile is None:
        return None
    model = _model_in(path) if profile.model_in_path else document.get("model", "")
    stream: object = profile.streamed
    if stream is None:
        stream = document.get("stream")
        if stream is None:
            stream = profile.body.stream_default
    if not isinstance(model, str) or not isinstance(stream, bool):
        return None
    try:
        digest, items = _digest(profile, document, model, by_user=by_user)
    except (ValueError, RecursionError):
        return None
    return ModelCall(
        profile,
        model,
        stream,
        digest,
        _temperature(profile, document),
        profile.choices(document),
        profile.longest(document),
        items,
    )


def _digest(profile: Profile, document: Draft, model: str, *, by_user: bool) -> tuple[str, int]:
    """The digest of a body, and how many things it asks for that are looked up one by one."""
    rules = profile.items
    if profile.item is not None:
        return digests(canonical_body({}, profile.body), [profile.item(document, model)])[0], 0
    inputs = None if rules is None else rules.inputs(document)
    if rules is not None and inputs is not None and len(inputs) == 1 and rules.alone_at is None:
        common = canonical_body(rules.rest(document), profile.body, by_user=by_user)
        return digests(common, [rules.identity(inputs[0], model)])[0], 0
    canonical = canonical_body(document, profile.body, by_user=by_user)
    return blake2b(canonical, digest_size=16).hexdigest(), len(inputs or ())


def _temperature(profile: Profile, document: dict[str, object]) -> float | None:
    if profile.default_temperature is None:
        return None
    value = profile.temperature(document)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return profile.default_temperature
    return value if abs(value) < 2**53 else math.inf


def _model_in(path: str) -> str:
    return path.rpartition("/")[2].partition(":")[0]


def _is_utf8_json(content_type: bytes) -> bool:
    media_type, _, parameters = content_type.lower().partition(b";")
    if media_type.strip() != b"application/json":
        return False
    parameters = parameters.strip()
    return not parameters or parameters in (b"charset=utf-8", b'charset="utf-8"')
