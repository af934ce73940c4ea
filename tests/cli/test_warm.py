"""`aurelis-cache warm`: what a file of calls says, what is sent, and what an app finds then."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import openai
import pytest

from aurelis.cache import CacheConfig, CacheManager
from aurelis_cli.warm.lines import Call, LineError, calls
from aurelis_httpx2 import AsyncCacheTransport
from tests.cli.test_main import said
from tests.client.upstream import Asked, Gate, Reply, Server, Upstream, chat_reply, json_reply
from tests.managers import eventually_blocking, fresh_name
from tests.models.examples import completion

KEY = "sk-planted-secret"
PROMPTS = ["planted prompt one", "planted prompt two", "planted prompt three"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The server that the tests of this module share."""
    with Server().running() as running:
        yield running


@pytest.fixture
def upstream(server: Server) -> Upstream:
    """This test's part of the server; it answers as a model does."""
    return server.part()


def written(folder: Path, *lines: object) -> Path:
    """A file with these lines; what is no text becomes JSON."""
    file = folder / "calls.jsonl"
    file.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return file


def prompts(folder: Path, asked: Sequence[str] = PROMPTS) -> Path:
    """A file with prompts for one model."""
    return written(folder, *({"model": "gpt-x", "prompt": prompt} for prompt in asked))


