"""OpenAI's Agents SDK over chat completions and over the Responses API."""

from __future__ import annotations

from typing import Any

import agents
from openai import AsyncOpenAI

from tests.compat.contract import ASYNC, Clients, SdkContract, SdkPage
from tests.models.wire import WIRES

agents.set_tracing_disabled(True)


class AgentsContract(SdkContract):
    """An agent without tools asks once."""

    modes = (ASYNC,)

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return AsyncOpenAI(api_key=key, base_url=f"{url}/v1", http_client=clients.make(ASYNC), max_retries=0)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return clients.wrap(AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0))

    def model(self, client: Any, name: str) -> Any:
        """The model of this name."""
        raise NotImplementedError

    async def ask(self, client: Any, text: str, model: str, *, stream: bool) -> Any:
        agent = agents.Agent(name="assistant", instructions="Be brief.", model=self.model(client, model))
        if stream:
            run = agents.Runner.run_streamed(agent, text)
            kinds = [event.data.type async for event in run.stream_events() if event.type == "raw_response_event"]
            return [kinds, run.final_output]
        return [(await agents.Runner.run(agent, text)).final_output]


class TestChatCompletions(AgentsContract):
    wire = WIRES["OPENAI_CHAT"]

    def model(self, client: Any, name: str) -> Any:
        return agents.OpenAIChatCompletionsModel(name, client)


class TestResponses(AgentsContract):
    wire = WIRES["RESPONSES"]

    def model(self, client: Any, name: str) -> Any:
        return agents.OpenAIResponsesModel(name, client)


class TestPage(SdkPage):
    sdk = "openai-agents"
