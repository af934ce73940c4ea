"""`aurelis-cache top` over real processes, and over endpoints that do not do what they should."""

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import httpx2
import pytest
from typer.testing import CliRunner

from aurelis.cache.telemetry import names
from aurelis_cli.commands import app
from aurelis_cli.demo.metrics import label, series
from aurelis_cli.top import run as running
from aurelis_cli.top.figures import CacheFigures, figures
from aurelis_cli.top.run import Options, Top
from tests.cli.exporting import Exporting, exporting
from tests.conftest import ROOT
from tests.managers import WITHIN
from tests.servers import free_port

HOST = "127.0.0.1"
COMMAND = [sys.executable, "-m", "aurelis_cli", "top", "--interval", "0.1"]
# How large a terminal is says the terminal, unless somebody has said so before, as some runners of tests do.
_ELSEWHERE = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
ENVIRON = {**_ELSEWHERE, "PYTHONPATH": f"{ROOT}/src:{ROOT}/integrations", "TERM": "xterm"}


def said(*options: str, environ: Mapping[str, str] = ENVIRON) -> subprocess.CompletedProcess[str]:
    """Run it to its end, without a terminal."""
    return subprocess.run(
        [*COMMAND, *options], env=dict(environ), capture_output=True, text=True, check=False, timeout=WITHIN
    )


def down() -> str:
    """An endpoint where nobody listens."""
    return f"http://{HOST}:{free_port()}/metrics"


@pytest.fixture(scope="module")
def web() -> Iterator[Exporting]:
    """A process with 8 hits, 1 load and 3 misses."""
    with exporting("web") as process:
        process.hit(9)
        process.miss(3)
        yield process


@asynccontextmanager
async def following(*urls: str) -> AsyncIterator[Top]:
    """What looks at these endpoints."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        yield Top(Options(urls=urls), client)


def found_by(top: Top) -> list[CacheFigures]:
    """What it shows."""
    return figures([endpoint.reading() for endpoint in top._endpoints])


def test_a_table_is_printed_where_there_is_no_terminal(web: Exporting) -> None:
    result = said("--url", web.url)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].rstrip() == "1 of 1 endpoints answer"
    assert lines[2].startswith("cache")
    assert lines[3].startswith("web")
    assert lines[3].split()[-3:] == ["12", "66.7", "%"]


def test_a_name_that_no_cache_has_is_told_apart_from_no_caches(web: Exporting) -> None:
    ran = said("--url", web.url, "--once", "--cache", "wbe")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "no cache of such a name is reported there" in ran.stdout


def test_several_endpoints_and_one_that_is_down_as_json(web: Exporting) -> None:
    with exporting("models") as models:
        models.hit(2)
        result = said("--json", "--url", web.url, "--url", down(), "--url", models.url)
        assert (result.returncode, result.stderr) == (0, "")
        told = json.loads(result.stdout)
        problems = [endpoint["problem"] for endpoint in told["endpoints"]]
        assert problems == [None, "cannot be reached", None]
        assert {cache["name"]: cache["requests_total"] for cache in told["caches"]} == {"models": 2, "web": 12}
        only = json.loads(said("--json", "--cache", "models", "--url", web.url, "--url", models.url).stdout)
        assert [cache["name"] for cache in only["caches"]] == ["models"]


def test_without_an_endpoint_that_answers_it_ends_with_1() -> None:
    result = said("--once", "--url", down())
    assert result.returncode == 1
    assert "0 of 1 endpoints answer" in result.stdout


def test_without_a_url_it_looks_where_the_exporter_listens(web: Exporting) -> None:
    environ = {**ENVIRON, "OTEL_EXPORTER_PROMETHEUS_HOST": HOST, "OTEL_EXPORTER_PROMETHEUS_PORT": str(web.port)}
    assert json.loads(said("--json", environ=environ).stdout)["caches"][0]["requests_total"] == 12


@pytest.mark.parametrize("host", ["::1", "::"])
def test_the_exporter_may_listen_by_version_6(host: str) -> None:
    port = str(free_port())
    environ = {**ENVIRON, "OTEL_EXPORTER_PROMETHEUS_HOST": host, "OTEL_EXPORTER_PROMETHEUS_PORT": port}
    result = said("--once", environ=environ)
    assert (result.returncode, result.stderr) == (1, "")
    assert f"[{host}]:{port}: cannot be reached" in result.stdout


async def test_a_name_cannot_command_the_terminal_through_json() -> None:
    """U+009B begins a command as ESC does, and U+202E turns what follows around."""
    name = "we\x9b2J\u202eb"
    body = f'{series(names.REQUESTS)}{{{label(names.NAME)}="{name}"}} 1\n'
    async with listening(answered(body.encode())) as url:
        result = await asyncio.to_thread(said, "--json", "--url", url)
    assert result.stdout.isascii()
    assert [cache["name"] for cache in json.loads(result.stdout)["caches"]] == [name]


async def test_rates_over_two_workers_and_a_restart() -> None:
    """The process that begins again counts from zero; what it shows goes on."""
    port = free_port()
    with exporting("web") as one, exporting("web", port) as two:
        async with following(one.url, two.url) as top:
            one.hit(11)
            two.hit(21)
            await top.look()
            one.miss(5)
            await top.look()
            (found,) = found_by(top)
            assert (found.requests_total, found.hit_ratio) == (37, 0.0)
            assert found.requests > 0
            two.end()
            await top.look()
            assert list(top._problems().values()) == ["cannot be reached"]
            assert top.answers()
            (found,) = found_by(top)
            assert (found.requests_total, found.layers[0].entries) == (37, 1)
            with exporting("web", port) as again:
                again.hit(4)
                await top.look()
                (found,) = found_by(top)
                assert not top._problems()
                assert (found.requests_total, found.layers[0].entries) == (41, 2)


@asynccontextmanager
async def listening(answer: Callable[[asyncio.StreamWriter], None]) -> AsyncIterator[str]:
    """An endpoint that answers so to each request, and leaves the connection open; gives its URL."""
    writers = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        answer(writer)

    server = await asyncio.start_server(talk, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/metrics"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


def answered(body: bytes, status: str = "200 OK") -> Callable[[asyncio.StreamWriter], None]:
    """A whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda writer: writer.write(head + body)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda _: None, "no answer within 0.3 s"),
        (lambda writer: writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n# a"), "no answer within 0.3 s"),
        (answered(b"", "404 Not Found"), "answers 404"),
        (answered(b"", "302 Found"), "answers 302"),
        (answered(b"<html>not metrics</html>"), "its answer is not in the text format of Prometheus"),
        (answered(b"\xff\xfe"), "its answer is not in the text format of Prometheus"),
        (answered(b"# " + b"x" * 5000), "its answer is larger than 0 MiB"),
        (lambda writer: writer.write(b"SSH-2.0-OpenSSH\r\n\r\n"), "does not speak HTTP"),
    ],
    ids=["silent", "slow", "404", "redirect", "html", "no-text", "large", "other-protocol"],
)
async def test_an_endpoint_that_fails_is_named_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
    web: Exporting,
    answer: Callable[[asyncio.StreamWriter], None],
    problem: str,
) -> None:
    monkeypatch.setattr(running, "DEADLINE", 0.3)
    monkeypatch.setattr(running, "MAX_BYTES", 4096)
    async with listening(answer) as bad, following(bad) as top:
        await top.look()
        assert list(top._problems().values()) == [problem]
    monkeypatch.setattr(running, "MAX_BYTES", 2**20)
    async with listening(lambda _: None) as bad, following(bad, web.url) as top:
        task = asyncio.create_task(top.follow())
        async with asyncio.timeout(WITHIN):
            while not top.answers():
                await asyncio.sleep(0.01)
        assert [cache.requests_total for cache in found_by(top)] == [12]
        task.cancel()
        await asyncio.wait([task])


