"""OpenAI's Agents SDK over chat completions and over the Responses API."""

from __future__ import annotations

from typing import Any

import agents
import pydantic
from openai import AsyncOpenAI

from tests.compat.answers import RESULT
from tests.compat.contract import ASYNC, Clients, SdkPage, TextContract
from tests.compat.questions import FEATURES, Question
from tests.models.wire import WIRES

agents.set_tracing_disabled(True)


class Place(pydantic.BaseModel):
    """An answer."""

    city: str


class Land(Place):
    """Another one."""

    country: str = "France"


def get_weather(city: str) -> str:
    """The weather of a city."""
    return RESULT


class AgentsContract(TextContract):
    """An agent without tools asks once."""

    features = FEATURES
    loops = True
    modes = (ASYNC,)

    def plug(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return AsyncOpenAI(api_key=key, base_url=f"{url}/v1", http_client=clients.make(ASYNC), max_retries=0)

    def wrapped(self, clients: Clients, url: str, mode: str, key: str) -> Any:
        return clients.wrap(AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0))

    def model(self, client: Any, name: str) -> Any:
        """The model of this name."""
        raise NotImplementedError

    async def ask(self, client: Any, question: Question, model: str, *, stream: bool) -> Any:
        instructions = question.system or "Be yourself."
        agent: Any = agents.Agent(name="assistant", instructions=instructions, model=self.model(client, model))
        if question.temperature is not None:
            agent.model_settings = agents.ModelSettings(temperature=question.temperature)
        if question.tools:
            agent.tools = [agents.function_tool(get_weather)]
        if question.shape is not None:
            agent.output_type = Land if "country" in question.shape["required"] else Place
        items: list[Any] = []
        for asked, answered in question.turns:
            items += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        content: list[Any] = [{"type": "input_text", "text": question.text}]
        if question.image:
            content.append({"type": "input_image", "detail": "auto", "image_url": question.picture_url})
        items.append({"role": "user", "content": content})
        if stream:
            run = agents.Runner.run_streamed(agent, items)
            kinds = [event.data.type async for event in run.stream_events() if event.type == "raw_response_event"]
            return [kinds, str(run.final_output)]
        return [str((await agents.Runner.run(agent, items)).final_output)]


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
