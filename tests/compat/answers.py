"""A provider that calls a tool where there is one, answers once it has the result, and otherwise gives JSON."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.client.model_server import Model
from tests.client.upstream import Asked, Reply, json_reply
from tests.models.examples import DONE, completion, event, piece
from tests.models.wire import COHERE, GEMINI, MISTRAL, OLLAMA_CHAT, RESPONSES, Wire, line, named

Doc = dict[str, Any]  # Any: JSON
Said = tuple[Doc, tuple[bytes, ...]]
"""A whole answer, and the same as a stream."""

TOOL: Final = "get_weather"
RESULT: Final = "sunny-17"
"""What the tool gives."""
FINAL: Final = "It is sunny."
SHAPED: Final = '{"city":"Paris"}'
"""An answer of the shape that is asked for."""


@dataclass(frozen=True)
class Script:
    """How one protocol says a text, and how it calls the tool under an id."""

    text: Callable[[str], Said]
    tool: Callable[[str], Said]


@dataclass
class Actor:
    """To be an upstream's `answer`. The ids of its calls differ with each."""

    wire: Wire
    calls: int = field(default=0)

    def __call__(self, asked: Asked) -> Reply:
        self.calls += 1
        script = MISTRAL_SCRIPT if self.wire is MISTRAL else SCRIPTS[self.wire.name]
        if RESULT.encode() in asked.body:
            whole, chunks = script.text(FINAL)
        elif TOOL.encode() in asked.body:
            whole, chunks = script.tool(f"call_{self.calls}")
        else:
            whole, chunks = script.text(SHAPED)
        if Model(self.wire).is_stream(asked):
            return Reply(200, [("content-type", self.wire.content_type)], chunks)
        return json_reply(whole)


def _chat(message: Doc, deltas: list[Doc], reason: str) -> Said:
    whole = completion(choices=[{"index": 0, "message": message, "finish_reason": reason}])
    pieces = [{**piece(), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return whole, (*map(event, pieces), event(piece(None, reason)), DONE)


def _chat_text(text: str) -> Said:
    deltas: list[Doc] = [{"role": "assistant", "content": text[:4]}, {"content": text[4:]}]
    return _chat({"role": "assistant", "content": text}, deltas, "stop")


def _chat_tool(name: str) -> Said:
    call = {"id": name, "type": "function", "function": {"name": TOOL, "arguments": SHAPED}}
    begun = {"index": 0, **call, "function": {"name": TOOL, "arguments": ""}}
    rest = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in (SHAPED[:5], SHAPED[5:])]
    deltas: list[Doc] = [{"role": "assistant", "content": None, "tool_calls": [begun]}, *rest]
    return _chat({"role": "assistant", "content": None, "tool_calls": [call]}, deltas, "tool_calls")


def _mistral_tool(name: str) -> Said:
    """Its calls come whole."""
    call = {"id": name, "type": "function", "function": {"name": TOOL, "arguments": SHAPED}}
    message: Doc = {"role": "assistant", "content": "", "tool_calls": [call]}
    return _chat(message, [{**message, "tool_calls": [{**call, "index": 0}]}], "tool_calls")


def _events(*documents: Doc) -> tuple[bytes, ...]:
    numbered = ({"sequence_number": number, **document} for number, document in enumerate(documents))
    return tuple(named(document["type"], document) for document in numbered)


def _response(item: Doc, begun: Doc, *events: Doc) -> Said:
    whole = {**RESPONSES.whole, "output": [item]}
    created = {**RESPONSES.whole, "output": [], "status": "in_progress", "usage": None}
    common = {"output_index": 0, "item_id": item["id"]}
    return whole, _events(
        {"type": "response.created", "response": created},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        *({**common, **one} for one in events),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    )


def _response_text(text: str) -> Said:
    part: Doc = {"type": "output_text", "text": text, "annotations": []}
    item: Doc = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
    return _response(
        item,
        {**item, "content": [], "status": "in_progress"},
        {"type": "response.content_part.added", "content_index": 0, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", "content_index": 0, "delta": text[:4], "logprobs": []},
        {"type": "response.output_text.delta", "content_index": 0, "delta": text[4:], "logprobs": []},
        {"type": "response.output_text.done", "content_index": 0, "text": text, "logprobs": []},
        {"type": "response.content_part.done", "content_index": 0, "part": part},
    )


def _response_tool(name: str) -> Said:
    item: Doc = {"type": "function_call", "id": "fc_1", "call_id": name, "name": TOOL, "arguments": SHAPED}
    return _response(
        {**item, "status": "completed"},
        {**item, "arguments": "", "status": "in_progress"},
        {"type": "response.function_call_arguments.delta", "delta": SHAPED},
        {"type": "response.function_call_arguments.done", "arguments": SHAPED, "name": TOOL},
    )


def _message(block: Doc, begun: Doc, deltas: list[Doc], reason: str) -> Said:
    usage = {"input_tokens": 11, "output_tokens": 7}
    whole: Doc = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "content": [block]}
    whole |= {"stop_reason": reason, "stop_sequence": None, "usage": usage}
    start = {**whole, "content": [], "stop_reason": None}
    last = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
    documents: list[Doc] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        last,
        {"type": "message_stop"},
    ]
    return whole, tuple(named(document["type"], document) for document in documents)


