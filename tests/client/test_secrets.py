"""Nothing that is put out holds a credential, a prompt or a completion: planted ones are searched for everywhere."""

import asyncio
import contextlib
import json
import logging
import sqlite3
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
import redis

from aurelis.cache import cache_options
from aurelis.cache.layers._disk_file import NAME
from aurelis.cache.telemetry import names
from tests.client.model_server import Model
from tests.client.stack import KINDS, Stack, closing, in_thread
from tests.client.upstream import Asked, Gate, Happened, Reply, Upstream, json_reply
from tests.managers import configuration, opened, own_counts
from tests.models.wire import WIRES, Wire
from tests.servers import ServerProcess
from tests.telemetry.collecting import Metrics, Spans, record_spans

CREDENTIAL, PROMPT, COMPLETION = "plantedcredential", "plantedprompt", "plantedcompletion"
HEADER, TOKEN, QUERY, USER = "plantedheader", "plantedtoken", "plantedquery", "planteduser"
ASKED = (CREDENTIAL, PROMPT, HEADER, TOKEN, QUERY, USER)
SECRETS = (*ASKED, COMPLETION)
OPTIONS: dict[str, Any] = {
    "key_headers": ["X-Trace"],
    "partition_by_user": True,
    "max_temperature": 2,
    "stale_while_revalidate": 60,
    "stale_if_error": 60,
    "negative_ttl": 1,
}
FAULTS = ["drop", "error", "unterminated", "length", "filtered", "busy", "large", "gzip"]
CALLERS = [*(("openai", kind) for kind in KINDS), *(("anthropic", kind) for kind in KINDS if "httpx2" in kind)]
FOREIGN = ("anthropic", "httpcore", "httpcore2", "httpx", "httpx2", "openai", "uvicorn")
"""Those that write down what they are asked to, by themselves."""


def planted(wire: Wire) -> Wire:
    """A protocol whose answers are what we search for."""

    def put(text: str) -> str:
        return text.replace("Hel", COMPLETION).replace("He message_stop", f"{COMPLETION} message_stop")

    def put_all(chunks: Iterable[bytes]) -> tuple[bytes, ...]:
        return tuple(put(chunk.decode()).encode() for chunk in chunks)

    assert wire.cut is not None
    assert wire.end is not None
    cut, end = wire.cut, wire.end
    return replace(
        wire,
        whole=json.loads(put(json.dumps(wire.whole))),
        chunks=put_all(wire.chunks),
        cut=lambda reason: json.loads(put(json.dumps(cut(reason)))),
        end=lambda reason: put_all(end(reason)),
    )


@dataclass
class Seen:
    """What was put out in a test."""

    texts: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def attempt(self, call: Awaitable[Any]) -> Any:
        """What a call gave; what it raised is seen."""
        try:
            return await call
        except Exception as error:  # noqa: BLE001  # whatever it is, its text is searched
            self.failures.append(type(error).__name__)
            self.add_error(error)
            return None

    def add_error(self, error: BaseException) -> None:
        """All texts of an error and of those behind it."""
        behind: list[BaseException | None] = [error]
        while behind:
            one = behind.pop()
            # The library's own says which URL the caller has asked for.
            if one is not None and type(one).__name__ != "HTTPStatusError":
                self.texts += [str(one), repr(one), *traceback.format_exception_only(one)]
                self.texts += [repr(vars(one))] if type(one).__module__.startswith("aurelis") else []
            if one is not None:
                behind += [one.__cause__, one.__context__]

    def require_none(self, secrets: Iterable[str]) -> None:
        """None of them is in any text."""
        assert self.texts
        for secret in secrets:
            assert [text[:500] for text in self.texts if secret in text.lower()] == [], secret


class Caller:
    """An SDK over a transport with a cache, with secrets wherever a call can hold some."""

    def __init__(self, sdk: str, stack: Stack, upstream: Upstream, url: str = "", timeout: float = 10.0) -> None:
        self.sdk, self.stack, self.upstream = sdk, stack, upstream
        self.wire = planted(WIRES["OPENAI_CHAT" if sdk == "openai" else "ANTHROPIC"])
        package: Any = openai if sdk == "openai" else anthropic
        kind = ("" if stack.blocking else "Async") + ("OpenAI" if sdk == "openai" else "Anthropic")
        url = url or upstream.url
        self.client = getattr(package, kind)(
            api_key=CREDENTIAL,
            base_url=f"{url}/v1" if sdk == "openai" else url,
            default_headers={"X-Trace": HEADER, "X-Session-Token": HEADER, "OpenAI-Organization": HEADER},
            default_query={"token": TOKEN, "q": QUERY},
            http_client=stack.client(settings={"timeout": timeout}, **OPTIONS),
            timeout=timeout,
            max_retries=0,
        )

    async def ask(self, more: str = "", *, stream: bool = False) -> str:
        """One call, read to its end."""
        call: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": f"{PROMPT} {more}"}]}
        create: Callable[..., Any]
        if self.sdk == "openai":
            create, call["user"] = self.client.chat.completions.create, USER
        else:
            create, call["max_tokens"], call["metadata"] = self.client.messages.create, 64, {"user_id": USER}
        if self.stack.blocking:
            return await in_thread(copy_context().run, lambda: _read(create(**call, stream=stream)))
        answer = await create(**call, stream=stream)
        return str([part async for part in answer]) if stream else str(answer)

    def answers(self, *faults: str, gate: Gate | None = None) -> None:
        """What the provider says from now on."""
        self.upstream.answer = Model(self.wire, frozenset(faults), gate)


