"""Server-sent events of a streamed chat completion: where they end and what they say.

The stream's own end is the event `data: [DONE]`. It decides, not the end of the body: clients close the
connection when they have read it, and a connection that is cut cleanly before looks like a success to them.

Events are read as the WHATWG HTML standard (§9.2.6) has it: lines end in CR LF, LF or CR, an empty line
dispatches the event, an event without its empty line never happened.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._answer import AnswerReader, AnswerSummary

_BOM = b"\xef\xbb\xbf"
_LF = 0x0A
_CR = 0x0D
_DONE = b"[DONE]"
_DONE_LINES = (b"data: [DONE]", b"data:[DONE]")
_DECISIVE = len(_BOM) + len(_DONE_LINES[0]) + 1
"""So many first bytes of a line tell whether it is one of `_DONE_LINES`, and whether it is a data line."""


class ChatStreamTerminator:
    """Watches for the event `data: [DONE]`, whatever the chunks. Holds a few bytes at most."""

    __slots__ = ("_after_cr", "_at_start", "_data_lines", "_done_line", "_ended", "_partial")

    def __init__(self) -> None:
        self._ended = False
        self._at_start = True  # no line has ended yet
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._partial = b""  # beginning of the line that has not ended yet
        self._data_lines = 0  # of the event that has not been dispatched yet
        self._done_line = False  # one of them reads [DONE]

    def feed(self, chunk: bytes) -> bool:
        """Take the next chunk; true from the moment at which the terminating event is dispatched."""
        if self._ended or not chunk:
            return self._ended
        if self._after_cr:
            self._after_cr = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
                if not chunk:
                    return False
        lines = chunk.splitlines()  # of bytes: splits at CR LF, LF and CR only
        lines[0] = self._partial + lines[0]
        last = chunk[-1]
        if last == _LF:
            self._partial = b""
        elif last == _CR:
            self._partial = b""
            self._after_cr = True
        else:
            self._partial = lines.pop()[:_DECISIVE]
        if self._at_start and lines:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if not line:
                if self._done_line and self._data_lines == 1:
                    self._ended = True
                    return True
                self._data_lines = 0
                self._done_line = False
            elif line.startswith(b"data:") or line == b"data":
                self._data_lines += 1
                if line in _DONE_LINES:
                    self._done_line = True
        return False


def read_chat_stream(chunks: Iterable[bytes]) -> AnswerSummary:
    """Summary of a streamed answer. Never raises.

    An error is an event of that name, or event data that is a JSON object with an `error`; the word may occur
    anywhere else. What follows the terminator counts too: a body with an error after it is not one to keep.
    """
    reader = AnswerReader()
    complete = False
    name = b""
    data: list[bytes] = []
    body = b"".join(chunks).removeprefix(_BOM)
    for line in body.splitlines():
        if not line:
            if name == b"error":
                reader.report_error()
            text = b"\n".join(data)
            if text == _DONE:
                complete = True
            elif text:
                reader.take(text)
            name = b""
            data.clear()
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return reader.summary(complete=complete)
