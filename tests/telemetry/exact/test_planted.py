"""Nothing secret is in any telemetry: what is planted everywhere is searched for in all that is put out.

In metrics with their exemplars, spans with their events and links, log records, texts of errors, what objects show of
themselves, names and messages in Redis, what the command prints, and what the app for operators answers: while all goes
well, and while a layer, the origin or a caller fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from aurelis.cache import CacheConfig, CacheManager, WriteThrough, cached, current_load
from aurelis.cache.exceptions import CacheError
from aurelis.cache.layers.redis import RedisBackend
from aurelis.cache.telemetry import names
from aurelis_asgi import CacheMiddleware, CacheRule, Purger, admin_app
from aurelis_httpx2 import AsyncCacheTransport
from tests.managers import configuration, opened, own_counts
from tests.servers import HOST, ServerProcess, redis_command
from tests.telemetry.collecting import Metrics, Spans, record_spans

# Told apart by where they were planted.
PASSWORD, ENCRYPTION, HASHED = "planted-password", "planted-encryption-key-32-bytes", "planted-hash-key"
SEALING = f"{ENCRYPTION}\x01".encode()  # as printable text it would be no key
TOKEN, API_KEY, SIGNATURE = "planted-token", "planted-api-key", "planted-signature"
BEARER, COOKIE, FIELD = "planted-bearer", "planted-cookie", "planted-field"
PROMPT, ANSWER, BODY, USER, TEXT = "planted-prompt", "planted-answer", "planted-body", "planted-user", "planted-text"
PLACE = "planted_place"  # it could be an attribute; errors tell where in a value something is, logs do not
KEY, PARAM, TAG, PATH, VALUE = "planted-key", "planted-param", "planted-tag", "planted-path", "planted-value"
ADMIN = "planted-admin-token"

CREDENTIALS = (
    PASSWORD,
    ENCRYPTION,
    ENCRYPTION.encode().hex(),
    HASHED,
    TOKEN,
    API_KEY,
    SIGNATURE,
    BEARER,
    COOKIE,
    ADMIN,
)
CONTENTS = (FIELD, PROMPT, ANSWER, BODY, USER, TEXT, PARAM, VALUE, PLACE)
NAMED = (KEY, TAG, PATH)
"""What keys and tags are called by whoever chooses them: that is in Redis, and in no telemetry."""
FOREIGN = ("asyncio", "httpcore2", "httpx2")

URL = f"/{PATH}/page?token={TOKEN}&q=1&key={API_KEY}&X-Amz-Signature={SIGNATURE}"
FIELDS = {"authorization": f"Bearer {BEARER}", "cookie": f"session={COOKIE}", "x-field": FIELD}


class Seen:
    """All texts that were put out."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.stored: list[str] = []
        """Names and messages in Redis."""

    async def attempt(self, call: Awaitable[Any]) -> Any:
        """What a call gives; the texts of what it raises are put out."""
        try:
            return await call
        except Exception as error:  # noqa: BLE001  # whatever it is
            self.add_error(error)
            return None

    def add_error(self, error: BaseException) -> None:
        """The texts of an error of ours, and of those behind it that are ours."""
        behind: list[BaseException | None] = [error]
        while behind:
            one = behind.pop()
            if one is None:
                continue
            if type(one).__module__.startswith("aurelis"):
                self.texts += [str(one), repr(one), repr(vars(one)), *traceback.format_exception_only(one)]
            behind += [one.__cause__, one.__context__]

    def check(self) -> None:
        """Nothing that was planted is in any of them."""
        for planted in (*CREDENTIALS, *CONTENTS, *NAMED):
            assert [text[:300] for text in self.texts if planted in text.lower()] == [], planted
        for planted in (*CREDENTIALS, *CONTENTS):
            assert [text[:300] for text in self.stored if planted in text.lower()] == [], planted


@pytest.fixture(scope="module")
def recorder() -> Spans:
    """Records all spans of the process."""
    return record_spans()


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    """A reader of the metrics of this test's caches."""
    with own_counts():
        yield Metrics()


@pytest.fixture
def guarded_redis(own_redis: ServerProcess) -> ServerProcess:
    """A Redis with a password."""
    assert redis_command(own_redis.port, f"CONFIG SET requirepass {PASSWORD}").startswith(b"+OK")
    return own_redis