def _read(answer: Any) -> str:
    return str(list(answer)) if isinstance(answer, openai.Stream | anthropic.Stream) else str(answer)


@pytest.fixture(scope="module")
def recorder() -> Spans:
    """Records all spans of the process."""
    return record_spans()


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    """A reader of the metrics of this test's caches."""
    with own_counts():
        yield Metrics()


@pytest.mark.parametrize(("sdk", "kind"), CALLERS, ids=lambda value: value)
async def test_no_secret_leaves(
    sdk: str,
    kind: str,
    upstream: Upstream,
    own_redis: ServerProcess,
    tmp_path: Path,
    recorder: Spans,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    free_port: Callable[[], int],
) -> None:
    recorder.clear()
    caplog.set_level(logging.DEBUG)
    seen, folder = Seen(), tmp_path / "cache"
    options = {"redis_url": own_redis.url, "cache_dir": folder, "spans": "all", "timeout": 1.0, "secret": "s"}
    store = redis.Redis(port=own_redis.port)
    listening: Any = store.pubsub()  # type: ignore[no-untyped-call]  # redis-py has no type for it
    listening.psubscribe("*")

    async with opened(configuration(**options)) as manager, closing(Stack(kind, manager)) as stack:
        caller = Caller(sdk, stack, upstream)
        await _hits(caller, seen)
        if sdk == "openai":
            await _embeddings(caller, seen)
        await _failures(caller, seen, free_port())
        await _plain_requests(stack, upstream, seen)
        seen.texts += [repr(manager), repr(manager.config), repr(stack.transport(**OPTIONS))]
        name = manager.config.name
    _search_redis(store, seen)
    while (message := listening.get_message(ignore_subscribe_messages=True, timeout=0.1)) is not None:
        seen.texts.append(str(message))

    # What is damaged is told, and what is down, too.
    _damage(store, folder)
    async with opened(configuration(**options, name=f"{name}-2")) as manager, closing(Stack(kind, manager)) as stack:
        caller = Caller(sdk, stack, upstream)
        caller.answers()
        for stream in (False, True):
            assert COMPLETION in str(await seen.attempt(caller.ask(stream=stream)))
        store.close()
        own_redis.stop()
        for stream in (False, True):
            assert COMPLETION in str(await seen.attempt(caller.ask("without Redis", stream=stream)))
        shown = [metrics.points(metric, cache) for metric in names.METRICS for cache in (name, f"{name}-2")]
        seen.texts += [f"{attributes}" for points in shown for attributes, _ in points]
    seen.texts += _names(tmp_path)
    spans = [span for span in recorder.ended() if span.instrumentation_scope.name == names.SCOPE]  # type: ignore[union-attr]  # the SDK's always have one
    records = [record for record in caplog.records if record.name.partition(".")[0] not in FOREIGN]
    assert len(spans) > 20
    assert {record.name for record in records} >= {"aurelis.cache"}
    seen.texts += [span.to_json() for span in spans]
    seen.texts += [f"{record.getMessage()} {record.__dict__}" for record in records]
    seen.texts += capfd.readouterr()
    seen.require_none(SECRETS)


async def _hits(caller: Caller, seen: Seen) -> None:
    caller.answers()
    for stream in (False, True):
        first, second = [await caller.ask(stream=stream) for _ in range(2)]
        assert COMPLETION in first
        assert first == second
    assert caller.upstream.calls == 2
    request = caller.upstream.asked[0]
    assert all(secret in f"{request.headers} {request.body!r}" for secret in (CREDENTIAL, PROMPT, HEADER, USER))
    with cache_options(refresh=True, tags=["a"]):
        await caller.ask()
    with cache_options(only_if_cached=True):
        await seen.attempt(caller.ask("of which nothing is stored"))
    with cache_options(bypass=True):
        await caller.ask()
    await asyncio.gather(*(caller.ask("at once") for _ in range(5)))


async def _embeddings(caller: Caller, seen: Seen) -> None:
    def answer(asked: Asked) -> Reply:
        number = len(json.loads(asked.body)["input"])
        data = [{"object": "embedding", "index": at, "embedding": [0.5]} for at in range(number)]
        usage = {"prompt_tokens": number, "total_tokens": number}
        return json_reply({"object": "list", "model": "m", "data": data, "usage": usage})

    async def embed(*texts: str) -> Any:
        create = caller.client.embeddings.create
        call = {"model": "m", "input": [f"{PROMPT} {text}" for text in texts], "user": USER, "encoding_format": "float"}
        if caller.stack.blocking:
            return await in_thread(lambda: create(**call))
        return await create(**call)

    caller.upstream.answer = answer
    before = caller.upstream.calls
    for texts in (["a", "b"], ["b", "a"], ["a", "c"]):
        assert len((await embed(*texts)).data) == 2
    assert caller.upstream.calls == before + 2
    assert len(json.loads(caller.upstream.asked[-1].body)["input"]) == 1
    caller.upstream.replies(json_reply({"error": {"message": "no"}}, status=500))
    await seen.attempt(embed("a", "d"))


