"""Cassettes: what was recorded is replayed without the network, nothing secret is in it, the rest is refused."""

import asyncio
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.testing import Cassette, CassetteError, UnmatchedCallError
from aurelis.cache.testing.cassettes import Mode
from aurelis.cache.testing.cassettes._scrubbing import Scrubber
from tests.client.model_server import Model
from tests.client.stack import Received, Stack
from tests.client.upstream import BREAK, Asked, Gate, Reply, Upstream, json_reply, stream_reply
from tests.conftest import ROOT
from tests.models.examples import STREAM, chat, completion, dump, event
from tests.models.wire import STREAMS, WIRES, Wire

KEY = "sk-planted0123456789abcdef"
PATH = "/v1/chat/completions"
HELLO = chat()
JSON = {"content-type": "application/json"}
MODES: tuple[Mode, ...] = ("record", "replay")


def client(stack: Stack, cassette: Cassette) -> Any:
    """A client whose network is the cassette's."""
    return stack.client(below(stack, cassette))


def below(stack: Stack, cassette: Cassette) -> Any:
    """The transport of a cassette."""
    transports = import_module(f"aurelis_{stack.library_name}.cassettes")
    kind = transports.CassetteTransport if stack.blocking else transports.AsyncCassetteTransport
    return kind(cassette, stack.network())


async def send(
    stack: Stack, upstream: Upstream, cassette: Cassette, *bodies: object, path: str = PATH, **request: Any
) -> list[Received]:
    """Calls through one client."""
    using = client(stack, cassette)
    request.setdefault("headers", {"authorization": f"Bearer {KEY}", "content-type": "application/json"})
    url = upstream.url + path
    return [await stack.send("POST", url, client=using, content=dump(body), **request) for body in bodies]


def files(folder: Path) -> list[Path]:
    """The recordings."""
    return sorted(folder.glob("*.json"))


# --- replaying


@pytest.mark.parametrize(
    ("wire", "stream"),
    [
        *(pytest.param(wire, False, id=f"{name}, whole") for name, wire in WIRES.items()),
        *(pytest.param(wire, True, id=f"{name}, streamed") for name, wire in STREAMS.items()),
    ],
)
async def test_every_protocol_is_replayed_as_it_was(
    async_stack: Stack, upstream: Upstream, wire: Wire, stream: bool, tmp_path: Path
) -> None:
    upstream.answer = Model(wire)
    path, body = wire.call(stream=stream)
    (recorded,) = await send(async_stack, upstream, Cassette(tmp_path, "record"), body, path=path)
    (replayed,) = await send(async_stack, upstream, Cassette(tmp_path), body, path=path)
    assert upstream.calls == 1
    assert (replayed.status, replayed.chunks) == (recorded.status, recorded.chunks)
    assert replayed.headers["content-type"] == recorded.headers["content-type"]
    assert "set-cookie" not in replayed.headers