def _message_text(text: str) -> Said:
    deltas = [{"type": "text_delta", "text": part} for part in (text[:4], text[4:])]
    return _message({"type": "text", "text": text}, {"type": "text", "text": ""}, deltas, "end_turn")


def _message_tool(name: str) -> Said:
    block: Doc = {"type": "tool_use", "id": name, "name": TOOL, "input": json.loads(SHAPED)}
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in (SHAPED[:5], SHAPED[5:])]
    return _message(block, {**block, "input": {}}, deltas, "tool_use")


def _gemini(*parts: Doc) -> Said:
    def document(part: Doc, reason: str | None) -> Doc:
        candidate: Doc = {"content": {"role": "model", "parts": [part]}, "index": 0}
        return {**GEMINI.whole, "candidates": [candidate | ({"finishReason": reason} if reason else {})]}

    whole = {**GEMINI.whole, "candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0}]}
    whole["candidates"][0]["finishReason"] = "STOP"
    last = len(parts) - 1
    return whole, tuple(event(document(part, "STOP" if at == last else None)) for at, part in enumerate(parts))


def _gemini_tool(name: str) -> Said:
    return _gemini({"functionCall": {"id": name, "name": TOOL, "args": json.loads(SHAPED)}})


def _cohere(message: Doc, events: list[Doc], reason: str) -> Said:
    whole = {**COHERE.whole, "message": {"role": "assistant", **message}, "finish_reason": reason}
    documents: list[Doc] = [
        {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}},
        *events,
        {"type": "message-end", "delta": {"finish_reason": reason, "usage": COHERE.whole["usage"]}},
    ]
    return whole, tuple(named(document["type"], document) for document in documents)


def _cohere_text(text: str) -> Said:
    deltas: list[Doc] = [
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": part}}}}
        for part in (text[:4], text[4:])
    ]
    return _cohere({"content": [{"type": "text", "text": text}]}, deltas, "COMPLETE")


def _cohere_tool(name: str) -> Said:
    call = {"id": name, "type": "function", "function": {"name": TOOL, "arguments": SHAPED}}
    begun = {**call, "function": {"name": TOOL, "arguments": ""}}
    events: list[Doc] = [
        {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": begun}}},
        {
            "type": "tool-call-delta",
            "index": 0,
            "delta": {"message": {"tool_calls": {"function": {"arguments": SHAPED}}}},
        },
        {"type": "tool-call-end", "index": 0},
    ]
    return _cohere({"tool_calls": [call]}, events, "TOOL_CALL")


def _ollama(member: str, *values: object) -> Said:
    common = {name: OLLAMA_CHAT.whole[name] for name in ("model", "created_at")}
    end = {name: OLLAMA_CHAT.whole[name] for name in ("done_reason", "prompt_eval_count", "eval_count")}
    last = len(values) - 1
    documents = [
        {**common, member: value, "done": at == last, **(end if at == last else {})} for at, value in enumerate(values)
    ]
    whole = {**common, member: values[0], "done": True, **end}
    return whole, tuple(map(line, documents))


def _ollama_text(text: str) -> Said:
    parts = (text[:4], text[4:])
    whole = _ollama("message", {"role": "assistant", "content": text})[0]
    return whole, _ollama("message", *({"role": "assistant", "content": part} for part in parts))[1]


def _ollama_tool(name: str) -> Said:
    """Its calls have no ids: an argument says which it is."""
    call = {"function": {"name": TOOL, "arguments": {"city": name}}}
    return _ollama("message", {"role": "assistant", "content": "", "tool_calls": [call]})


def _generated(text: str) -> Said:
    return _ollama("response", text)[0], _ollama("response", text[:4], text[4:])[1]


SCRIPTS: Final = {
    "openai/chat": Script(_chat_text, _chat_tool),
    "openai/responses": Script(_response_text, _response_tool),
    "anthropic/messages": Script(_message_text, _message_tool),
    "gemini/generateContent": Script(lambda text: _gemini({"text": text[:4]}, {"text": text[4:]}), _gemini_tool),
    "cohere/chat": Script(_cohere_text, _cohere_tool),
    "ollama/chat": Script(_ollama_text, _ollama_tool),
    "ollama/generate": Script(_generated, _generated),
}
"""By the names that the wires have."""
MISTRAL_SCRIPT: Final = Script(_chat_text, _mistral_tool)
