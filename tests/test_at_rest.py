"""What lies in Redis and on the disk: with encryption nothing of what was asked or answered, whoever looks for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from aurelis.cache import CacheManager
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx2 import AsyncCacheTransport
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import ask
from tests.managers import configuration, opened
from tests.models.examples import chat, dump, event, piece

KEY = bytes(range(32))

# Told apart by where they were planted; each is what an answer or a request would hold in one place.
BODY, FIELD, VALUE, COMPLETION, STREAMED, PAGE = (
    f"planted-{place}" for place in ("body", "field", "value", "completion", "streamed", "page")
)
ANSWERS = (BODY, FIELD, VALUE, COMPLETION, STREAMED, PAGE)
PROMPT, CREDENTIAL, ASKED = "planted-prompt", "planted-credential", "planted-asked"
QUESTIONS = (PROMPT, CREDENTIAL, ASKED)
TAG, PATH, KEYED, PARAM = "shown-tag", "shown-path", "shown-key", "planted-param"


def origin(request: httpx2.Request) -> httpx2.Response:
    """A page, an answer of a model, or a stream of one."""
    if request.method == "GET":
        fields = {"cache-control": "max-age=60", "x-planted": FIELD, "etag": '"planted-body-1"'}
        return httpx2.Response(200, headers=fields, text=f"{BODY} " * 50)
    if json.loads(request.content).get("stream"):
        words = [piece(f"{STREAMED} {number}") for number in range(50)]
        chunks = [event(data, b"\n\n") for data in (*words, piece(None, "stop"))]
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, content=b"".join(chunks) + b"data: [DONE]\n\n"
        )
    message = {"role": "assistant", "content": f"{COMPLETION} " * 50}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini", "choices": [choice]}
    return httpx2.Response(200, json=answer)


async def fill(manager: CacheManager) -> None:
    """Have each kind of thing stored, and found once."""
    rule = CacheRule("/*", ttl=60, tags=[TAG])
    app = CacheMiddleware(Origin(fixed_page), cache=manager, rules=[rule])
    headers = {"authorization": f"Bearer {CREDENTIAL}"}
    messages = [{"role": "user", "content": f"{PROMPT} " * 10}]
    async with httpx2.AsyncClient(
        transport=AsyncCacheTransport(httpx2.MockTransport(origin), cache=manager), headers=headers
    ) as client:
        for _ in range(2):
            page = await client.get(f"http://origin.example/{PATH}", headers={"x-asked": ASKED})
            answer = await client.post(
                "http://model.example/v1/chat/completions",
                content=dump(chat(messages=messages)),
                headers={"content-type": "application/json"},
            )
            stream = await client.post(
                "http://model.example/v1/chat/completions",
                content=dump(chat(messages=messages, stream=True)),
                headers={"content-type": "application/json"},
            )
            visit = await ask(app, "/a")
        assert all("; hit" in response.headers["cache-status"] for response in (page, answer, stream))
        assert (BODY in page.text, COMPLETION in answer.text, STREAMED in stream.text) == (True, True, True)
    assert "; hit" in visit.cache_status
    assert PAGE in visit.body.decode()
    await manager.set(KEYED, {"text": f"{VALUE} " * 50}, tags=[TAG])
    key = manager.key_builder.build_key("search", "shoes", {"q": PARAM})
    assert await manager.get_or_compute(key, compute) == VALUE
    await manager.invalidate_tags("another")


async def compute() -> str:
    return VALUE


async def fixed_page(call: Call) -> None:
    await call.answer(f"{PAGE} " * 50, content_type="text/plain")


def in_redis(url: str) -> bytes:
    """Everything that is there, names too."""
    with redis.Redis.from_url(url) as raw:
        names = list(raw.scan_iter())
        return b"\n".join(part for name in names for part in (name, raw.get(name) or b""))


def on_disk(folder: Path) -> bytes:
    """All bytes of all files, with their names."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(part for path in files for part in (path.name.encode(), path.read_bytes()))


async def found(options: dict[str, Any], look: Callable[[], bytes]) -> set[str]:
    """Which of what was planted is there, while the cache is open and when it is closed."""
    async with opened(configuration(**options, timeout=10)) as manager:
        await fill(manager)
        stored = look()
    stored += look()
    assert len(stored) > 2000
    everything = (*ANSWERS, *QUESTIONS, TAG, PATH, KEYED, PARAM)
    return {planted for planted in everything if planted.encode() in stored}


@pytest.fixture(params=["redis", "disk", "redis and disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], Callable[[], bytes]]:
    """Where it is stored, and how one looks there."""
    options: dict[str, Any] = {}
    looks: list[Callable[[], bytes]] = []
    if "redis" in request.param:
        url: str = request.getfixturevalue("redis_url")
        options["redis_url"] = url
        looks.append(lambda: in_redis(url))
    if "disk" in request.param:
        options["cache_dir"] = tmp_path
        looks.append(lambda: on_disk(tmp_path))
    return options, lambda: b"\n".join(look() for look in looks)


async def test_with_encryption_nothing_of_a_question_or_an_answer_is_there(
    place: tuple[dict[str, Any], Callable[[], bytes]],
) -> None:
    options, look = place
    assert await found({**options, "encryption_key": KEY}, look) == {TAG, PATH, KEYED}


async def test_with_compression_before_it_neither(place: tuple[dict[str, Any], Callable[[], bytes]]) -> None:
    options, look = place
    sealed = {"encryption_key": KEY, "compression": "zstd", "compression_threshold": 1}
    assert await found({**options, **sealed}, look) == {TAG, PATH, KEYED}


async def test_without_encryption_answers_are_found(place: tuple[dict[str, Any], Callable[[], bytes]]) -> None:
    """So the search would find them; questions it finds in no case, since keys of model calls are opaque."""
    options, look = place
    assert await found(options, look) == {*ANSWERS, TAG, PATH, KEYED}
