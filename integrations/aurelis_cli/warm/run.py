"""Sends the calls, says what became of them."""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

import httpx2

from aurelis.cache import CacheConfig, CacheManager, UnifiedCacheManager
from aurelis.cache.warming import NotWarmed, Warming, WarmReport
from aurelis_httpx2 import AsyncCacheTransport

from .lines import Call, LineError, calls

NAME: Final = "warm"
"""Name of the cache in telemetry and in `Cache-Status`."""
_SHOWN: Final = 20
"""Lines that are named at most for each reason."""
_PATIENCE: Final = 5.0
"""Seconds that the cache may take: nobody waits for this but whoever warms it."""
_INTERRUPTED: Final = 130
_WRONG: Final = 2


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be done.

    Attributes:
        file: the calls.
        base_url: of the API.
        headers: fields of each call, credentials among them.
        config: of the cache, without memory: a call is warm when others can find its answer.
        ttl: seconds that an answer lives.
        namespace: of the calls; `None`: none.
        share_across_credentials: as of the transport that is to find the answers.
        concurrency: calls at a time.
        timeout: seconds that a part of an answer may take.
        progress: a bar is drawn.
    """

    file: Path
    base_url: str = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)
    config: CacheConfig
    ttl: float
    namespace: str | None
    share_across_credentials: bool
    concurrency: int
    timeout: float
    progress: bool


def without_memory(config: CacheConfig) -> CacheConfig | None:
    """The configuration of the layers that others can see, with more patience; `None`: there are none.

    Raises:
        ConfigurationError: such a cache cannot be.
    """
    layers = [layer for layer in config.effective_layers() if layer.backend != "memory"]
    return replace(config, layers=layers, copy=True, timeout=_PATIENCE) if layers else None


def run(options: Options) -> int:
    """Warm; returns the exit status: 0: all is there; 1: something is not; 2: the file is wrong; 130: interrupted."""
    wrong = total = 0
    try:
        # Before anything is paid for.
        for call in calls(options.file, options.base_url):
            total += 1
            if isinstance(call, LineError):
                wrong += 1
                if wrong <= _SHOWN:
                    print(f"aurelis-cache: {options.file}: {call}", file=sys.stderr)
    except OSError as error:
        print(f"aurelis-cache: cannot read {options.file}: {error.strerror}", file=sys.stderr)
        return _WRONG
    if wrong:
        if wrong > _SHOWN:
            print(f"aurelis-cache: and {wrong - _SHOWN} lines more; nothing was sent", file=sys.stderr)
        return _WRONG
    warmer = _Warmer(options, total)
    try:
        asyncio.run(warmer.run())
    except (LineError, OSError):
        warmer.tell()
        print(f"aurelis-cache: {options.file} has changed meanwhile", file=sys.stderr)
        return _WRONG
    except KeyboardInterrupt:
        warmer.tell()
        print("aurelis-cache: interrupted; run it again to go on", file=sys.stderr)
        return _INTERRUPTED
    warmer.tell()
    return 1 if warmer.stopped or warmer.report().failures else 0


class _Warmer:
    """One run.

    Attributes:
        stopped: why it was given up; empty: it was not.
    """

    def __init__(self, options: Options, total: int) -> None:
        self._options = options
        self._lines = array("Q")  # of the calls so far: a failure is told by its line
        self.stopped = ""
        self._warming = Warming(
            self._calls(), self._warm, concurrency=options.concurrency, total=total, progress=options.progress
        )

    def report(self) -> WarmReport:
        """What has become of the calls so far."""
        return self._warming.report()

    async def run(self) -> None:
        """Send all calls whose answer is not there."""
        options = self._options
        async with CacheManager(options.config) as manager:
            self._cache = UnifiedCacheManager(manager)
            await self._look()
            transport = AsyncCacheTransport(
                cache=manager,
                ttl=options.ttl,
                namespace=options.namespace,
                share_across_credentials=options.share_across_credentials,
            )
            timeout = httpx2.Timeout(options.timeout)
            headers = [*options.headers, ("content-type", "application/json")]
            async with httpx2.AsyncClient(transport=transport, headers=headers, timeout=timeout) as self._client:
                await self._warming.run()

    def tell(self) -> None:
        """Print what has become of the calls."""
        report = self.report()
        print(f"{report.warmed} warmed, {report.fresh} fresh already, {len(report.failures)} failed")
        reasons: dict[str, list[int]] = {}
        for failure in report.failures:
            reasons.setdefault(failure.reason, []).append(self._lines[failure.number - 1])
        for reason, lines in reasons.items():
            named = ", ".join(map(str, islice(lines, _SHOWN)))
            more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            print(f"  {reason}: {'lines' if len(lines) > 1 else 'line'} {named}{more}", file=sys.stderr)
        if self.stopped:
            print(f"aurelis-cache: given up: {self.stopped}", file=sys.stderr)

    def _calls(self) -> Iterator[Call]:
        for call in calls(self._options.file, self._options.base_url):
            if self.stopped:
                return
            if isinstance(call, LineError):
                raise call  # it was right before: somebody is writing the file
            self._lines.append(call.line)
            yield call

    async def _warm(self, call: Call) -> bool:
        """Whether the answer had to be asked for."""
        response = await self._client.post(call.url, content=call.body)
        if _is_hit(response):
            return False
        if response.status_code != 200:
            if response.status_code == 401:
                self.stopped = "the API refuses the credentials"
            raise NotWarmed(f"status {response.status_code}")
        # Only the cache knows whether it has kept the answer; nobody is asked for this but the cache.
        extensions = {"aurelis": {"only_if_cached": True}}
        async with self._client.stream("POST", call.url, content=call.body, extensions=extensions) as found:
            if _is_hit(found):
                return True
        await self._look()
        raise NotWarmed("answered, and not kept: cut short, filtered, unfinished, or too large")

    async def _look(self) -> None:
        """Give up if the cache takes nothing: each further call would be paid for in vain."""
        if not await self._cache.set(NAME, "probe", True, ttl=60):
            self.stopped = "the cache cannot be reached"


def _is_hit(response: httpx2.Response) -> bool:
    """Whether our own cache had the answer; others before it may have said something, too."""
    return response.headers.get("cache-status", "").rpartition(", ")[2].startswith(f"{NAME}; hit")
