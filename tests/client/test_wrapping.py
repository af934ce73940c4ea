"""A cache for an SDK's client that is there already, with all that its owner has set up."""

from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

import aurelis_httpx2
from aurelis.cache.exceptions import ConfigurationError
from tests.client.model_server import Model
from tests.client.stack import Stack, in_thread
from tests.client.upstream import Upstream
from tests.managers import requests
from tests.models.wire import WIRES


class Sdk:
    """One SDK over one library: how its clients are made and called."""

    def __init__(self, name: str, stack: Stack, upstream: Upstream) -> None:
        self.stack, self.name = stack, name
        package: Any = openai if name == "openai" else anthropic
        kind = ("" if stack.blocking else "Async") + ("OpenAI" if name == "openai" else "Anthropic")
        self._make = getattr(package, kind)
        self.base_url = f"{upstream.url}/gateway/v1" if name == "openai" else f"{upstream.url}/gateway"
        upstream.answer = Model(WIRES["OPENAI_CHAT" if name == "openai" else "ANTHROPIC"])

    def client(self, **options: Any) -> Any:
        """A client behind a gateway."""
        return self.stack.keep(
            _Closing(self._make(**{"api_key": "sk-one", "base_url": self.base_url, "max_retries": 0, **options}))
        ).client

    def wrap(self, client: Any, **options: Any) -> Any:
        """The client with a cache."""
        return self.stack.package.wrap(client, cache=self.stack.manager, **options)

    async def ask(self, client: Any, **changes: Any) -> Any:
        """One call, as the SDK gives its answer."""
        call: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **changes}
        create: Callable[..., Any]
        if self.name == "openai":
            create = client.chat.completions.create
        else:
            create, call["max_tokens"] = client.messages.create, 64
            if "temperature" in call:  # which the SDK does not name any more
                call["extra_body"] = {"temperature": call.pop("temperature")}
        if self.stack.blocking:
            return (await in_thread(lambda: create(**call))).model_dump()
        return (await create(**call)).model_dump()


class _Closing:
    """An SDK's client under the names by which the stack closes clients."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def close(self) -> None:
        self.client.close()

    async def aclose(self) -> None:
        await self.client.close()


@pytest.fixture(params=["openai", "anthropic"])
def sdk(request: pytest.FixtureRequest, stack: Stack, upstream: Upstream) -> Sdk:
    """Each SDK; Anthropic's stands on httpx2 alone."""
    if request.param == "anthropic" and stack.library_name == "httpx":
        return Sdk("openai", stack, upstream)
    return Sdk(request.param, stack, upstream)


async def test_a_client_with_a_base_url_of_its_own_is_wrapped(sdk: Sdk, upstream: Upstream) -> None:
    client = sdk.client(http_client=sdk.stack.maker(verify=False))
    assert sdk.wrap(client) is client
    first, again = [await sdk.ask(client) for _ in range(2)]
    assert first == again
    assert upstream.calls == 1
    assert upstream.asked[0].path.startswith("gateway/v1/")


async def test_copies_with_other_options_share_the_cache(sdk: Sdk, upstream: Upstream) -> None:
    client = sdk.wrap(sdk.client(http_client=sdk.stack.maker(verify=False)))
    await sdk.ask(client)
    for copy in (client.with_options(timeout=7, max_retries=5), client.copy(default_headers={"x-trace": "1"})):
        await sdk.ask(copy)
    assert upstream.calls == 1
    await sdk.ask(client.with_options(api_key="sk-two"))
    assert upstream.calls == 2
    with pytest.raises(ConfigurationError, match="has a cache already"):
        sdk.wrap(client.with_options(timeout=7))


async def test_a_wrapped_copy_gives_its_original_the_cache(sdk: Sdk, upstream: Upstream) -> None:
    client = sdk.client(http_client=sdk.stack.maker(verify=False))
    sdk.wrap(client.with_options(timeout=7))
    for _ in range(2):
        await sdk.ask(client)
    assert upstream.calls == 1
    with pytest.raises(ConfigurationError, match="has a cache already"):
        sdk.wrap(client)
    await sdk.ask(client)
    assert upstream.calls == 1
    assert requests(sdk.stack.manager) == {"miss": 1, "hit l1": 2, "loads": 1}


async def test_hooks_and_timeouts_of_the_client_stay(sdk: Sdk, upstream: Upstream) -> None:
    seen: list[str] = []
    timeouts: list[Any] = []

    def note(message: Any) -> None:
        seen.append(type(message).__name__)

    async def note_async(message: Any) -> None:
        note(message)

    hook = note if sdk.stack.blocking else note_async
    inner = sdk.stack.network()
    method = "handle_request" if sdk.stack.blocking else "handle_async_request"
    handle = getattr(inner, method)

    def spying(request: Any) -> Any:
        timeouts.append(request.extensions["timeout"])
        return handle(request)

    setattr(inner, method, spying)
    own = sdk.stack.maker(transport=inner, timeout=7, event_hooks={"request": [hook], "response": [hook]})
    client = sdk.wrap(sdk.client(http_client=own))
    for _ in range(3):
        await sdk.ask(client)
    assert upstream.calls == 1
    assert len(seen) == 6
    assert own.timeout == sdk.stack.library.Timeout(7)
    assert timeouts == [{"connect": 7, "read": 7, "write": 7, "pool": 7}]
    await sdk.ask(client.with_options(timeout=9), temperature=0.5)
    assert timeouts[-1]["read"] == 9


async def test_options_reach_a_wrapped_client(sdk: Sdk, upstream: Upstream) -> None:
    client = sdk.wrap(sdk.client(http_client=sdk.stack.maker(verify=False)), max_temperature=0.3)
    for temperature, calls in ((0.2, 1), (0.2, 1), (0.9, 2), (0.9, 3)):
        await sdk.ask(client, temperature=temperature)
        assert upstream.calls == calls


async def test_closing_closes_the_network_and_not_the_cache(sdk: Sdk) -> None:
    closed: list[str] = []
    inner = sdk.stack.network()
    method = "close" if sdk.stack.blocking else "aclose"
    close = getattr(inner, method)

    def noting() -> Any:
        closed.append(method)
        return close()

    setattr(inner, method, noting)
    client = sdk.wrap(sdk.client(http_client=sdk.stack.maker(transport=inner)))
    await sdk.ask(client)
    await in_thread(client.close) if sdk.stack.blocking else await client.close()
    assert closed == [method]
    assert client.is_closed()
    another = sdk.wrap(sdk.client(http_client=sdk.stack.maker(verify=False)))
    await sdk.ask(another)
    assert requests(sdk.stack.manager) == {"miss": 1, "hit l1": 1, "loads": 1}


def test_a_client_with_a_caching_transport_needs_no_other(stack: Stack) -> None:
    client = stack.client()
    with pytest.raises(ConfigurationError, match="has a cache already"):
        stack.package.wrap(client, cache=stack.manager)
    mounted = stack.client(stack.network(), {"mounts": {"http://proxied.example": stack.transport()}})
    with pytest.raises(ConfigurationError, match="has a cache already"):
        stack.package.wrap(mounted, cache=stack.manager)


def test_the_default_client_of_an_sdk_is_wrapped(stack: Stack) -> None:
    """What it was given to know about itself stays: its timeout and its base URL."""
    client = anthropic.Anthropic(api_key="sk-one", base_url="http://gateway.example", timeout=11)
    with client:
        aurelis_httpx2.wrap(client, cache=stack.manager)
        assert client.timeout == 11
        assert str(client.base_url) == "http://gateway.example"
        assert isinstance(client._client, httpx2.Client)
