"""The origin of the cases: an ASGI app that answers each request as its case says."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

from starlette.types import Receive, Scope, Send

from tests.http.conformance.cases import Case

DATES = frozenset({"date", "expires", "last-modified", "if-modified-since", "if-unmodified-since"})
"""Fields in which a number stands for an instant, in seconds from now."""

UNCONDITIONAL = 598
"""Status of an answer to a request that should have been conditional. (Servers here carry nothing above 599.)"""

EARLY_HINT = "http.response.early_hint"
"""The extension by which an ASGI app sends a 103."""

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Disconnected(Exception):
    """The origin closes the connection without an answer."""


@dataclass
class Seen:
    """A request that the origin got, and the fields of its answer that have to reach the client."""

    number: str
    method: str
    fields: Mapping[str, str]
    checked: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Script:
    """One run of a case.

    Attributes:
        seen: what the origin was asked so far.
        values: values that were fixed when they were first used, by request number, kind and index.
    """

    case: Case
    seen: list[Seen] = field(default_factory=list)
    values: dict[tuple[int, str, int], str] = field(default_factory=dict)

    def value(self, number: int, kind: str, index: int, line: list[Any], now: float, request: Mapping[str, Any]) -> str:
        """A field value, dates made from numbers."""
        key = (number, kind, index)
        if key not in self.values:
            value = line[1]
            if isinstance(value, int) and line[0].lower() in DATES:
                value = date(now + value, rfc850=line[0].lower() in map(str.lower, request.get("rfc850date", ())))
            self.values[key] = str(value)
        return self.values[key]


def date(instant: float, *, rfc850: bool = False) -> str:
    """An HTTP date."""
    imf = formatdate(int(instant), usegmt=True)
    if not rfc850:
        return imf
    _, day, month, year, time, zone = imf.split(" ")
    weekday = next(name for name in _WEEKDAYS if name.startswith(imf[:3]))
    return f"{weekday}, {day}-{month}-{year[2:]} {time} {zone}"


def joined(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Values by lower-case name, several lines joined."""
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in fields:
        lines[name.lower()].append(value)
    return {name: ", ".join(values) for name, values in lines.items()}


class ScriptedOrigin:
    """The app. `scripts`: the runs by token.

    Args:
        time: seconds since the epoch.
        pause: lets seconds pass.
    """

    def __init__(self, time: Callable[[], float], pause: Callable[[float], Awaitable[None]]) -> None:
        self.scripts: dict[str, Script] = {}
        self._time = time
        self._pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http"
        target = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        token = unquote(scope["path"]).split("/")[2]
        script = self.scripts[token]
        fields = joined([(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]])
        # Of a body that there is not, uvicorn over HTTP/2 says nothing.
        while "content-length" in fields and (await receive()).get("more_body"):
            pass
        number = int(fields["req-num"]) if fields.get("req-num", "").isdigit() else len(script.seen) + 1
        seen = Seen(fields.get("req-num", str(number)), scope["method"], fields)
        script.seen.append(seen)
        if not 1 <= number <= len(script.case.requests):
            await _answer(send, 409, [], b"")
            return
        request = script.case.requests[number - 1]
        if pause := request.get("response_pause", 0):
            await self._pause(pause)
        if request.get("disconnect"):
            raise Disconnected
        await _hint(scope, send, request.get("interim_responses", ()))
        lines = self._lines(script, number, request, target)
        seen.checked = [
            (name, value)
            for line, (name, value) in zip(request.get("response_headers", ()), lines, strict=True)
            if len(line) < 3 or line[2]
        ]
        status = self._status(script, number, request, fields)
        present = {name.lower() for name, _ in lines}
        head = [
            ("Server-Base-Url", target),
            ("Server-Request-Count", str(len(script.seen))),
            ("Client-Request-Count", str(number)),
            ("Server-Now", str(int(self._time() * 1000))),
            *lines,
            *([] if "content-type" in present else [("Content-Type", "text/plain")]),
            *([] if "date" in present else [("Date", date(self._time()))]),
            ("Request-Numbers", " ".join(one.number for one in script.seen)),
        ]
        text = request.get("response_body")
        body = (token if text is None else text).encode()
        await _answer(send, status, head, b"" if status in (204, 304) or scope["method"] == "HEAD" else body)

    def _lines(self, script: Script, number: int, request: Mapping[str, Any], target: str) -> list[tuple[str, str]]:
        lines = []
        for index, line in enumerate(request.get("response_headers", ())):
            value = script.value(number, "response", index, line, self._time(), request)
            if request.get("magic_locations") and line[0].lower() in ("location", "content-location"):
                value = f"{target}/{value}" if value else target
            lines.append((line[0], value))
        return lines

    def _status(self, script: Script, number: int, request: Mapping[str, Any], fields: Mapping[str, str]) -> int:
        if not request.get("expected_type", "").endswith("validated"):
            status: int = request.get("response_status", [200])[0]
            return status
        before = script.case.requests[number - 2]
        for index, line in enumerate(before.get("response_headers", ())):
            # Of an object that was never sent, because the cache has answered, what is written counts.
            value = script.values.get((number - 1, "response", index), line[1])
            wanted = {"last-modified": "if-modified-since", "etag": "if-none-match"}.get(line[0].lower())
            if wanted is not None and fields.get(wanted) == value:
                return 304
        return UNCONDITIONAL


async def _hint(scope: Scope, send: Send, interim: Sequence[Any]) -> None:
    """Send what of interim responses ASGI can say: the links of a 103, where the server takes them."""
    if EARLY_HINT not in scope.get("extensions", {}):
        return
    for status, *fields in interim:
        links = [value.encode() for name, value in (fields[0] if fields else ()) if name.lower() == "link"]
        if status == 103 and links:
            await send({"type": EARLY_HINT, "links": links})


async def _answer(send: Send, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    if status not in (204, 304) and not any(name.lower() == b"content-length" for name, _ in headers):
        headers.append((b"Content-Length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def dump(script: Script) -> str:
    """What the origin saw, for people."""
    return json.dumps([[one.number, one.method, dict(one.fields)] for one in script.seen])


async def asleep(seconds: float) -> None:
    """Real time passes."""
    await asyncio.sleep(seconds)
