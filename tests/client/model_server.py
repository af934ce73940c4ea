"""A model provider behind the test server: it speaks every protocol, and does wrong what a test wants."""

import gzip
import json
from dataclasses import dataclass, field

from tests.client.upstream import BREAK, Asked, Gate, Reply
from tests.models.examples import dump
from tests.models.wire import Wire


@dataclass
class Model:
    """Answers calls of one protocol; to be an upstream's `answer`.

    Attributes:
        faults: what goes wrong: `drop` mid-stream, `error` within the answer, `unterminated`, `length`, `filtered`,
            `busy` (429, the first time), `gzip`, `bytes` (one byte a chunk), `clumps` (chunks of odd sizes), `large`.
        gate: waited for before the last parts of an answer come.
        held: how many of them, where it is streamed.
    """

    wire: Wire
    faults: frozenset[str] = frozenset()
    gate: Gate | None = None
    held: int = 1
    calls: int = field(default=0)

    def __call__(self, asked: Asked) -> Reply:
        self.calls += 1
        if "busy" in self.faults and self.calls == 1:
            return Reply(429, [("content-type", "application/json"), ("retry-after-ms", "1")], [b'{"error":{}}'])
        streams = self.is_stream(asked)
        chunks = self._stream() if streams else [dump(self._whole())]
        content_type = self.wire.content_type if streams else "application/json"
        headers = [("content-type", content_type), ("x-request-id", f"req_{self.calls}"), ("set-cookie", "a=b")]
        headers += [("x-ratelimit-remaining-requests", "9"), ("anthropic-ratelimit-requests-remaining", "9")]
        if "gzip" in self.faults:
            chunks = [gzip.compress(b"".join(chunks))]
            headers.append(("content-encoding", "gzip"))
        if "bytes" in self.faults:
            body = b"".join(chunks)
            chunks = [body[at : at + 1] for at in range(len(body))]
        if "clumps" in self.faults:
            body = b"".join(chunks)
            chunks = [body[at : at + 37] for at in range(0, len(body), 37)]
        parts: list[object] = list(chunks)
        if "drop" in self.faults:
            parts = [*parts[:-1], parts[-1:][0], BREAK] if not streams else [*parts[:1], BREAK]
        if self.gate is not None:
            parts.insert(len(parts) - (self.held if streams else 1), self.gate)
        return Reply(200, headers, parts)

    def is_stream(self, asked: Asked) -> bool:
        """Whether a call asks for a stream."""
        if self.wire.stream_path:
            return asked.path.endswith(self.wire.stream_path.partition("?")[0].rpartition(":")[2])
        body = json.loads(asked.body)
        return bool(body.get("stream", self.wire.content_type == "application/x-ndjson" and bool(self.wire.chunks)))

    def _whole(self) -> object:
        if "error" in self.faults:
            return {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}
        for kind in ("length", "filtered"):
            if kind in self.faults and self.wire.cut is not None:
                return self.wire.cut(getattr(self.wire, kind))
        return {**self.wire.whole, "padding": "x" * 100_000} if "large" in self.faults else self.wire.whole

    def _stream(self) -> list[bytes]:
        chunks = list(self.wire.chunks)
        assert self.wire.end is not None
        for kind in ("length", "filtered"):
            if kind in self.faults:
                end = self.wire.end(getattr(self.wire, kind))
                chunks = [*chunks[: -len(end)], *end]
        if "error" in self.faults:
            chunks = [*chunks[:-1], self.wire.error]
        if "unterminated" in self.faults:
            chunks.pop()
        if "large" in self.faults:
            first = [chunks[0]] if self.wire.name.startswith(("anthropic", "cohere")) else []
            chunks = [*first, *[chunks[1]] * 2000, *chunks[1:]] if "json" not in self.wire.content_type else chunks * 1
        return chunks
