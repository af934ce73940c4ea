"""How chat models of LangChain are called, whatever the provider."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from tests.compat.answers import RESULT, SHAPED, TOOL
from tests.compat.contract import TextContract
from tests.compat.questions import FEATURES, FUNCTION_TOOL, Question


def messages(question: Question) -> list[BaseMessage]:
    """What was said so far."""
    said: list[BaseMessage] = [SystemMessage(question.system)] if question.system else []
    for asked, answered in question.turns:
        said += [HumanMessage(asked), AIMessage(answered)]
    content: list[Any] = [{"type": "text", "text": question.text}]
    if question.image:
        content.append({"type": "image", "base64": question.picture, "mime_type": "image/png"})
    said.append(HumanMessage(content if question.image else question.text))
    if question.called:
        call: Any = {"id": question.called, "name": TOOL, "args": json.loads(SHAPED)}
        said += [AIMessage("", tool_calls=[call]), ToolMessage(RESULT, tool_call_id=question.called)]
    return said


class ChatModelContract(TextContract):
    """All chat models are called alike; a model's name is part of it, and so is the temperature."""

    features = FEATURES

    def chat(self, client: Any, model: str, **settings: Any) -> Any:
        """The chat model of this name."""
        raise NotImplementedError

    def begin(self, client: Any, question: Question, model: str, *, stream: bool, blocking: bool) -> Any:
        settings = {} if question.temperature is None else {"temperature": question.temperature}
        chat = self.chat(client, model, **settings) if isinstance(client, dict) else client
        if question.tools:
            chat = chat.bind_tools([FUNCTION_TOOL])
        if question.shape is not None:
            chat = chat.with_structured_output(question.shape, method="json_schema")
        names = {(True, True): "stream", (True, False): "invoke", (False, True): "astream", (False, False): "ainvoke"}
        return getattr(chat, names[blocking, stream])(messages(question))

    def shown(self, part: Any) -> Any:
        """Without the id that LangChain gives each run."""
        return part.model_dump(mode="json", exclude={"id"}) if isinstance(part, BaseMessage) else part