def url_of(server: ServerProcess, password: str = PASSWORD) -> str:
    """Its address, with the password."""
    return f"redis://:{password}@{HOST}:{server.port}/0"


async def page(request: Request) -> Response:
    """What the app answers, or how it fails."""
    if "fails" in request.query_params:
        raise LookupError(f"{BODY} {request.url}")
    fields = {"cache-control": "max-age=60", "x-field": FIELD, "set-cookie": f"a={COOKIE}", "surrogate-key": TAG}
    if "kept" in request.query_params:
        del fields["set-cookie"]
    return PlainTextResponse(BODY, headers=fields)


def provider(request: httpx2.Request) -> httpx2.Response:
    """An origin of pages and a model."""
    if request.method == "GET":
        if "fails" in str(request.url):
            raise httpx2.ConnectError(f"{TEXT} {request.url}")
        return httpx2.Response(200, headers={"cache-control": "max-age=60", "etag": f'"{FIELD}"'}, text=BODY)
    if b"fails" in request.content:
        return httpx2.Response(500, json={"error": {"message": ANSWER}})
    choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    return httpx2.Response(200, json={"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})


async def use(manager: CacheManager, seen: Seen) -> None:
    """Everything that a cache is asked, with something planted wherever it can be."""
    await values(manager, seen)
    await responses(manager, seen)
    await calls(manager, seen)


async def values(manager: CacheManager, seen: Seen) -> None:
    """Values, functions and a store."""
    key = manager.key_builder.build_key(KEY, KEY, {"user": PARAM})

    async def load() -> object:
        current_load().add_tags(TAG)
        return {"text": VALUE}

    async def fails() -> object:
        raise LookupError(f"{TEXT} {key}")

    async def unstorable() -> object:
        return {PLACE: type("Session", (), {"user": USER})()}

    @cached(cache=manager, tags=[TAG])
    async def function(user: str) -> str:
        return VALUE

    class Store:
        async def get(self, key: str) -> object:
            raise OSError(f"{TEXT} {key}")

        async def set(self, key: str, value: object) -> None:
            raise OSError(f"{TEXT} {key} {value}")

    await seen.attempt(manager.set(key, VALUE, tags=[TAG]))
    await seen.attempt(manager.get_many([key, KEY]))
    for number, compute in enumerate((load, fails, unstorable)):
        await seen.attempt(manager.get_or_compute(f"{key}{number}", compute, tags=(TAG,)))
        await seen.attempt(manager.get_or_compute(f"{key}{number}", compute, tags=(TAG,)))
    await seen.attempt(function(PARAM))
    await seen.attempt(manager.set(key, type("Session", (), {"user": USER})()))
    await seen.attempt(manager.set(key, VALUE, ttl=-1))
    await seen.attempt(function.refresh(PARAM))
    store: Any = Store()
    strategy = WriteThrough(manager, store)
    await seen.attempt(strategy.get(key))
    await seen.attempt(strategy.set(key, VALUE))
    await seen.attempt(function.invalidate(PARAM))
    await seen.attempt(manager.delete(key))
    await seen.attempt(manager.invalidate_tags(TAG))
    await seen.attempt(manager.invalidate_category(KEY))
    await seen.attempt(manager.invalidate_pattern(f"{KEY}:*"))
    waiting = asyncio.create_task(manager.get_or_compute(f"{key}9", asyncio.Event().wait))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


async def responses(manager: CacheManager, seen: Seen) -> None:
    """Requests through the middleware, and what operators ask about them."""
    rules = [CacheRule(f"/{PATH}/*", ttl=60, tags=[TAG], principal=lambda request: USER)]
    app = Starlette(
        routes=[
            Route("/{path:path}", page, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(CacheMiddleware, cache=manager, rules=rules)],
    )
    operators = Starlette(routes=[Mount("/", admin_app(manager, token=ADMIN, rules=rules))])
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        for more in ("", "&kept=1", "&kept=1", "&fails=1"):
            for path in (URL, f"/other?token={TOKEN}"):
                response = await client.get(path + more, headers=FIELDS)
                seen.texts += [response.headers.get("cache-status", "")]
                await client.get(path + more)
        await client.post(URL, headers=FIELDS, content=BODY)
    purger = Purger(manager, rules=rules)
    for url in (f"http://shop.example{URL}", f"http://shop.example/other?token={TOKEN}&kept=1"):
        seen.texts += [repr(await seen.attempt(purger.entries(url))).replace(TAG, "")]
        await seen.attempt(purger.url(url, soft=True))
        await seen.attempt(purger.pattern(f"{url}*"))
    transport = httpx2.ASGITransport(app=operators, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://operators.example") as client:
        for token in (ADMIN, BEARER):
            headers = {"authorization": f"Bearer {token}"}
            address = f"http%3A//shop.example/other%3Ftoken={TOKEN}"
            for answer in (
                await client.get(f"/entries/{address}", headers=headers),
                await client.post("/purge", headers=headers, json={"url": "no address", BODY: BODY}),
                await client.post("/purge", headers=headers, content=BODY),
            ):
                # Who asks about an address is told which one it was.
                seen.texts.append(answer.text.replace(TOKEN, "").replace(TAG, "").replace(BODY, ""))


async def calls(manager: CacheManager, seen: Seen) -> None:
    """Requests and calls of a model through a transport."""
    transport = AsyncCacheTransport(
        httpx2.MockTransport(provider), cache=manager, negative_ttl=1, partition_by_user=True, stale_if_error=60
    )
    seen.texts.append(repr(transport))
    async with httpx2.AsyncClient(transport=transport, base_url="http://model.example", headers=FIELDS) as client:
        for more in ("", "", "&fails=1"):
            response = await seen.attempt(client.get(URL + more))
            seen.texts.append(response.headers["cache-status"] if response is not None else "")
            await seen.attempt(client.get(f"http://{USER}:{PASSWORD}@model.example/page?x=1{more}"))
        for more in ("", "", " fails", " fails"):
            body = {
                "model": "m",
                "messages": [{"role": "user", "content": PROMPT + more}],
                "temperature": 0,
                "user": USER,
            }
            response = await seen.attempt(client.post(f"/v1/chat/completions?key={API_KEY}", json=body))
            seen.texts.append(response.headers["cache-status"])


def options(server: ServerProcess, folder: Path) -> dict[str, Any]:
    """Of each manager."""
    return {
        "redis_url": url_of(server),
        "cache_dir": folder / "cache",
        "encryption_key": SEALING,
        "secret": HASHED,
        "spans": "all",
        "timeout": 1.0,
        "breaker_failures": 3,
        "breaker_pause": 0.05,
    }


async def test_nothing_that_was_planted_is_in_any_telemetry(
    guarded_redis: ServerProcess,
    tmp_path: Path,
    recorder: Spans,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recorder.clear()
    caplog.set_level(logging.DEBUG)
    seen, config = Seen(), options(guarded_redis, tmp_path)
    store = redis.Redis(port=guarded_redis.port, password=PASSWORD)
    listening: Any = store.pubsub()  # type: ignore[no-untyped-call]  # redis-py has no type for it
    listening.psubscribe("*")
    caches = []

    async with opened(configuration(**config)) as manager:
        caches.append(manager.config.name)
        await use(manager, seen)
        seen.stored += [name.decode("latin-1") for name in store.scan_iter()]
        shown = [manager, manager.config, manager._engine, *manager._engine.stack.lower]
        seen.texts += [repr(one) for one in (*shown, RedisBackend(manager.config))]
        while (message := listening.get_message(ignore_subscribe_messages=True, timeout=0.05)) is not None:
            seen.stored.append(str(message))

        # Then Redis is gone, and comes back.
        listening.close()
        store.close()
        guarded_redis.stop()
        await use(manager, seen)
        guarded_redis.start()
        assert redis_command(guarded_redis.port, f"CONFIG SET requirepass {PASSWORD}").startswith(b"+OK")
        await use(manager, seen)

    # Another key, another password, a folder that is none, and an address where nobody is.
    (tmp_path / "file").write_text("no folder")
    for changes in (
        {"encryption_key": f"{ENCRYPTION}\x02".encode()},
        {"redis_url": url_of(guarded_redis, f"{PASSWORD}-too"), "redis_password": PASSWORD},
        {"cache_dir": tmp_path / "file" / "cache"},
        {"redis_url": f"redis://{USER}:{PASSWORD}@{HOST}:1/0"},
    ):
        try:
            async with opened(configuration(**config | changes)) as manager:
                caches.append(manager.config.name)
                await use(manager, seen)
                seen.texts += [repr(manager.config)]
        except CacheError as error:
            seen.add_error(error)
    for wrong in (
        {"redis_url": f"redis://:{PASSWORD}@{HOST}:port/0"},
        {"redis_url": f"http://:{PASSWORD}@{HOST}/0"},
        {"encryption_key": f"{ENCRYPTION} too long"},
        {"secret": 1, "redis_password": PASSWORD},
        {"redis_password": PASSWORD, "max_size": -1},
    ):
        with pytest.raises(CacheError) as problem:
            CacheConfig(**{**config, **wrong})
        seen.add_error(problem.value)

    collected = metrics.reader.get_metrics_data()
    assert collected is not None
    points = [point for metric in names.METRICS for cache in caches for point in metrics.points(metric, cache)]
    assert len(points) > 100
    seen.texts += [collected.to_json(), *(str(point) for point in points)]
    spans = [span for span in recorder.ended() if span.instrumentation_scope.name == names.SCOPE]  # type: ignore[union-attr]  # the SDK's always have one
    assert len(spans) > 50
    seen.texts += [span.to_json() for span in spans]
    # What others say of our work, such as of a task whose error nobody has looked at, is in the log as well.
    foreign = [record for record in caplog.records if record.name.partition(".")[0] in FOREIGN]
    assert [record.getMessage() for record in foreign if record.levelno > logging.INFO] == []
    records = [record for record in caplog.records if record not in foreign]
    assert {record.name for record in records} >= {"aurelis.cache"}
    for record in records:
        seen.texts += [record.getMessage(), str(record.__dict__)]
        if record.exc_info and record.exc_info[1] is not None:
            seen.add_error(record.exc_info[1])
    seen.texts += capfd.readouterr()
    seen.check()


@pytest.mark.parametrize("state", ["well", "stopped", "wrong password"])
def test_nothing_that_was_planted_is_in_what_the_command_prints(
    guarded_redis: ServerProcess, tmp_path: Path, state: str, free_port: Any
) -> None:
    seen, file = Seen(), tmp_path / "calls.jsonl"
    message = {"role": "user", "content": PROMPT}
    lines: list[Any] = [{"model": "m", "prompt": PROMPT}, {"model": "m", "messages": [message], "user": USER}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    url = url_of(guarded_redis, PASSWORD if state != "wrong password" else f"{PASSWORD}-too")
    if state == "stopped":
        guarded_redis.stop()
    # Nobody answers there, so each call fails.
    nobody = f"http://{USER}:{BEARER}@{HOST}:{free_port()}/v1"
    environment = {
        **os.environ,
        "SECRET": API_KEY,
        "AURELIS_CACHE_SECRET": HASHED,
        "AURELIS_CACHE_ENCRYPTION_KEY": SEALING.hex(),
    }
    header = ["--header", "Authorization: Bearer $SECRET"]
    warm = ["warm", str(file), "--base-url"]
    given: list[list[str]] = [[*warm, nobody, "--redis", url, *header]]
    if state == "well":
        given += [
            [*warm, nobody, "--redis", f"{url}/x", *header],
            [*warm, f"{nobody}?key={API_KEY}", "--redis", url],
            [*warm, nobody, "--redis", url, "--header", f"Authorization {BEARER}"],
            ["top", "--once", "--url", f"{nobody}?token={TOKEN}"],
            ["top", "--json", "--url", f"{nobody}?token={TOKEN}"],
            ["top", "--once", "--url", f"ftp://{USER}:{PASSWORD}@{HOST}/?token={TOKEN}"],
        ]
    for arguments in given:
        ended = subprocess.run(
            [sys.executable, "-m", "aurelis_cli", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode != 0
        assert ended.stdout + ended.stderr
        seen.texts += [ended.stdout, ended.stderr]
    seen.check()


def test_the_search_finds_what_is_there() -> None:
    for planted in (*CREDENTIALS, *CONTENTS, *NAMED):
        seen = Seen()
        seen.add_error(CacheError(f"something {planted} else"))
        with pytest.raises(AssertionError, match=planted):
            seen.check()
