"""What is asked through each SDK, and how the two shapes of messages say it that most SDKs take."""

import base64
import json
import zlib
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.compat.answers import RESULT, SHAPED, TOOL

Doc = dict[str, Any]  # Any: JSON

FEATURES: Final = ("tools", "shape", "image", "turns", "system", "temperature")
"""What a call may have beside a text: functions that the model may call, the shape that its answer is to have, an
image, earlier turns, a system prompt, a temperature."""


def _png(shade: int) -> bytes:
    """An image of one pixel."""

    def part(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = (1).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    data = zlib.compress(bytes([0, shade]))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", data) + part(b"IEND", b"")


IMAGES: Final = (_png(0), _png(200))
PARAMETERS: Final[Doc] = {
    "type": "object",
    "title": "Place",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
OTHER_PARAMETERS: Final[Doc] = {
    **PARAMETERS,
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
    "required": ["city", "country"],
}


@dataclass(frozen=True)
class Question:
    """One call.

    Attributes:
        text: of the user.
        system: prompt; empty: none.
        temperature: `None`: none is said.
        image: PNG that goes with the text; empty: none.
        tools: the model may call a function.
        shape: JSON schema of the answer; `None`: it is a text.
        turns: that the conversation has had before, of the user and the model.
        called: id of the call of the function that the model has made, whose result goes with the question; empty: it
            has made none.
    """

    text: str = "Hello"
    system: str = ""
    temperature: float | None = None
    image: bytes = b""
    tools: bool = False
    shape: Doc | None = None
    turns: tuple[tuple[str, str], ...] = ()
    called: str = ""

    @property
    def picture(self) -> str:
        """The image as base64."""
        return base64.b64encode(self.image).decode()

    @property
    def picture_url(self) -> str:
        """The image as a URL."""
        return f"data:image/png;base64,{self.picture}"


WITH: Final = {
    "tools": Question(tools=True),
    "shape": Question(shape=PARAMETERS),
    "image": Question(image=IMAGES[0]),
    "turns": Question(turns=(("Hi", "Good morning"),)),
    "system": Question(system="Be brief."),
    "temperature": Question(temperature=0.25),
}
"""A question with each feature."""
UNLIKE: Final = {
    "tools": Question(),
    "shape": replace(WITH["shape"], shape=OTHER_PARAMETERS),
    "image": replace(WITH["image"], image=IMAGES[1]),
    "turns": replace(WITH["turns"], turns=(("Hi", "Good evening"),)),
    "system": replace(WITH["system"], system="Be verbose."),
    "temperature": replace(WITH["temperature"], temperature=0.75),
}
"""One that differs in nothing but that feature."""

FUNCTION: Final[Doc] = {"name": TOOL, "description": "The weather of a city.", "parameters": PARAMETERS}
FUNCTION_TOOL: Final[Doc] = {"type": "function", "function": FUNCTION}


def said_as_chat(question: Question) -> Doc:
    """The question in the words of chat completions."""
    messages: list[Doc] = [{"role": "system", "content": question.system}] if question.system else []
    for asked, answered in question.turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    content: Any = question.text
    if question.image:
        picture = {"type": "image_url", "image_url": {"url": question.picture_url}}
        content = [{"type": "text", "text": question.text}, picture]
    messages.append({"role": "user", "content": content})
    if question.called:
        call = {"id": question.called, "type": "function", "function": {"name": TOOL, "arguments": SHAPED}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": question.called, "content": RESULT})
    call_of: Doc = {"messages": messages}
    if question.temperature is not None:
        call_of["temperature"] = question.temperature
    if question.tools:
        call_of["tools"] = [FUNCTION_TOOL]
    if question.shape is not None:
        schema = {"name": "place", "schema": question.shape, "strict": True}
        call_of["response_format"] = {"type": "json_schema", "json_schema": schema}
    return call_of


def said_to_anthropic(question: Question) -> Doc:
    """The question in the words of Anthropic's messages."""
    messages: list[Doc] = []
    for asked, answered in question.turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    content: Any = question.text
    if question.image:
        source = {"type": "base64", "media_type": "image/png", "data": question.picture}
        content = [{"type": "image", "source": source}, {"type": "text", "text": question.text}]
    messages.append({"role": "user", "content": content})
    if question.called:
        call = {"type": "tool_use", "id": question.called, "name": TOOL, "input": json.loads(SHAPED)}
        result = {"type": "tool_result", "tool_use_id": question.called, "content": RESULT}
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    call_of: Doc = {"messages": messages, "max_tokens": 64}
    if question.system:
        call_of["system"] = question.system
    if question.temperature is not None:
        call_of["extra_body"] = {"temperature": question.temperature}  # it has no parameter of its own any more
    if question.tools:
        call_of["tools"] = [{"name": TOOL, "description": FUNCTION["description"], "input_schema": PARAMETERS}]
    if question.shape is not None:
        call_of["output_config"] = {"format": {"type": "json_schema", "schema": question.shape}}
    return call_of


def said_as_response(question: Question) -> Doc:
    """The question in the words of OpenAI's Responses API."""
    items: list[Doc] = []
    for asked, answered in question.turns:
        items += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    content: Any = question.text
    if question.image:
        picture = {"type": "input_image", "detail": "auto", "image_url": question.picture_url}
        content = [{"type": "input_text", "text": question.text}, picture]
    items.append({"role": "user", "content": content})
    if question.called:
        call = {"type": "function_call", "call_id": question.called, "name": TOOL, "arguments": SHAPED}
        items += [call, {"type": "function_call_output", "call_id": question.called, "output": RESULT}]
    call_of: Doc = {"input": items}
    if question.system:
        call_of["instructions"] = question.system
    if question.temperature is not None:
        call_of["temperature"] = question.temperature
    if question.tools:
        call_of["tools"] = [{"type": "function", "strict": True, **FUNCTION}]
    if question.shape is not None:
        call_of["text"] = {"format": {"type": "json_schema", "name": "place", "schema": question.shape}}
    return call_of