async def test_credentials_are_sent_and_not_shown() -> None:
    heads = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        answered(b"", "403 Forbidden")(writer)
        writer.close()

    server = await asyncio.start_server(talk, HOST, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://user:hunter2@{HOST}:{port}/metrics"
        result = await asyncio.to_thread(said, "--url", url)
    assert b"authorization: basic" in heads[0].lower()
    assert f"{HOST}:{port}: answers 403" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("url", ["ftp://user:hunter2@a", "http://", "a:1", "http://user:hunter2@a:99x/", "http://a/#b"])
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    result = CliRunner().invoke(app, ["top", "--url", url])
    assert result.exit_code == 2
    assert "--url" in result.stderr
    assert "hunter2" not in result.output + result.stderr


def test_without_the_extra_it_says_which_one_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurelis_cli.commands.TOP", ("surely_absent",))
    assert CliRunner().invoke(app, ["top"]).exit_code == 1


class Terminal:
    """The command in a terminal; make it with `in_a_terminal`."""

    def __init__(self, *options: str, lines: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 100, 0, 0))
        os.set_blocking(self._master, False)
        self.process = subprocess.Popen(
            [*COMMAND, *options], env=ENVIRON, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.text = ""

    def until(self, condition: Callable[[str], object]) -> str:
        """Read until something is true of all that has come."""
        deadline = time.monotonic() + WITHIN
        while not condition(self.text):
            assert time.monotonic() < deadline, repr(self.text)
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self._master, 65536).decode(errors="replace")
                except OSError:  # the process has closed its side
                    assert condition(self.text), self.text
        return self.text

    def end(self) -> None:
        """Kill it if it has not ended."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def in_a_terminal(*options: str, lines: int = 24) -> Iterator[Terminal]:
    """It is gone at the end."""
    terminal = Terminal(*options, lines=lines)
    try:
        yield terminal
    finally:
        terminal.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_a_terminal_it_goes_on_until_it_is_told_to_end(web: Exporting, number: signal.Signals) -> None:
    with in_a_terminal("--url", web.url, "--url", down()) as terminal:
        terminal.until(lambda text: len(re.findall(r"1 of 2 endpoints answer", text)) > 3 and "web" in text)
        terminal.process.send_signal(number)
        assert terminal.process.wait(WITHIN) == 0
        text = terminal.until(lambda text: "l1" in text.partition("\x1b[?1049l")[2])
    screen, _, after = text.partition("\x1b[?1049l")
    assert "\x1b[?1049h" in screen  # a screen of its own, and back again
    assert "\x1b[?25h" in text.rpartition("\x1b[?25l")[2]  # the cursor is there again
    assert "web" in after
    assert "Traceback" not in text


def test_a_low_terminal_says_what_it_does_not_show(web: Exporting) -> None:
    with exporting("another") as other, in_a_terminal("--url", web.url, "--url", other.url, lines=8) as terminal:
        terminal.until(lambda text: "2 more: a taller terminal" in text)


def test_an_endpoint_that_comes_back_is_shown_again() -> None:
    port = free_port()
    with in_a_terminal("--url", f"http://{HOST}:{port}") as terminal:
        terminal.until(lambda text: "cannot be reached" in text)
        with exporting("late", port) as late:
            late.hit(2)
            terminal.until(lambda text: "late" in text)
        terminal.until(lambda text: "cannot be reached" in text.rpartition("1 of 1 endpoints answer")[2])
