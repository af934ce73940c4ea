"""Streams taken apart as their bytes come: server-sent events, lines of JSON, the elements of one JSON array.

However a stream is cut into chunks, the same frames come out, each with the chunk that completes it.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

_BOM = b"\xef\xbb\xbf"
_LF = 0x0A
_CR = 0x0D


class Frame(NamedTuple):
    """One message of a stream.

    Attributes:
        name: of the event; empty where it has none.
        data: usually a JSON document.
    """

    name: bytes
    data: bytes


class Splitter(Protocol):
    """Takes a stream apart."""

    @property
    def is_open(self) -> bool:
        """The framing has an end of its own, which has not come yet: without it nothing of the stream can be read."""
        ...

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next chunk; the frames that it completes."""
        ...

    def rest(self) -> list[Frame]:
        """No chunk follows; what is complete without an end of its own."""
        ...


class _Lines:
    """Lines as they become complete. A line that never ends is held until then.

    Args:
        cr: CR ends lines, too.
    """

    __slots__ = ("_after_cr", "_cr", "_partial")

    def __init__(self, *, cr: bool) -> None:
        self._cr = cr
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._partial: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if not chunk:
            return []
        if self._cr:
            lines = chunk.splitlines()  # of bytes: splits at CR LF, LF and CR only
            last = chunk[-1]
            self._after_cr = last == _CR
            tail = b"" if last in (_LF, _CR) else lines.pop()
        else:
            lines = chunk.split(b"\n")
            tail = lines.pop()
        if lines and self._partial:
            lines[0] = b"".join((*self._partial, lines[0]))
            self._partial.clear()
        if tail:
            self._partial.append(tail)
        return lines

    def rest(self) -> bytes:
        return b"".join(self._partial)


class EventSplitter:
    """Server-sent events, read as the WHATWG HTML standard (§9.2.6) has it.

    Lines end in CR LF, LF or CR. An empty line dispatches the event; one without its empty line never happened.
    """

    __slots__ = ("_at_start", "_data", "_lines", "_name")
    is_open = False

    def __init__(self) -> None:
        self._lines = _Lines(cr=True)
        self._at_start = True  # no line has ended yet
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next chunk; the events that it dispatches."""
        frames: list[Frame] = []
        lines = self._lines.feed(chunk)
        if self._at_start and lines:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if not line:
                if self._data or self._name:
                    frames.append(Frame(self._name, b"\n".join(self._data)))
                    self._name = b""
                    self._data.clear()
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._name = value.removeprefix(b" ")
        return frames

    def rest(self) -> list[Frame]:
        """Nothing: what was not dispatched never happened."""
        return []


class LineSplitter:
    """One JSON document a line (NDJSON); the last line may lack its end."""

    __slots__ = ("_lines",)
    is_open = False

    def __init__(self) -> None:
        self._lines = _Lines(cr=False)

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next chunk; the lines that it completes, but for empty ones."""
        return [Frame(b"", line) for line in self._lines.feed(chunk) if not line.isspace() and line]

    def rest(self) -> list[Frame]:
        """The last line, if it lacks its end."""
        line = self._lines.rest()
        return [Frame(b"", line)] if line.strip() else []


_OUTSIDE = re.compile(rb'["\[\]{}]')
_INSIDE = re.compile(rb'["\\]')


class ArraySplitter:
    """The objects of one JSON array, which is open until its closing bracket has come."""

    __slots__ = ("_depth", "_element", "_escaped", "_in_string", "is_open")

    def __init__(self) -> None:
        self.is_open = True
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last byte was a backslash
        self._element: list[bytes] = []  # of the object that is not complete yet

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next chunk; the objects that it completes."""
        frames: list[Frame] = []
        start = at = 0  # of the piece of an object in this chunk; where to go on looking
        if self._escaped and chunk:
            self._escaped = False
            at = 1
        while self.is_open:
            found = (_INSIDE if self._in_string else _OUTSIDE).search(chunk, at)
            if found is None:
                break
            at = found.end()
            mark = found[0]
            if mark == b'"':
                self._in_string = not self._in_string
            elif mark == b"\\":
                if at == len(chunk):
                    self._escaped = True
                at += 1
            elif mark in (b"[", b"{"):
                if self._depth == 1:
                    start = at - 1
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 1:
                    frames.append(Frame(b"", b"".join((*self._element, chunk[start:at]))))
                    self._element.clear()
                elif self._depth <= 0:
                    self.is_open = self._depth < 0 or mark != b"]"
                    self._depth = max(self._depth, 0)
        if self._depth > 1:
            self._element.append(chunk[start:])
        return frames

    def rest(self) -> list[Frame]:
        """Nothing: an object that has not ended is none."""
        return []
