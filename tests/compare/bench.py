"""One cache before one provider, and what a probe of it comes to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tests.client.model_server import Model
from tests.client.upstream import Asked, Gate, Reply, Server, Upstream
from tests.managers import WITHIN
from tests.models.wire import WIRES, Wire

if TYPE_CHECKING:
    from tests.compare.subjects import Piece, Subject

SETTLING: Final = 0.1
"""Seconds after a call in which a cache that stores in the background may do so."""
LASTING: Final = [("cache-control", "max-age=3600")]
"""All that the provider says may be kept. Real ones do not say so, but some caches need it."""


PASSED, VOID = "pass", "void"
"""Of a probe: it was done right, or meant nothing, since the cache keeps no such calls."""


class WrongError(AssertionError):
    """What a cache did wrong."""


def require(condition: bool, what: str) -> None:
    """Raises `WrongError` unless it is so."""
    if not condition:
        raise WrongError(what)


class Bench:
    """One cache before one provider, with nothing stored."""

    def __init__(self, subject: Subject, server: Server, settling: float = SETTLING) -> None:
        self.subject, self._server, self._settling = subject, server, settling
        self.upstream = self.another()

    def another(self) -> Upstream:
        """One more provider."""
        upstream = self._server.part()
        self.speak(upstream, WIRES["OPENAI_CHAT"])
        return upstream

    def speak(self, upstream: Upstream, wire: Wire, *faults: str, gate: Gate | None = None, held: int = 1) -> None:
        """What a provider answers from now on; `gate` holds back so many of a stream's last chunks."""
        model = Model(wire, frozenset(faults), gate, held)

        def answer(asked: Asked) -> Reply:
            reply = model(asked)
            return replace(reply, headers=[*reply.headers, *LASTING])

        upstream.answer = answer

    async def chat(self, upstream: Upstream | None = None, **call: Any) -> list[Piece]:
        """A chat completion, and time for the cache to store it."""
        answer = await self.subject.chat((upstream or self.upstream).url, **call)
        await self.settle()
        return answer

    async def settle(self) -> None:
        """Time for the cache to store what has come."""
        await asyncio.sleep(self._settling)

    async def stored(self, **call: Any) -> list[Piece]:
        """A chat completion that is answered from the cache afterwards."""
        answer = await self.chat(**call)
        await self.chat(**call)
        require(self.upstream.calls == 1, "the call itself was not stored")
        return answer

    async def in_spite(self, call: Callable[[], Awaitable[object]]) -> None:
        """A call that may fail."""
        with contextlib.suppress(Exception):
            await call()
        await self.settle()


@dataclass(frozen=True)
class Probe:
    """One question.

    Attributes:
        needs: the probe that a cache must have passed for this one to mean anything.
    """

    group: str
    name: str
    run: Callable[[Bench], Awaitable[None]]
    needs: str = ""


async def asked(probe: Probe, subject: Subject, server: Server, settling: float = SETTLING) -> str:
    """What a cache did: `PASSED`, or what was wrong."""
    await subject.open()
    try:
        async with asyncio.timeout(WITHIN):
            await probe.run(Bench(subject, server, settling))
    except WrongError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # whatever it is, the caller did not get an answer
        return f"raised {type(error).__name__}"
    finally:
        await subject.aclose()
    return PASSED
