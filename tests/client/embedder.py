"""A provider of embeddings behind the test server, which speaks each protocol that takes several items at once."""

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.client.upstream import Asked, Gate, Reply, json_reply
from tests.models.examples import dump

Doc = dict[str, Any]  # Any: JSON


def vector(item: object, dimensions: int = 2) -> list[float]:
    """The embedding of an item: like no other one's, and exact in 32 bits."""
    number = sum((place + 1) * byte for place, byte in enumerate(dump(item))) % 4096
    return [number / 4096, *[0.5] * (dimensions - 1)]


@dataclass
class Embedder:
    """Answers calls of any of the protocols; to be an upstream's `answer`.

    Attributes:
        asked: the items of each request, in order.
        model: what it calls itself.
        gate: waited for before an answer comes.
        fail: makes of the items of a request the reply that says what is wrong; `None`: nothing is.
        change: changes an answer before it is sent.
    """

    asked: list[list[Any]] = field(default_factory=list)
    model: str = "text-embedding-3-small"
    gate: Gate | None = None
    fail: Callable[[list[Any]], Reply | None] = lambda items: None
    change: Callable[[Doc], Doc] = lambda answer: answer

    def __call__(self, asked: Asked) -> Reply:
        body = json.loads(asked.body)
        items, answer = self._answer(asked.path, body)
        self.asked.append(items)
        reply = self.fail(items) or json_reply(
            self.change(answer), headers=[("x-request-id", f"req_{len(self.asked)}"), ("x-ratelimit-remaining", "7")]
        )
        return reply if self.gate is None else Reply(reply.status, reply.headers, [self.gate, *reply.chunks])

    def _answer(self, path: str, body: Doc) -> tuple[list[Any], Doc]:
        if path.endswith("/embeddings"):
            items = _inputs(body["input"])
            data = [
                {"object": "embedding", "index": index, "embedding": _encoded(item, body)}
                for index, item in enumerate(items)
            ]
            usage = {"prompt_tokens": 3 * len(items), "total_tokens": 3 * len(items)}
            return items, {"object": "list", "data": data, "model": self.model, "usage": usage}
        if path.endswith("v2/embed"):
            (kind,) = (name for name in ("texts", "images", "inputs") if name in body)
            items = body[kind]
            types = body.get("embedding_types", ["float"])
            vectors = {name: [vector([name, item]) for item in items] for name in types}
            meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3 * len(items)}}
            answer = {"id": f"e{len(self.asked)}", "embeddings": vectors, "texts": items, "meta": meta}
            return items, answer
        if path.endswith(":batchEmbedContents"):
            items = [request["content"] for request in body["requests"]]
            return items, {"embeddings": [{"values": vector(item)} for item in items]}
        if path.endswith(":embedContent"):
            return [body["content"]], {"embedding": {"values": vector(body["content"])}}
        items = _inputs(body["input"])
        counts = {"total_duration": 9, "load_duration": 1, "prompt_eval_count": 3 * len(items)}
        return items, {"model": self.model, "embeddings": [vector(item) for item in items], **counts}


def _inputs(value: Any) -> list[Any]:
    whole = isinstance(value, str) or isinstance(value[0], int)
    return [value] if whole else list(value)


def _encoded(item: object, body: Doc) -> object:
    values = vector(item, body.get("dimensions", 2))
    if body.get("encoding_format") != "base64":
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
