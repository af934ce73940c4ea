"""Asks endpoints again and again, and shows what they say."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx2
from rich.console import Console, RenderableType
from rich.live import Live

from .figures import CacheFigures, figures
from .readings import Endpoint, parsed
from .screen import document, drawn

DEADLINE: Final = 5.0
"""Seconds after which an endpoint has not answered."""
MAX_BYTES: Final = 16 * 2**20
"""Of one answer."""
_WIDE: Final = 1000
"""Characters in a line where nobody looks at a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for."""

    urls: Sequence[str]
    interval: float = 2.0
    """Seconds between two looks."""
    once: bool = False
    json: bool = False
    """Print a document in place of tables; once."""
    caches: Sequence[str] = ()
    """Names of those to show; empty: all."""


class TooLargeError(Exception):
    """An answer is larger than metrics are."""


def shown_names(urls: Sequence[str]) -> list[str]:
    """What endpoints are called: without what may be a credential, and the usual path. Each has a name of its own."""
    names: list[str] = []
    for url in urls:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        where = f"{host}:{parts.port}" if parts.port else f"{host}"
        name = where if parts.path in ("", "/", "/metrics") else f"{where}{parts.path}"
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names


class Top:
    """Follows endpoints.

    Args:
        client: is not closed here.
    """

    def __init__(self, options: Options, client: httpx2.AsyncClient) -> None:
        self._options = options
        self._client = client
        self._names = shown_names(options.urls)
        self._endpoints = [Endpoint() for _ in options.urls]

    async def look(self) -> None:
        """Ask each endpoint once."""
        await asyncio.gather(*(self._ask(*pair) for pair in zip(self._options.urls, self._endpoints, strict=True)))

    async def follow(self) -> None:
        """Ask each endpoint for ever; one that does not answer keeps no other waiting."""
        async with asyncio.TaskGroup() as tasks:
            for url, endpoint in zip(self._options.urls, self._endpoints, strict=True):
                tasks.create_task(self._follow(url, endpoint))

    def answers(self) -> bool:
        """Whether an endpoint could be read the last time."""
        return any(not endpoint.problem for endpoint in self._endpoints)

    def drawn(self, width: int, height: int | None = None) -> RenderableType:
        """Tables; with a height, what it has room for."""
        chosen = bool(self._options.caches)
        return drawn(self._figures(), self._problems(), len(self._names), width, height, chosen=chosen)

    def document(self) -> str:
        """JSON."""
        # In ASCII: a terminal may take for commands what JSON leaves as it is.
        return json.dumps(document(self._figures(), self._problems(), self._names))

    def _figures(self) -> list[CacheFigures]:
        return figures([endpoint.reading() for endpoint in self._endpoints], self._options.caches)

    def _problems(self) -> Mapping[str, str]:
        pairs = zip(self._names, self._endpoints, strict=True)
        return {name: endpoint.problem for name, endpoint in pairs if endpoint.problem}

    async def _follow(self, url: str, endpoint: Endpoint) -> None:
        while True:
            began = time.monotonic()
            await self._ask(url, endpoint)
            await asyncio.sleep(max(self._options.interval - (time.monotonic() - began), 0.05))

    async def _ask(self, url: str, endpoint: Endpoint) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                text = await self._read(url)
            at = time.monotonic()
            endpoint.take(at, await asyncio.to_thread(parsed, text))
        except (TimeoutError, httpx2.TimeoutException):
            endpoint.fail(f"no answer within {DEADLINE:g} s")
        except httpx2.HTTPStatusError as error:
            endpoint.fail(f"answers {error.response.status_code}")
        except httpx2.HTTPError as error:
            endpoint.fail(_REASONS.get(type(error), type(error).__name__))
        except TooLargeError:
            endpoint.fail(f"its answer is larger than {MAX_BYTES // 2**20} MiB")
        except Exception:  # noqa: BLE001  # the parser raises what comes to it when the text is something else
            endpoint.fail("its answer is not in the text format of Prometheus")

    async def _read(self, url: str) -> str:
        body = bytearray()
        async with self._client.stream("GET", url, headers={"Accept": "text/plain;version=0.0.4"}) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise TooLargeError
        return body.decode()


_REASONS: Final[Mapping[type[Exception], str]] = {
    httpx2.ConnectError: "cannot be reached",
    httpx2.RemoteProtocolError: "does not speak HTTP",
}


def run(options: Options, console: Console | None = None) -> int:
    """Show what the endpoints say: live in a terminal until Ctrl-C, once elsewhere.

    Returns:
        The exit status: 0, or 1 if it was for once and no endpoint could be read.
    """
    return asyncio.run(_run(options, Console() if console is None else console))


async def _run(options: Options, console: Console) -> int:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    limits = httpx2.Timeout(DEADLINE)
    try:
        async with httpx2.AsyncClient(timeout=limits, trust_env=False, follow_redirects=False) as client:
            top = Top(options, client)
            if options.once or options.json or not console.is_terminal:
                return await _once(top, options, console)
            await _live(top, options, console)
    except asyncio.CancelledError:
        pass  # the user has seen enough
    return 0


async def _once(top: Top, options: Options, console: Console) -> int:
    # Rates need two looks.
    await top.look()
    if top.answers():
        await asyncio.sleep(options.interval)
        await top.look()
    if options.json:
        sys.stdout.write(f"{top.document()}\n")
    else:
        if not console.is_terminal:
            console.width = _WIDE
        console.print(top.drawn(console.width), highlight=False)
    return 0 if top.answers() else 1


async def _live(top: Top, options: Options, console: Console) -> None:
    following = asyncio.create_task(top.follow())
    try:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            pause = 0.1  # the first answers are shown at once
            while not following.done():
                live.update(top.drawn(console.width, console.height), refresh=True)
                pause = min(2 * pause, options.interval)
                await asyncio.sleep(pause)
        await following
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        console.print(top.drawn(console.width), highlight=False)
