"""Pydantic AI's agents, with models of OpenAI and Anthropic, which have no mode without an event loop."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.client.upstream import Asked, Reply, Upstream, json_reply
from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage
from tests.models.examples import completion
from tests.models.wire import WIRES


class AgentContract(SdkContract):
    """An agent without tools asks once."""

    modes = (ASYNC,)

    def agent(self, client: Any, model: str) -> Agent[None, str]:
        """An agent for the model of this name."""
        raise NotImplementedError

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        agent = self.agent(client, model)
        if stream:
            async with agent.run_stream(text) as run:
                return [
                    [piece async for piece in run.stream_text(delta=True, debounce_by=None)],
                    run.usage.input_tokens,
                ]
        result = await agent.run(text)
        parts = [message.parts for message in result.all_messages() if isinstance(message, ModelResponse)]
        return [result.output, result.usage.input_tokens, str(parts)]


class TestOpenAI(AgentContract):
    wire = WIRES["OPENAI_CHAT"]

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return OpenAIProvider(base_url=f"{url}/v1", api_key=key, http_client=clients.make(ASYNC))

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        client = AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
        return OpenAIProvider(openai_client=clients.wrap(client))

    def agent(self, client: Any, model: str) -> Agent[None, str]:
        return Agent(OpenAIChatModel(model, provider=client))

    async def test_a_loop_with_tools_replays_whole(self, clients: Clients, upstream: Upstream) -> None:
        """The ids of tool calls come from the cached turn, so the next turn is the same call again."""

        def answer(asked: Asked) -> Reply:
            if b'"role":"tool"' in asked.body.replace(b": ", b":"):
                return json_reply(completion())
            call = {"id": f"call_{upstream.calls}", "type": "function"}
            call["function"] = {"name": "weather", "arguments": '{"city": "Paris"}'}  # type: ignore[assignment]
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            return json_reply(completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}]))

        upstream.answer = answer
        agent = self.agent(self.plug(clients, upstream.url, ASYNC, "sk-one"), "gpt-4o-mini")
        asked: list[str] = []

        def weather(city: str) -> str:
            """The weather of a city."""
            asked.append(city)
            return "sunny"

        agent.tool_plain(weather)
        first = await agent.run("What is the weather in Paris?")
        assert upstream.calls == 2
        second = await agent.run("What is the weather in Paris?")
        assert upstream.calls == 2
        assert second.output == first.output
        assert asked == ["Paris", "Paris"]  # tools are the app's own, and run each time


class TestAnthropic(AgentContract):
    wire = WIRES["ANTHROPIC"]

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return AnthropicProvider(base_url=url, api_key=key, http_client=clients.make(ASYNC))

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        client = AsyncAnthropic(api_key=key, base_url=url, max_retries=0)
        return AnthropicProvider(anthropic_client=clients.wrap(client))

    def agent(self, client: Any, model: str) -> Agent[None, str]:
        return Agent(AnthropicModel(model, provider=client))


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