def command(file: Path, upstream: Upstream, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command and its environment."""
    given = ["--base-url", f"{upstream.url}/v1", "--header", "Authorization: Bearer $THE_KEY", *arguments]
    return [sys.executable, "-m", "aurelis_cli", "warm", str(file), *given], {**os.environ, "THE_KEY": KEY}


def warmed(file: Path, upstream: Upstream, *arguments: str) -> tuple[int, str, str]:
    """What the command, run as a process of its own, ended with and printed."""
    line, environment = command(file, upstream, *arguments)
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
    for planted in (KEY, *PROMPTS):
        assert planted not in ended.stdout + ended.stderr
    return ended.returncode, ended.stdout, ended.stderr


async def answered(upstream: Upstream, config: CacheConfig, prompt: str) -> str | None:
    """What an app gets that stands on the same cache."""
    async with CacheManager(config) as cache:
        transport = AsyncCacheTransport(cache=cache)
        async with httpx2.AsyncClient(transport=transport) as http_client:
            client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{upstream.url}/v1", http_client=http_client)
            messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": prompt}]
            completion = await client.chat.completions.create(model="gpt-x", messages=messages)
            return completion.choices[0].message.content


# --- what is sent, and what an app finds


async def test_an_app_finds_on_the_disk_what_was_warmed(upstream: Upstream, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    status, out, err = warmed(prompts(tmp_path), upstream, "--cache-dir", str(folder))
    assert (status, out, err) == (0, "3 warmed, 0 fresh already, 0 failed\n", "")
    assert upstream.calls == 3
    assert upstream.asked[0].headers["authorization"] == f"Bearer {KEY}"
    for prompt in PROMPTS:
        assert await answered(upstream, CacheConfig(cache_dir=folder, name=fresh_name()), prompt)
    assert upstream.calls == 3
    await answered(upstream, CacheConfig(cache_dir=folder, name=fresh_name()), "another")
    assert upstream.calls == 4


async def test_an_app_finds_in_redis_what_was_warmed(upstream: Upstream, tmp_path: Path, redis_url: str) -> None:
    file = prompts(tmp_path)
    assert warmed(file, upstream, "--redis", redis_url, "--cache-namespace", "shop")[0] == 0
    config = CacheConfig(redis_url=redis_url, namespace="shop", name=fresh_name())
    assert await answered(upstream, config, PROMPTS[1])
    assert upstream.calls == 3
    status, out, _ = warmed(file, upstream, "--redis", redis_url, "--cache-namespace", "shop")
    assert (status, out) == (0, "0 warmed, 3 fresh already, 0 failed\n")
    assert upstream.calls == 3


def test_lines_of_a_batch_are_sent_as_they_are(upstream: Upstream, tmp_path: Path) -> None:
    body = {"model": "gpt-x", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    file = written(
        tmp_path,
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body},
        "\n",
        {"url": "responses?api-version=1", "body": {"model": "gpt-x", "input": "hello", "store": False}},
    )
    status, out, err = warmed(file, upstream, "--cache-dir", str(tmp_path / "cache"), "--concurrency", "1")
    # The stand-in answers a response with a chat's completion, which is no whole answer of that kind.
    assert (status, out) == (1, "1 warmed, 0 fresh already, 1 failed\n")
    assert err == "  answered, and not kept: cut short, filtered, unfinished, or too large: line 3\n"
    assert [asked.path for asked in upstream.asked] == ["v1/chat/completions", "v1/responses"]
    assert json.loads(upstream.asked[0].body) == body


def test_failures_are_listed_by_their_lines_and_the_rest_is_done(upstream: Upstream, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        prompt = json.loads(asked.body)["messages"][0]["content"]
        if prompt == PROMPTS[0]:
            return json_reply({"error": {"message": prompt}}, status=429)
        if prompt == PROMPTS[1]:
            return json_reply(completion(choices=[{"index": 0, "message": {}, "finish_reason": "length"}]))
        return chat_reply(asked)

    upstream.answer = answer
    file, cache = prompts(tmp_path, [PROMPTS[0], PROMPTS[1], PROMPTS[2], "fourth"]), str(tmp_path / "cache")
    status, out, err = warmed(file, upstream, "--cache-dir", cache)
    assert (status, out) == (1, "2 warmed, 0 fresh already, 2 failed\n")
    assert err == (
        "  status 429: line 1\n  answered, and not kept: cut short, filtered, unfinished, or too large: line 2\n"
    )
    upstream.answer = chat_reply
    assert warmed(file, upstream, "--cache-dir", cache)[:2] == (0, "2 warmed, 2 fresh already, 0 failed\n")


def test_it_gives_up_where_the_credentials_are_refused(upstream: Upstream, tmp_path: Path) -> None:
    upstream.replies(json_reply({"error": {}}, status=401))
    file = prompts(tmp_path, list(map(str, range(50))))
    status, out, err = warmed(file, upstream, "--cache-dir", str(tmp_path / "cache"), "--concurrency", "2")
    assert status == 1
    assert "the API refuses the credentials" in err
    assert upstream.calls <= 3
    assert out == f"0 warmed, 0 fresh already, {upstream.calls} failed\n"


def test_nothing_is_paid_for_where_the_cache_takes_nothing(upstream: Upstream, tmp_path: Path) -> None:
    status, out, err = warmed(prompts(tmp_path), upstream, "--redis", "redis://127.0.0.1:1/0")
    assert (status, out) == (1, "0 warmed, 0 fresh already, 0 failed\n")
    assert "the cache cannot be reached" in err
    assert upstream.calls == 0


def test_what_was_done_before_an_interruption_is_not_done_again(upstream: Upstream, tmp_path: Path) -> None:
    gate = Gate()

    def answer(asked: Asked) -> Reply:
        held = PROMPTS[2].encode() in asked.body and upstream.calls <= 3
        reply = chat_reply(asked)
        return Reply(reply.status, reply.headers, [gate, *reply.chunks], reply.length) if held else reply

    upstream.answer = answer
    file, cache = prompts(tmp_path), ("--cache-dir", str(tmp_path / "cache"))
    line, environment = command(file, upstream, *cache, "--concurrency", "1")
    # A shell's background jobs ignore it, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        eventually_blocking(lambda: upstream.calls == 3)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        gate.open()
        running.kill()
        running.communicate()
    assert (running.returncode, out) == (130, "2 warmed, 0 fresh already, 0 failed\n")
    assert err == "aurelis-cache: interrupted; run it again to go on\n"
    assert warmed(file, upstream, *cache)[:2] == (0, "1 warmed, 2 fresh already, 0 failed\n")
    assert upstream.calls == 4


def test_a_namespace_and_a_secret_are_those_of_the_app(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = prompts(tmp_path, ["a"]), ("--cache-dir", str(tmp_path / "cache"))
    for arguments in ((), ("--namespace", "one"), ("--namespace", "two"), ("--share-across-credentials",)):
        assert warmed(file, upstream, *cache, *arguments)[:2] == (0, "1 warmed, 0 fresh already, 0 failed\n")
    monkeypatch.setenv("AURELIS_CACHE_SECRET", "pepper")
    assert warmed(file, upstream, *cache)[:2] == (0, "1 warmed, 0 fresh already, 0 failed\n")
    assert warmed(file, upstream, *cache)[:2] == (0, "0 warmed, 1 fresh already, 0 failed\n")


def test_the_cache_is_configured_as_that_of_the_app(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = prompts(tmp_path, ["a"])
    monkeypatch.setenv("AURELIS_CACHE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AURELIS_CACHE_COPY", "true")
    assert warmed(file, upstream)[:2] == (0, "1 warmed, 0 fresh already, 0 failed\n")
    assert warmed(file, upstream)[:2] == (0, "0 warmed, 1 fresh already, 0 failed\n")
    monkeypatch.setenv("AURELIS_CACHE_NAMESPACE", "shop")
    assert warmed(file, upstream)[:2] == (0, "1 warmed, 0 fresh already, 0 failed\n")
    monkeypatch.setenv("AURELIS_CACHE_NAMSPACE", "shop")
    status, _, err = warmed(file, upstream)
    assert status == 2
    assert "AURELIS_CACHE_NAMSPACE" in err


# --- what is refused before anything is sent


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not json\n", "no JSON"),
        ("[" * 100_000 + "\n", "no JSON"),
        ([1], "no JSON object"),
        ({"model": "m"}, "model and prompt"),
        ({"model": 1, "prompt": "p"}, "model and prompt"),
        ({"prompt": "p"}, "model and prompt"),
        ({"url": "/v1/batches", "body": {"input_file_id": "f"}}, "no call of a model"),
        ({"url": "/chat/completions", "body": {"model": "m"}}, "no call of a model"),
        ({"url": "/responses", "body": {"model": "m", "input": "i", "background": True}}, "no call of a model"),
        ({"url": "https://elsewhere.example/chat/completions", "body": {"messages": []}}, "below the base URL"),
        ({"url": "../other/chat/completions", "body": {"messages": []}}, "below the base URL"),
        ({"url": "/x/%2e%2E/chat/completions", "body": {"messages": []}}, "below the base URL"),
        ({"url": "/chat/completions", "body": "{}"}, "body an object"),
        ({"url": "/chat/completions", "method": "GET", "body": {}}, "POST"),
        ({"url": "/chat/completions", "body": {}, "headers": {}}, "nothing else"),
    ],
)
def test_a_line_that_is_no_call_is_told_and_nothing_is_sent(
    line: object, why: str, upstream: Upstream, tmp_path: Path
) -> None:
    file = written(tmp_path, {"model": "gpt-x", "prompt": "p"}, line)
    found = list(calls(file, f"{upstream.url}/v1"))
    assert isinstance(found[0], Call)
    assert isinstance(found[1], LineError)
    assert found[1].line == 2
    assert why in found[1].why


def test_a_file_with_a_wrong_line_is_not_sent(upstream: Upstream, tmp_path: Path) -> None:
    file = written(tmp_path, {"model": "gpt-x", "prompt": "p"}, *[f'{{"prompt": "{PROMPTS[0]}"\n'] * 30)
    status, out, err = warmed(file, upstream, "--cache-dir", str(tmp_path / "cache"))
    assert (status, out) == (2, "")
    assert "line 2: no JSON" in err
    assert "and 10 lines more; nothing was sent" in err
    assert upstream.calls == 0


def test_a_line_names_the_address_that_sdks_use(tmp_path: Path) -> None:
    body = {"model": "m", "messages": []}
    gemini: dict[str, object] = {"contents": []}
    for base, path, url in (
        ("http://h/v1", "/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/v1/", "chat/completions", "http://h/v1/chat/completions"),
        ("http://h", "/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/openai/v1", "/v1/chat/completions", "http://h/openai/v1/chat/completions"),
        ("http://h/openai/v1", "/openai/v1/chat/completions", "http://h/openai/v1/chat/completions"),
        ("http://h/v1", "/v1beta/chat/completions", "http://h/v1/v1beta/chat/completions"),
        ("http://h", "v1beta/models/x:generateContent", "http://h/v1beta/models/x:generateContent"),
        ("http://h", "//elsewhere/chat/completions", "http://h/elsewhere/chat/completions"),
    ):
        (call,) = calls(written(tmp_path, {"url": path, "body": gemini if ":" in path else body}), base)
        assert isinstance(call, Call)
        assert call.url == url


@pytest.mark.parametrize("value", ["hunter2\n", "hunter2\u00e4"])
def test_a_variable_that_no_field_can_hold_is_named_and_not_shown(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a secret from a file has a line end; it would make each single call fail."""
    monkeypatch.setenv("THE_SECRET", value)
    file = written(tmp_path, {"model": "gpt-x", "prompt": "p"})
    given = ["--base-url", "http://127.0.0.1:9", "--cache-dir", str(tmp_path), "--header", "A: Bearer $THE_SECRET"]
    status, text = said("warm", str(file), *given)
    assert status == 2
    assert "THE_SECRET in the environment holds" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--base-url", "ftp://x", "--cache-dir", "c"], "base URL"),
        (["--base-url", "https://x?key=1", "--cache-dir", "c"], "base URL"),
        (["--base-url", "https://x"], "--redis or --cache-dir"),
        (["--base-url", "https://x", "--redis", "http://user:hunter2@x"], "http"),
        (["--base-url", "https://x", "--cache-dir", "c", "--header", "hunter2"], "Authorization: Bearer"),
        (["--base-url", "https://x", "--cache-dir", "c", "--header", "A: hunter2 $ABSENT"], "set ABSENT"),
        (["--base-url", "https://x", "--cache-dir", "c", "--concurrency", "0"], "--concurrency"),
        (["--base-url", "https://x", "--cache-dir", "c"], "cannot read"),
    ],
)
def test_wrong_options_are_refused_with_the_way_out(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    status, text = said("warm", str(tmp_path / "absent.jsonl"), *arguments)
    assert status == 2
    assert complaint in text
    assert "hunter2" not in text
