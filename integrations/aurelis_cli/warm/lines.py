"""What a file of calls says: one JSON object a line, in the form of OpenAI's Batch API or as a model and a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from aurelis.cache.models import recognise

_CHAT: Final = "/chat/completions"
_BATCH_FIELDS: Final = frozenset({"body", "custom_id", "method", "url"})


class LineError(Exception):
    """A line is no call that can be warmed.

    Attributes:
        line: its number, from 1 on.
        why: in words that hold nothing of the line.
    """

    def __init__(self, line: int, why: str) -> None:
        self.line = line
        self.why = why
        super().__init__(f"line {line}: {why}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        line: where it stands, from 1 on.
        url: its address.
        body: JSON.
    """

    line: int
    url: str = field(repr=False)
    body: bytes = field(repr=False)


def calls(file: Path, base_url: str) -> Iterator[Call | LineError]:
    """The calls in a file, in order; a `LineError` in the place of what is none. Lines without anything are left out.

    Args:
        base_url: where the API is; what a line names is below it.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield _call(number, line, base_url.rstrip("/"))
            except LineError as error:
                yield error


def _call(number: int, line: bytes, base_url: str) -> Call:
    try:
        document: object = json.loads(line)
    except (ValueError, RecursionError):
        raise LineError(number, "no JSON") from None
    if not isinstance(document, dict):
        raise LineError(number, "no JSON object")
    if "body" in document or "url" in document:
        path, body = _of_batch(number, document)
    else:
        path, body = _of_prompt(number, document)
    url = _join(number, base_url, path)
    encoded = json.dumps(body).encode("ascii")
    if recognise("POST", urlsplit(url).path, b"application/json", encoded) is None:
        raise LineError(number, "no call of a model that the cache answers, by its url and body")
    return Call(number, url, encoded)


def _of_batch(number: int, document: dict[str, Any]) -> tuple[str, object]:
    unknown = document.keys() - _BATCH_FIELDS
    if unknown:
        raise LineError(number, f"a line with a url or a body has {', '.join(sorted(_BATCH_FIELDS))} and nothing else")
    path, body = document.get("url", _CHAT), document.get("body")
    if document.get("method", "POST") != "POST":
        raise LineError(number, "the method of a model call is POST")
    if not isinstance(path, str) or not isinstance(body, dict):
        raise LineError(number, "url must be a string, and body an object")
    return path, body


def _of_prompt(number: int, document: dict[str, Any]) -> tuple[str, object]:
    body = dict(document)
    prompt = body.pop("prompt", None)
    if not isinstance(prompt, str) or not isinstance(body.get("model"), str) or "messages" in body:
        raise LineError(number, "neither url and body nor model and prompt, both of which are strings")
    body["messages"] = [{"role": "user", "content": prompt}]
    return _CHAT, body


def _join(number: int, base_url: str, path: str) -> str:
    """The address below the base; where the path begins as the base ends, that counts once."""
    leaves = any(unquote(step) in (".", "..") for step in path.partition("?")[0].split("/"))
    if leaves or "://" in path or "#" in path or not path.isprintable() or " " in path:
        # Otherwise a line could send the credentials elsewhere.
        raise LineError(number, "url must be a path below the base URL")
    steps, own = path.strip("/").split("/"), urlsplit(base_url).path.strip("/").split("/")
    common = next((length for length in range(len(own), 0, -1) if own[-length:] == steps[:length]), 0)
    return "/".join((base_url, *steps[common:]))