async def _failures(caller: Caller, seen: Seen, nobody: int) -> None:
    for fault in FAULTS:
        caller.answers(fault)
        for stream in (False, True):
            await seen.attempt(caller.ask(fault, stream=stream))
    for status in (400, 401, 500, 503):
        caller.upstream.replies(json_reply({"error": {"message": "no"}}, status=status))
        with cache_options(refresh=True):
            await seen.attempt(caller.ask())
    caller.answers()
    with cache_options(ttl=0.001):
        await caller.ask("soon stale")
    await asyncio.sleep(0.002)
    caller.upstream.replies(json_reply({"error": {"message": "no"}}, status=503))
    for _ in range(2):  # from what is stale, then with a failure that is remembered
        assert COMPLETION in str(await seen.attempt(caller.ask("soon stale")))
        await seen.attempt(caller.ask("a failure"))
    caller.upstream.replies(Reply(200, [("content-type", "application/json")], [COMPLETION.encode(), b"{"]))
    await seen.attempt(caller.ask("no JSON"))

    gate = Gate()
    caller.answers(gate=gate)
    slow = Caller(caller.sdk, caller.stack, caller.upstream, timeout=0.1)
    for stream in (False, True):
        await seen.attempt(slow.ask("too slow", stream=stream))
    if not caller.stack.blocking:
        caller.upstream.arrived = Happened()
        task = asyncio.create_task(caller.ask("left", stream=True))
        await caller.upstream.arrived.happened()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    gate.open()
    lost = Caller(caller.sdk, caller.stack, caller.upstream, url=f"http://127.0.0.1:{nobody}")
    await seen.attempt(lost.ask("nobody there"))
    assert {"APIConnectionError", "APITimeoutError"} <= {*seen.failures}
    assert len(seen.failures) > 12


async def _plain_requests(stack: Stack, upstream: Upstream, seen: Seen) -> None:
    path = f"/me?token={TOKEN}"

    def answer(asked: Asked) -> Reply:
        lines = [("cache-control", "max-age=60"), ("vary", "X-Trace"), ("etag", '"1"')]
        if asked.method == "POST":  # it says what a GET of this URL would give now
            lines.append(("content-location", upstream.url + path))
        return json_reply({"text": COMPLETION}, headers=lines)

    upstream.answer = answer
    upstream.asked.clear()
    headers = {"Authorization": f"Bearer {CREDENTIAL}", "Cookie": f"a={CREDENTIAL}", "X-Trace": HEADER}
    for method, calls in (("GET", 1), ("GET", 1), ("HEAD", 1), ("POST", 2), ("GET", 3), ("GET", 3)):
        received = await stack.send(method, upstream.url + path, headers=headers)
        seen.texts.append(received.cache_status)
        assert upstream.calls == calls
    upstream.replies(Reply(500))
    await stack.send("GET", upstream.url + path, headers={**headers, "Cache-Control": "no-cache"})


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


def _search_redis(store: Any, seen: Seen) -> None:
    """Keys hold none of it; values hold the answer and nothing of the question."""
    keys = [key for key in store.scan_iter() if store.type(key) == b"string"]
    seen.texts += [key.decode("latin-1") for key in store.scan_iter()]
    values = b"".join(store.get(key) or b"" for key in keys)
    assert COMPLETION.encode() in values, "what is searched is not what was stored"
    assert [secret for secret in ASKED if secret.encode() in values.lower()] == []


def _damage(store: Any, folder: Path) -> None:
    """All frames in Redis and on the disk are cut off, with the answer in them; the disk holds no question."""
    for key in store.scan_iter():
        if store.type(key) == b"string" and COMPLETION.encode() in (value := store.get(key)):
            store.set(key, value[:-8], keepttl=True)
    raw = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).lower()
    assert COMPLETION.encode() in raw, "what is searched is not what was stored"
    assert [secret for secret in ASKED if secret.encode() in raw] == []
    with contextlib.closing(sqlite3.connect(folder / NAME)) as connection:
        keys = [bytes(key) for (key,) in connection.execute("SELECT key FROM entries")]
        assert keys
        assert [key for key in keys if COMPLETION.encode() in key.lower()] == []
        connection.execute("UPDATE entries SET frame = substr(frame, 1, length(frame) - 8)")
        connection.commit()


def test_the_search_finds_what_is_there() -> None:
    seen = Seen()
    try:
        try:
            raise ValueError(f"{PROMPT}")
        except ValueError as error:
            raise httpx2.ConnectError("it is behind") from error
    except httpx2.ConnectError as error:
        seen.add_error(error)
    with pytest.raises(AssertionError, match=PROMPT):
        seen.require_none([PROMPT])
    seen.require_none([COMPLETION])
