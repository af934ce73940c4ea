"""Pydantic AI's agents, with models of OpenAI and Anthropic, which have no mode without an event loop."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pydantic
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent, BinaryContent, NativeOutput, PromptedOutput
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.compat.answers import RESULT
from tests.compat.contract import ASYNC, Clients, SdkPage, TextContract
from tests.compat.questions import FEATURES, Question
from tests.models.wire import WIRES


class Place(pydantic.BaseModel):
    """An answer."""

    city: str


class Land(Place):
    """Another one."""

    country: str = "France"


def get_weather(city: str) -> str:
    """The weather of a city."""
    return RESULT


def said(asked: str, answered: str) -> tuple[ModelRequest, ModelResponse]:
    """A turn."""
    return ModelRequest(parts=[UserPromptPart(asked)]), ModelResponse(parts=[TextPart(answered)])


class AgentContract(TextContract):
    """An agent without tools asks once."""

    features = FEATURES
    shaped: ClassVar[Any] = NativeOutput
    loops = True
    modes = (ASYNC,)

    def model(self, client: Any, name: str) -> Any:
        """The model of this name."""
        raise NotImplementedError

    async def ask(self, client: Any, question: Question, model: str, *, stream: bool) -> Any:
        output: Any = str
        if question.shape is not None:
            output = self.shaped(Land if "country" in question.shape["required"] else Place)
        agent: Any = Agent(self.model(client, model), instructions=question.system or None, output_type=output)
        if question.tools:
            agent.tool_plain(get_weather)
        prompt: list[Any] = [question.text]
        if question.image:
            prompt.append(BinaryContent(question.image, media_type="image/png"))
        options: dict[str, Any] = {"message_history": [message for turn in question.turns for message in said(*turn)]}
        if question.temperature is not None:
            options["model_settings"] = {"temperature": question.temperature}
        if stream:
            async with agent.run_stream(prompt, **options) as run:
                pieces = [str(piece) async for piece in run.stream_output(debounce_by=None)]
                return [pieces, run.usage.input_tokens]
        result = await agent.run(prompt, **options)
        parts = [message.parts for message in result.new_messages() if isinstance(message, ModelResponse)]
        return [str(result.output), result.usage.input_tokens, re.sub(r"datetime\(.*?\)", "", str(parts))]


class TestOpenAI(AgentContract):
    wire = WIRES["OPENAI_CHAT"]

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return OpenAIProvider(base_url=f"{url}/v1", api_key=key, http_client=clients.make(ASYNC))

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        client = AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
        return OpenAIProvider(openai_client=clients.wrap(client))

    def model(self, client: Any, name: str) -> Any:
        return OpenAIChatModel(name, provider=client)


class TestAnthropic(AgentContract):
    wire = WIRES["ANTHROPIC"]
    shaped = PromptedOutput  # what it knows of the model says that it has no other way

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return AnthropicProvider(base_url=url, api_key=key, http_client=clients.make(ASYNC))

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        client = AsyncAnthropic(api_key=key, base_url=url, max_retries=0)
        return AnthropicProvider(anthropic_client=clients.wrap(client))

    def model(self, client: Any, name: str) -> Any:
        return AnthropicModel(name, provider=client)


async def test_a_model_is_not_wrapped(clients: Clients) -> None:
    """Its provider makes new clients by itself, which would have no cache."""
    for model in (
        OpenAIChatModel("m", provider=OpenAIProvider(api_key="sk-one")),
        AnthropicModel("m", provider=AnthropicProvider(api_key="sk-one")),
    ):
        with pytest.raises(TypeError, match="found no client"):
            clients.wrap(model)


class TestPage(SdkPage):
    sdk = "pydantic-ai"
