"""What a cache for model calls must do, as probes: each asks one thing, and says what was wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tests.client.upstream import Asked, Gate, Reply, json_reply
from tests.compare.bench import LASTING, SETTLING, Bench, Probe, require
from tests.models.examples import DONE, completion, event, piece
from tests.models.wire import WIRES, Wire

if TYPE_CHECKING:
    from tests.compare.subjects import Piece

AT_ONCE: Final = 12

PROBES: list[Probe] = []
HITS, MISSES, REPLAYS, NEVER = "Must hit", "Must miss", "Must replay as it came", "Must never be stored"
WHOLE, STREAM, RESPONSE = "a second identical call", "a second identical stream", "a second call of the Responses API"
EMBEDDINGS = "a second call for embeddings"


def probe(group: str, name: str, needs: str = "") -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    """Adds a probe."""

    def add(run: Callable[[Bench], Awaitable[None]]) -> None:
        PROBES.append(Probe(group, name, run, needs))

    return add


# --- hits


@probe(HITS, WHOLE)
async def _second_call(bench: Bench) -> None:
    first, second = await bench.chat(), await bench.chat()
    require(bench.upstream.calls == 1, "the provider was asked again")
    require(first == second, "another answer")


@probe(HITS, STREAM)
async def _second_stream(bench: Bench) -> None:
    first, second = await bench.chat(stream=True), await bench.chat(stream=True)
    require(bench.upstream.calls == 1, "the provider was asked again")
    require(_text(first) == _text(second), "another text")


@probe(HITS, RESPONSE)
async def _second_response(bench: Bench) -> None:
    bench.speak(bench.upstream, WIRES["RESPONSES"])
    first = await bench.subject.respond(bench.upstream.url)
    await bench.settle()
    require(first == await bench.subject.respond(bench.upstream.url), "another answer")
    require(bench.upstream.calls == 1, "the provider was asked again")


@probe(HITS, EMBEDDINGS)
async def _second_embeddings(bench: Bench) -> None:
    bench.speak(bench.upstream, WIRES["EMBEDDINGS"])
    first = await bench.subject.embed(bench.upstream.url, "Hello", "another")
    await bench.settle()
    require(first == await bench.subject.embed(bench.upstream.url, "Hello", "another"), "other numbers")
    require(bench.upstream.calls == 1, "the provider was asked again")


@probe(HITS, "one new text among embeddings: it alone reaches the provider", EMBEDDINGS)
async def _new_text(bench: Bench) -> None:
    def answer(asked: Asked) -> Reply:
        texts = json.loads(asked.body)["input"]
        data = [{"object": "embedding", "index": at, "embedding": [len(text)]} for at, text in enumerate(texts)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        document = {"object": "list", "model": "text-embedding-3-small", "data": data, "usage": usage}
        return json_reply(document, headers=LASTING)

    bench.upstream.answer = answer
    await bench.subject.embed(bench.upstream.url, "Hello", "another")
    await bench.settle()
    found = await bench.subject.embed(bench.upstream.url, "the third", "Hello")
    require(found == [[9], [5]], "other numbers")
    asked = json.loads(bench.upstream.asked[-1].body)["input"]
    require(asked == ["the third"], f"{len(asked)} texts reached the provider")


@probe(HITS, "the same call with its JSON keys in another order", WHOLE)
async def _key_order(bench: Bench) -> None:
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    await bench.stored(tools=[{"type": "function", "function": tool}])
    turned = dict(reversed(tool.items()))
    await bench.chat(tools=[{"function": turned, "type": "function"}])
    require(bench.upstream.calls == 1, "the provider was asked again")


async def _at_once(bench: Bench, *, stream: bool) -> None:
    gate = Gate()
    bench.speak(bench.upstream, WIRES["OPENAI_CHAT"], gate=gate)
    calls = [asyncio.create_task(bench.chat(stream=stream)) for _ in range(AT_ONCE)]
    await bench.upstream.arrived.happened()
    await asyncio.sleep(5 * SETTLING)  # all that will come have come
    gate.open()
    answers = await asyncio.gather(*calls)
    require(bench.upstream.calls == 1, f"{bench.upstream.calls} calls reached the provider")
    require(all(answer == answers[0] for answer in answers), "different answers")


@probe(HITS, f"{AT_ONCE} identical calls at once: one reaches the provider", WHOLE)
async def _calls_at_once(bench: Bench) -> None:
    await _at_once(bench, stream=False)


@probe(HITS, f"{AT_ONCE} identical streams at once: one reaches the provider", STREAM)
async def _streams_at_once(bench: Bench) -> None:
    await _at_once(bench, stream=True)


# --- misses


def _differs(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    async def run(bench: Bench) -> None:
        await bench.stored(**one)
        await bench.chat(**other)
        require(bench.upstream.calls == 2, "answered by the other call's answer")

    PROBES.append(Probe(MISSES, name, run, WHOLE))


def _image(url: str) -> dict[str, Any]:
    content = [{"type": "text", "text": "Describe"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": content}]}


TOOLS: Final = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
_differs("another text", {}, {"messages": [{"role": "user", "content": "Goodbye"}]})
_differs("another model", {}, {"model": "gpt-4o"})
_differs("another API key", {"key": "sk-one"}, {"key": "sk-two"})
_differs("another field that is not known", {"extra_body": {"num_ctx": 1}}, {"extra_body": {"num_ctx": 2}})
_differs("another `OpenAI-Beta`", {"headers": {"OpenAI-Beta": "a"}}, {"headers": {"OpenAI-Beta": "b"}})
_differs(
    "another `OpenAI-Organization`",
    {"headers": {"OpenAI-Organization": "a"}},
    {"headers": {"OpenAI-Organization": "b"}},
)
_differs("another temperature", {"temperature": 0}, {"temperature": 0.5})
_differs("another seed", {"seed": 1}, {"seed": 2})
_differs("another number of tokens", {"max_tokens": 10}, {"max_tokens": 20})
_differs("another `tool_choice`", {"tools": TOOLS, "tool_choice": "auto"}, {"tools": TOOLS, "tool_choice": "required"})
_differs("tools, and none", {}, {"tools": TOOLS})
_differs("another form of the answer", {}, {"response_format": {"type": "json_object"}})
_differs("another image", _image("https://example.com/a.png"), _image("https://example.com/b.png"))


@probe(MISSES, "another base URL", WHOLE)
async def _another_base_url(bench: Bench) -> None:
    await bench.stored()
    other = bench.another()
    await bench.chat(other)
    require(other.calls == 1, "answered by the other server's answer")


@probe(MISSES, "a stream, and a whole answer", WHOLE)
async def _stream_and_whole(bench: Bench) -> None:
    whole = await bench.stored()
    pieces = await bench.chat(stream=True)
    require(len(pieces) > 1, "no stream")
    require(_text(whole) == _text(pieces), "another text")


# --- replays


def _replayed(name: str, wire: Wire, **call: Any) -> None:
    async def run(bench: Bench) -> None:
        bench.speak(bench.upstream, wire)
        first, second = [await bench.chat(stream=True, **call) for _ in range(2)]
        require(bench.upstream.calls == 1, "it was not stored")
        require(first == second, f"{len(first)} chunks came, and {len(second)} others were replayed")

    PROBES.append(Probe(REPLAYS, name, run, STREAM))


def _tool_chunk(arguments: str, **first: str) -> bytes:
    function = {"arguments": arguments, **({"name": first["name"]} if first else {})}
    tool = {"index": 0, "function": function, **({"id": first["id"], "type": "function"} if first else {})}
    chunk = piece()
    chunk["choices"] = [{"index": 0, "delta": {"tool_calls": [tool]}, "finish_reason": None}]
    return event(chunk)


TOOL_STREAM: Final = replace(
    WIRES["OPENAI_CHAT"],
    chunks=(
        _tool_chunk("", id="call_1", name="weather"),
        _tool_chunk('{"city": '),
        _tool_chunk('"Paris"}'),
        event(piece(None, "tool_calls")),
        DONE,
    ),
)
_replayed("the chunks of a text", WIRES["OPENAI_CHAT"])
_replayed("the chunks of calls of tools", TOOL_STREAM, tools=TOOLS)
_replayed("the usage at the end", WIRES["OPENAI_CHAT"], stream_options={"include_usage": True})


# --- never


def _never(name: str, fault: str, *, stream: bool) -> None:
    async def run(bench: Bench) -> None:
        bench.speak(bench.upstream, WIRES["OPENAI_CHAT"], fault)
        await bench.in_spite(lambda: bench.chat(stream=stream))
        bench.speak(bench.upstream, WIRES["OPENAI_CHAT"])
        before = bench.upstream.calls
        answer = await bench.chat(stream=stream)
        require(bench.upstream.calls == before + 1, "it was served to the next caller")
        require(_text(answer) == "Hello", "another text")

    PROBES.append(Probe(NEVER, name, run, STREAM if stream else WHOLE))


_never("the answer 429", "busy", stream=False)
_never("an answer that a limit has cut short", "length", stream=False)
_never("an answer that a filter has ended", "filtered", stream=False)
_never("a stream that a limit has cut short", "length", stream=True)
_never("a stream that breaks off", "drop", stream=True)
_never("a stream with an error in it", "error", stream=True)
_never("a stream without its end", "unterminated", stream=True)


@probe(NEVER, "a stream that its reader has left", STREAM)
async def _left(bench: Bench) -> None:
    gate = Gate()
    wire = WIRES["OPENAI_CHAT"]
    bench.speak(bench.upstream, wire, gate=gate, held=len(wire.chunks) - 1)
    await bench.in_spite(lambda: bench.subject.begin(bench.upstream.url))
    gate.open()
    bench.speak(bench.upstream, WIRES["OPENAI_CHAT"])
    answer = await bench.chat(stream=True)
    require(bench.upstream.calls == 2, "it was served to the next caller")
    require(_text(answer) == "Hello", "another text")


@probe(NEVER, "an error of the server, with the status 200", WHOLE)
async def _error_as_answer(bench: Bench) -> None:
    body = {"error": {"message": "overloaded", "type": "server_error"}}
    bench.upstream.replies(json_reply(body, headers=LASTING))
    await bench.in_spite(bench.chat)
    bench.speak(bench.upstream, WIRES["OPENAI_CHAT"])
    await bench.chat()
    require(bench.upstream.calls == 2, "it was served to the next caller")


@probe(NEVER, "an answer without a choice", WHOLE)
async def _without_choice(bench: Bench) -> None:
    bench.upstream.replies(json_reply(completion(choices=[]), headers=LASTING))
    await bench.in_spite(bench.chat)
    bench.speak(bench.upstream, WIRES["OPENAI_CHAT"])
    await bench.chat()
    require(bench.upstream.calls == 2, "it was served to the next caller")


def _continued(name: str, **body: Any) -> None:
    async def run(bench: Bench) -> None:
        bench.speak(bench.upstream, WIRES["RESPONSES"])
        for _ in range(2):
            await bench.subject.respond(bench.upstream.url, **body)
            await bench.settle()
        require(bench.upstream.calls == 2, "the second call got the first one's answer")

    PROBES.append(Probe(NEVER, name, run, RESPONSE))


_continued("an answer to `previous_response_id`", previous_response_id="resp_1")
_continued("an answer with a web search", tools=[{"type": "web_search"}])


def _text(pieces: list[Piece]) -> str:
    """All text of an answer or a stream."""
    return "".join(text for choices, _ in pieces for text, _, _ in choices)