async def test_a_series_of_answers_is_replayed_in_its_order(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    upstream.replies(
        json_reply({"error": {}}, status=429, headers=[("retry-after", "1")]),
        json_reply(completion(id="1")),
        json_reply(completion(id="2")),
    )
    recorded = await send(stack, upstream, Cassette(tmp_path, "record"), HELLO, HELLO, HELLO)
    replayed = await send(stack, upstream, Cassette(tmp_path), HELLO, HELLO, HELLO, HELLO)
    assert upstream.calls == 3
    assert [one.body for one in replayed] == [one.body for one in (*recorded, recorded[-1])]
    assert (replayed[0].status, replayed[0].headers["retry-after"]) == (429, "1")


async def test_an_sdk_reads_a_stream_from_a_cassette(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    """The synchronous SDK of OpenAI stops reading at `[DONE]`, before the body is over."""
    upstream.replies(stream_reply(*STREAM))
    answers = []
    for mode in MODES:
        cassette = Cassette(tmp_path, mode)
        sdk = stack.sdk(upstream.url, api_key=KEY, transport=below(stack, cassette))
        answers.append(await stack.ask(sdk, stream=True))
    assert upstream.calls == 1
    assert answers[0] == answers[1]
    assert len(answers[0]) == 3


async def test_calls_that_mean_the_same_are_the_same(async_stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    await send(async_stack, upstream, Cassette(tmp_path, "record"), HELLO)
    cassette = Cassette(tmp_path)
    same = [dict(reversed(HELLO.items())), HELLO | {"stream": False}, HELLO | {"user": "somebody"}]
    await send(async_stack, upstream, cassette, *same, headers={"content-type": "application/json"})
    for other in (HELLO | {"temperature": 0}, HELLO | {"model": "another"}, HELLO | {"stream": True}):
        with pytest.raises(UnmatchedCallError):
            await send(async_stack, upstream, cassette, other)
    with pytest.raises(UnmatchedCallError):
        await send(async_stack, upstream, cassette, HELLO, path="/v2/chat/completions")
    assert upstream.calls == 1


async def test_json_is_replayed_to_the_byte_however_it_is_written(
    async_stack: Stack, upstream: Upstream, tmp_path: Path
) -> None:
    document = completion(id="ä \U0001f600", value=[1.0, 1e-7, None])
    bodies = [
        json.dumps(document, indent=2).encode() + b"\n",
        json.dumps(document, ensure_ascii=False).encode(),
        dump(document) + b" \r\n",
        b'{"id":1,"id":2}',
        b'{"a":1.00}',
        b"[1, 2]",
        b"\xff\xfe",
        b'"text"',
    ]
    upstream.replies(*(Reply(200, [("content-type", "application/json")], [body], length=True) for body in bodies))
    calls = [HELLO | {"seed": number} for number in range(len(bodies))]
    await send(async_stack, upstream, Cassette(tmp_path, "record"), *calls)
    replayed = await send(async_stack, upstream, Cassette(tmp_path), *calls)
    assert [one.body for one in replayed] == bodies
    forms = [next(iter(json.loads(file.read_text())["response"]["body"][0])) for file in files(tmp_path)]
    assert forms == ["json", "json", "json", "text", "text", "json", "base64", "text"]


async def test_a_compressed_body_is_recorded_as_it_is_read(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    upstream.answer = Model(WIRES["OPENAI_CHAT"], frozenset({"gzip"}))
    (recorded,) = await send(stack, upstream, Cassette(tmp_path, "record"), HELLO)
    (replayed,) = await send(stack, upstream, Cassette(tmp_path), HELLO)
    assert replayed.body == recorded.body == dump(WIRES["OPENAI_CHAT"].whole)
    assert "content-encoding" not in replayed.headers


async def test_a_body_that_nobody_can_read_is_not_recorded(
    async_stack: Stack, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.replies(Reply(200, [("content-type", "text/plain"), ("content-encoding", "secret")], [b"\x00\x01"]))
    (received,) = await send(async_stack, upstream, Cassette(tmp_path, "record"), HELLO)
    assert received.body == b"\x00\x01"
    assert files(tmp_path) == []


async def test_anything_can_be_recorded(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.method == "GET":
            return Reply(200, [("content-type", "image/png"), ("etag", '"1"')], [b"\x89PNG", bytes(range(256))])
        return json_reply({"id": "file-1", "bytes": len(asked.body)}, status=201)

    upstream.answer = answer
    received: list[list[bytes]] = []
    for mode in MODES:
        using = client(stack, Cassette(tmp_path, mode))
        image = await stack.send("GET", upstream.url + "/image?size=2", client=using)
        upload = {"file": ("a.txt", b"\x00\xff text", "text/plain")}  # with a boundary drawn each time
        kept = await stack.send("POST", upstream.url + "/v1/files", client=using, files=upload, data={"purpose": "x"})
        received.append([image.body, kept.body])
    assert received[0] == received[1]
    assert upstream.calls == 2


async def test_the_cache_stands_on_a_cassette(async_stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    for seed, mode in enumerate(MODES):
        network = below(async_stack, Cassette(tmp_path, mode))
        using = async_stack.client(async_stack.transport(network))
        for _ in range(2):
            await async_stack.send("POST", upstream.url + PATH, client=using, json=HELLO | {"seed": seed})
        (file,) = files(tmp_path)
        file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))  # the other call, written by hand
    assert upstream.calls == 1


# --- modes


async def test_auto_records_what_is_not_there(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    await send(stack, upstream, Cassette(tmp_path, "auto"), HELLO)
    await send(stack, upstream, Cassette(tmp_path, "auto"), HELLO, HELLO | {"seed": 1}, HELLO | {"seed": 1})
    assert upstream.calls == 3
    assert [file.name for file in files(tmp_path)] == [f"000{n}-post-completions.json" for n in (1, 2, 3)]
    await send(stack, upstream, Cassette(tmp_path), HELLO, HELLO | {"seed": 1}, HELLO | {"seed": 1})
    assert upstream.calls == 3


async def test_record_replaces_what_was_there_and_nothing_else(
    async_stack: Stack, upstream: Upstream, tmp_path: Path
) -> None:
    await send(async_stack, upstream, Cassette(tmp_path, "record"), HELLO, HELLO | {"seed": 1})
    (tmp_path / "notes.json").write_text("{}")
    files(tmp_path)[0].write_text("{ broken")
    await send(async_stack, upstream, Cassette(tmp_path, "record"), HELLO | {"seed": 2})
    assert [file.name for file in files(tmp_path)] == ["0001-post-completions.json", "notes.json"]
    await send(async_stack, upstream, Cassette(tmp_path), HELLO | {"seed": 2})
    assert upstream.calls == 3


async def test_an_answer_that_breaks_off_is_not_recorded(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    upstream.replies(Reply(200, [("content-type", "text/event-stream")], [STREAM[0], BREAK]))
    with pytest.raises(Exception, match=r"(?i)peer|closed|incomplete"):
        await send(stack, upstream, Cassette(tmp_path, "record"), HELLO | {"stream": True})
    assert files(tmp_path) == []


async def test_what_a_reader_has_left_is_recorded_as_far_as_it_came(
    stack: Stack, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.replies(stream_reply(*STREAM))
    url = upstream.url + PATH
    opened = await stack.open("POST", url, client=client(stack, Cassette(tmp_path, "record")), json=HELLO)
    first = await opened.chunk()
    await opened.close()
    replayed = await stack.send("POST", url, client=client(stack, Cassette(tmp_path)), json=HELLO)
    assert replayed.chunks[0] == first


async def test_a_stream_that_is_cancelled_is_recorded_if_its_end_had_come(
    async_stack: Stack, upstream: Upstream, tmp_path: Path
) -> None:
    for recorded, parts in ((0, STREAM[:-1]), (1, STREAM)):
        gate = Gate()
        upstream.replies(Reply(200, [("content-type", "text/event-stream")], [*parts, gate]))
        using = client(async_stack, Cassette(tmp_path / str(recorded), "record"))
        body = HELLO | {"stream": True}
        opened = await async_stack.open("POST", upstream.url + PATH, client=using, content=dump(body), headers=JSON)
        read = b""
        while len(read) < len(b"".join(parts)):
            read += await opened.chunk() or b""
        reading = asyncio.ensure_future(opened.chunk())
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await opened.close()
        gate.open()
        assert len(files(tmp_path / str(recorded))) == recorded


# --- what is in a recording


async def test_a_recording_is_readable(async_stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    upstream.replies(json_reply(completion(id="ä")), stream_reply(*STREAM))
    await send(async_stack, upstream, Cassette(tmp_path, "record"), HELLO, HELLO | {"stream": True})
    whole, streamed = (json.loads(file.read_text()) for file in files(tmp_path))
    assert whole["request"] == {
        "method": "POST",
        "url": upstream.url + PATH,
        "headers": {"content-type": "application/json"},
        "body": {"json": HELLO},
    }
    assert whole["response"]["status"] == 200
    assert whole["response"]["body"][0]["json"]["id"] == "ä"
    assert streamed["response"]["body"] == [{"text": chunk.decode()} for chunk in STREAM]


async def test_no_secret_is_in_a_recording(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    """Not from headers, the address, the body or the answer, and not where it is spread over chunks."""
    other, token = "hf_Planted0123456789abcdef", "plain-planted-token"
    pieces = [event({"text": f"your key {KEY} and {token} planted-cookie"}), event({"text": other})]
    joined = b"".join(pieces)
    cut = joined.index(b"planted0") + 5
    headers = [
        ("set-cookie", f"session={token}"),
        ("openai-organization", "org-planted"),
        ("x-echo", KEY),
        ("x-auth-token", "planted-new"),
    ]
    headers += [("x-ratelimit-remaining-tokens", "99")]
    upstream.replies(stream_reply(joined[:cut], joined[cut:-10], joined[-10:], headers=headers))
    body = {"model": "m", "messages": [{"role": "user", "content": f"{KEY} {other} {token} my name is Ada"}]}
    sent: dict[str, Any] = {
        "path": f"{PATH}?api_key={token}&version=1",
        "headers": {"x-api-key": token, "cookie": f"a={other}; b=planted-cookie", "content-type": "application/json"},
    }
    (live,) = await send(stack, upstream, Cassette(tmp_path, "record", scrub=[r"my name is \w+"]), body, **sent)
    assert KEY in live.body.decode()  # who asks gets all
    (file,) = files(tmp_path)
    text = file.read_text()
    for secret in ("planted-cookie", KEY, KEY[:12], other, token, "org-planted", "planted-new", "Ada"):
        assert secret not in text
    assert token not in file.name
    (replayed,) = await send(stack, upstream, Cassette(tmp_path, scrub=[r"my name is \w+"]), body, **sent)
    assert replayed.body.count(b"[scrubbed]") == 4
    assert len(replayed.chunks) == 3
    assert replayed.headers["x-ratelimit-remaining-tokens"] == "99"
    # In another place with another key it is the same call.
    sent["headers"] = {"x-api-key": "another-planted-token", "content-type": "application/json"}
    changed = json.loads(json.dumps(body).replace(token, "another-planted-token").replace("Ada", "Grace"))
    await send(stack, upstream, Cassette(tmp_path, scrub=[r"my name is \w+"]), changed, **sent)
    assert upstream.calls == 1


@pytest.mark.parametrize(
    "text",
    [
        "a bearer certificates directory of sk-learn-based-models-for-everybody",
        "the test of the key-value-store-something",
        "AAAAAIzaSyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "",
    ],
)
def test_what_only_looks_like_a_secret_is_left(text: str) -> None:
    assert Scrubber().text(text.encode(), (b"test",)) == text.encode()


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ('{"user":"me","password" : "a\\"b","n":1}', '{"user":"me","password" : "[scrubbed]","n":1}'),
        ('{"accessToken":"opaque"}', '{"accessToken":"[scrubbed]"}'),
        ("client_id=me&client_secret=a%20b&scope=x", "client_id=me&client_secret=[scrubbed]&scope=x"),
        ("refresh_token=opaque", "refresh_token=[scrubbed]"),
        ("https://x.example/back#id_token=opaque&state=1", "https://x.example/back#id_token=[scrubbed]&state=1"),
        ('{"token":" the","password":{"type":"string"},"api_key":null}', None),
        ("prompt_tokens=1&max_tokens=2&my_password_hint=x", None),
    ],
)
def test_what_is_given_to_sign_in_is_found_by_its_name(text: str, scrubbed: str | None) -> None:
    assert Scrubber().text(text.encode()).decode() == (text if scrubbed is None else scrubbed)


async def test_signing_in_is_replayed_without_what_it_took(
    async_stack: Stack, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.replies(json_reply({"access_token": "planted opaque", "expires_in": 60}))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    for mode in MODES:
        using = client(async_stack, Cassette(tmp_path, mode))
        body = b"grant_type=client_credentials&client_secret=planted" + mode.encode()
        await async_stack.send("POST", upstream.url + "/token", client=using, content=body, headers=headers)
    (file,) = files(tmp_path)
    assert "planted" not in file.read_text()
    assert upstream.calls == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_secret_is_found_however_a_body_is_cut(size: int) -> None:
    body = f"before {KEY}{KEY} between sk-another0123456789abc after".encode()
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    scrubbed = Scrubber().chunks(chunks, (KEY.encode(),))
    assert b"".join(scrubbed) == b"before [scrubbed] between [scrubbed] after"
    assert len(scrubbed) == len(chunks)


# --- what was not recorded


async def test_a_call_that_was_not_recorded_shows_the_nearest(stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    other = {"model": "m", "messages": [{"role": "user", "content": "Something quite different"}], "tools": []}
    await send(stack, upstream, Cassette(tmp_path, "record"), other, HELLO, {"input": "x", "model": "m"})
    cassette = Cassette(tmp_path)
    with pytest.raises(UnmatchedCallError) as raised:
        await send(stack, upstream, cassette, HELLO | {"temperature": 0.5})
    text = str(raised.value)
    assert "--- 0002-post-completions.json, which is the nearest" in text
    assert '+      "temperature": 0.5' in text
    assert [line for line in text.splitlines() if line[:1] in "-+"][2:] == ['+      "temperature": 0.5']
    assert "mode='auto'" in text
    assert KEY not in text
    assert cassette.unmatched == [raised.value]
    assert upstream.calls == 3


async def test_a_text_of_several_lines_is_compared_by_its_lines(
    async_stack: Stack, upstream: Upstream, tmp_path: Path
) -> None:
    def asking(text: str) -> dict[str, object]:
        return HELLO | {"messages": [{"role": "user", "content": text}]}

    await send(async_stack, upstream, Cassette(tmp_path, "record"), asking("one\ntwo\nthree"))
    with pytest.raises(UnmatchedCallError) as raised:
        await send(async_stack, upstream, Cassette(tmp_path), asking("one\ntwo!\nthree"))
    changed = [line for line in str(raised.value).splitlines() if line[:1] in "-+"][2:]
    assert [line.replace(" ", "") for line in changed] == ['-"two"', '+"two!"']


async def test_an_empty_cassette_shows_the_call(async_stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    with pytest.raises(UnmatchedCallError, match=r"(?s)nothing is recorded.*gpt-4o-mini"):
        await send(async_stack, upstream, Cassette(tmp_path / "absent"), HELLO)
    assert not (tmp_path / "absent").exists()


async def test_a_long_difference_has_an_end(async_stack: Stack, upstream: Upstream, tmp_path: Path) -> None:
    many = [{"role": "user", "content": str(number)} for number in range(1000)]
    await send(async_stack, upstream, Cassette(tmp_path, "record"), HELLO)
    with pytest.raises(UnmatchedCallError, match=r"and \d+ lines more") as raised:
        await send(async_stack, upstream, Cassette(tmp_path), HELLO | {"messages": many})
    assert str(raised.value).count("\n") < 250


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"recording": 2}', '{"recording": 1, "request": {}}', "\x00"])
async def test_a_file_that_is_no_recording_is_named(
    async_stack: Stack, upstream: Upstream, tmp_path: Path, text: str
) -> None:
    (tmp_path / "0001-post-call.json").write_text(text)
    with pytest.raises(CassetteError, match=r"0001-post-call\.json is no recording"):
        await send(async_stack, upstream, Cassette(tmp_path), HELLO)


@pytest.mark.parametrize(
    "wrong", [{"mode": "once"}, {"scrub": "a"}, {"scrub": ["("]}, {"scrub": ["a*"]}, {"scrub": [1]}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"mode|scrub"):
        Cassette(tmp_path, **wrong)


async def test_a_transport_needs_a_cassette(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Cassette"):
        client(stack, tmp_path)  # type: ignore[arg-type]  # what is refused


# --- the fixture

TESTS = """
    import httpx2
    import pytest
    from aurelis.cache.testing import Cassette
    from aurelis_httpx2.cassettes import AsyncCassetteTransport, CassetteTransport

    URL = {url!r}

    def ask(cassette, content):
        with httpx2.Client(transport=CassetteTransport(cassette)) as client:
            body = {{"model": "m", "messages": [{{"role": "user", "content": content}}]}}
            return client.post(URL, json=body, headers={{"authorization": "Bearer {key}"}}).json()

    @pytest.mark.parametrize("content", ["a/b", "a b"])
    def test_answer(cassette: Cassette, content):
        assert ask(cassette, content)["object"] == "chat.completion"

    def test_swallowed(cassette):
        if cassette.mode != "record":
            with pytest.raises(LookupError):
                ask(cassette, "not recorded")

    @pytest.mark.cassette(path="own", scrub=[r"name \\w+"])
    def test_marked(cassette):
        ask(cassette, "name Ada")
        assert cassette.path.name == "own"
"""


def run_pytest(folder: Path, *arguments: str) -> tuple[int, str]:
    """Runs the tests in a folder in a process of its own."""
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "-c",
            "/dev/null",
            "--rootdir",
            ".",
            *arguments,
        ],
        check=False,
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'integrations'}", "PYTHONWARNINGS": "error", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stdout + ended.stderr


def outcomes(text: str) -> Sequence[str]:
    """How many passed, failed and so on."""
    return re.findall(r"\d+ (?:passed|failed|error)", text.splitlines()[-1])


def test_tests_of_one_name_in_two_classes_have_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["aurelis.cache.testing.pytest_plugin"]\n')
    tests = """
    class TestOne:
        def test_it(self, cassette):
            print(f"<{cassette.path}>")

    class TestTwo:
        def test_it(self, cassette):
            print(f"<{cassette.path}>")
    """
    (tmp_path / "test_it.py").write_text(textwrap.dedent(tests))
    status, text = run_pytest(tmp_path, "-s")
    assert status == 0, text
    folders = re.findall("<(.*)>", text)
    assert len(set(folders)) == len(folders) == 2


def test_the_fixture_records_and_replays_by_test(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["aurelis.cache.testing.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS.format(url=upstream.url + PATH, key=KEY)))
    status, text = run_pytest(tmp_path, "--cassette-mode=record")
    assert (status, outcomes(text)) == (0, ["4 passed"]), text
    assert upstream.calls == 3
    folders = {folder.name for folder in (tmp_path / "cassettes" / "test_it").iterdir()}
    assert len(folders) == 2
    assert all(re.fullmatch(r"test_answer-a-b-[0-9a-f]{8}", name) for name in folders)
    assert "Ada" not in "".join(file.read_text() for file in tmp_path.rglob("*.json"))

    status, text = run_pytest(tmp_path)
    assert (status, outcomes(text)) == (1, ["4 passed", "1 error"]), text
    assert "nothing is recorded in" in text  # the call whose error the test has caught
    assert upstream.calls == 3
