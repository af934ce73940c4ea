"""One recording: a request as it is compared and shown, its response, and both as a readable file."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from aurelis.cache.http import Fields
from aurelis.cache.models import OPTIONAL, PROFILES, ModelCall, clean_url, credentials, parse_object, recognise

from ._scrubbing import Scrubber

_VERSION: Final = 1
_JSON: Final = "application/json"
_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?')
_PROFILES: Final = (*PROFILES, *(one for several in OPTIONAL.values() for one in several))
# Of all that selects an answer these are no account's own.
_COMPARED: Final = (b"anthropic-beta", b"anthropic-version", b"openai-beta")
_STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "spaced": {"ensure_ascii": False},
    "indented": {"indent": 2, "ensure_ascii": False},
    "compact ascii": {"separators": (",", ":")},
    "spaced ascii": {},
    "indented ascii": {"indent": 2},
}


class NoRecording(ValueError):
    """A document is no recording; the text says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, without secrets.

    Attributes:
        url: without credentials.
        headers: fields that count, by lower-case name.
        body: as it was sent, but for secrets and the boundary of parts.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def call(self) -> ModelCall | None:
        """The call of a model that it is, if it is one."""
        path = "/" + self.url.partition("?")[0].partition("://")[2].partition("/")[2]
        content_type = self.headers.get("content-type", "").encode("latin-1", "replace")
        return recognise(self.method, path, content_type, self.body, _PROFILES)

    @property
    def identity(self) -> str:
        """Equal for requests that are the same: a digest."""
        call = self.call
        parts: tuple[object, ...]
        if call is not None:
            parts = (call.profile.name, call.operation, call.digest)
        else:
            document = _parsed(self.body)
            parts = (self.body if document is None else json.dumps(document, sort_keys=True),)
        whole = ascii((self.method, self.url, sorted(self.headers.items()), parts))
        return blake2b(whole.encode("ascii"), digest_size=16).hexdigest()

    def document(self) -> dict[str, Any]:
        """The request as it stands in a file."""
        return {
            "method": self.method,
            "url": self.url,
            "headers": dict(sorted(self.headers.items())),
            "body": _request_body(self.body),
        }

    def lines(self) -> list[str]:
        """The request as people compare it: texts by their lines, and no comma that comes and goes with a neighbour."""
        shown = json.dumps(_by_lines(self.document()), indent=2, ensure_ascii=False, sort_keys=True)
        return [line.removesuffix(",") for line in shown.split("\n")]


@dataclass(frozen=True, slots=True)
class Answered:
    """A response, without secrets, its body decoded."""

    status: int
    headers: Fields
    chunks: tuple[bytes, ...] = field(repr=False)


def secrets_of(url: str, fields: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """Values in a request that must not be recorded, whatever they look like."""
    found = []
    for value in credentials(fields, url.partition("?")[2]):
        # Without the scheme, too, and each cookie without its name.
        found += [value, value.rpartition(b" ")[2], *(one.partition(b"=")[2] for one in value.split(b"; "))]
    return tuple(value for value in dict.fromkeys(found) if value)


def asked(
    method: str, url: str, fields: Mapping[bytes, bytes], body: bytes, scrubber: Scrubber
) -> tuple[Asked, tuple[bytes, ...]]:
    """The request as it is recorded and compared, and its secrets.

    Args:
        fields: by lower-case name.
    """
    secrets = secrets_of(url, fields)
    headers = {}
    content_type = fields.get(b"content-type")
    if content_type is not None and body:
        boundary = _BOUNDARY.search(content_type)
        if content_type.startswith(b"multipart/") and boundary is not None:
            # Drawn for each request.
            body = body.replace(boundary[1], b"boundary")
            content_type = content_type.replace(boundary[1], b"boundary")
        headers["content-type"] = content_type.decode("latin-1")
    for name in _COMPARED:
        if name in fields:
            headers[name.decode("ascii")] = scrubber.text(fields[name], secrets).decode("latin-1")
    address = scrubber.text(clean_url(url.partition("#")[0]).encode(), secrets).decode()
    return Asked(method, address, headers, scrubber.text(body, secrets)), secrets


def dump(request: Asked, response: Answered) -> str:
    """A recording as a file."""
    document = {
        "recording": _VERSION,
        "request": request.document(),
        "response": {
            "status": response.status,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.headers],
            "body": [_chunk(chunk) for chunk in response.chunks],
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def load(text: str) -> tuple[Asked, Answered]:
    """A recording from a file.

    Raises:
        NoRecording: it is none.
    """
    try:
        document = json.loads(text)
        if document["recording"] != _VERSION:
            raise NoRecording(f"its version is not {_VERSION}")
        request, response = document["request"], document["response"]
        headers = {str(name): str(value) for name, value in request["headers"].items()}
        question = Asked(str(request["method"]), str(request["url"]), headers, _request_bytes(request["body"]))
        fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in response["headers"])
        answer = Answered(int(response["status"]), fields, tuple(_chunk_bytes(chunk) for chunk in response["body"]))
    except NoRecording:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, binascii.Error) as error:
        raise NoRecording(f"{type(error).__name__} while it was read") from None
    return question, answer


def _by_lines(document: Any) -> Any:  # whatever JSON can hold
    if isinstance(document, dict):
        return {name: _by_lines(value) for name, value in document.items()}
    if isinstance(document, list):
        return [_by_lines(value) for value in document]
    if isinstance(document, str) and "\n" in document:
        return document.split("\n")
    return document


def _parsed(body: bytes) -> Any:  # whatever JSON can hold
    """A JSON document, if it can only be read in one way; `None`: it is none, or nothing."""
    document: Any = parse_object(body)
    if document is None and body.lstrip()[:1] == b"[":
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return None
    return document


def _request_body(body: bytes) -> object:
    if not body:
        return None
    document = _parsed(body)
    if document is not None:
        return {"json": document}
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode("ascii")}


def _request_bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if "json" in body:
        return json.dumps(body["json"]).encode("ascii")
    return _bytes(body)


def _chunk(chunk: bytes) -> object:
    """A chunk so that people can read it and no byte is lost."""
    try:
        text = chunk.decode()
        document = json.loads(text) if text[:1] in ("{", "[") else None
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(chunk).decode("ascii")}
    except (ValueError, RecursionError):
        return {"text": text}
    if document is not None:
        bare = text.rstrip()
        for style, options in _STYLES.items():
            if json.dumps(document, **options) == bare:
                return {"json": document, "style": style, "end": text[len(bare) :]}
    return {"text": text}


def _chunk_bytes(chunk: Any) -> bytes:
    if "json" in chunk:
        return (json.dumps(chunk["json"], **_STYLES[chunk["style"]]) + str(chunk["end"])).encode()
    return _bytes(chunk)


def _bytes(document: Any) -> bytes:
    if "text" in document:
        return str(document["text"]).encode()
    return base64.b64decode(document["base64"], validate=True)
