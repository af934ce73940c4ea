"""How a test of a layer runs: with any test runner, in an event loop of its own, and naming what was promised."""

from __future__ import annotations

import asyncio
import functools
import inspect
import reprlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, NoReturn, TypeVar

from aurelis.cache._clock import Clock
from aurelis.cache._entry import NO_DETAILS, Details, Entry
from aurelis.cache.codecs import ValueCodec, is_immutable
from aurelis.cache.http import StoredResponse, VariantIndex
from aurelis.cache.typing import Layer

from ._time import ManualClock

CODEC: Final = ValueCodec((StoredResponse, VariantIndex))
SLACK: Final = 1.0
"""Seconds by which a layer may round a life."""

_SOON: Final = 0.002
"""Seconds between two looks at something that is to become true."""

L = TypeVar("L", bound=Layer)
C = TypeVar("C", bound="Contract")


class Trial:
    """One run of one test.

    Args:
        real: time passes by itself.

    Attributes:
        clock: of the layers.
        broken: what to say of the layer if the time for the test is over.
    """

    def __init__(self, stack: AsyncExitStack, *, real: bool) -> None:
        self.clock: Clock = Clock() if real else ManualClock()
        self.broken = "A call has not been answered."
        self._stack = stack
        self._began = self.clock.monotonic()

    @property
    def delay(self) -> float:
        """Seconds by which a store that counts from its own now may be late."""
        return 0.0 if isinstance(self.clock, ManualClock) else self.clock.monotonic() - self._began

    def use(self, layer: L) -> L:
        """The layer, which is closed at the end."""
        self._stack.push_async_callback(layer.aclose)
        return layer

    def entry(
        self,
        value: object = "value",
        life: float = 60.0,
        *,
        stale_for: float = 0.0,
        generation: int = 0,
        details: Details = NO_DETAILS,
    ) -> Entry:
        """An entry as a manager gives it to a layer: with its packed form, and without its size."""
        now = self.clock.monotonic()
        return Entry(value, CODEC.dumps(value), now + life, now + life + stale_for, 0, generation, details)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)
        else:
            await asyncio.sleep(seconds)

    async def becomes(self, condition: Callable[[], Coroutine[Any, Any, bool]], broken: str) -> None:
        """Fail unless it is true: at once where time stands still; otherwise the layer may be a little late."""
        __tracebackhide__ = True
        with self.says(broken):
            while not await condition():
                if isinstance(self.clock, ManualClock):
                    fail(broken)
                await asyncio.sleep(_SOON)

    @contextmanager
    def says(self, broken: str) -> Iterator[None]:
        """What to say if the time is over meanwhile."""
        before, self.broken = self.broken, broken
        yield
        self.broken = before


class Contract:
    """How the tests of a layer get it, and how they run.

    Attributes:
        real_time: the layer cannot go by a manual clock, since something that it stands on has a clock of its own. Then
            the tests wait, and a layer may be a moment late.
        patience: seconds that a test may take.
    """

    real_time = False
    patience = 30.0

    async def make_layer(self, clock: Clock) -> Layer:
        """An empty layer, which the test closes; to be overridden.

        Args:
            clock: by which it tells time: a `ManualClock`, with `real_time` that of the system.
        """
        raise NotImplementedError(f"{type(self).__name__} must have a make_layer that returns an empty layer")

    async def make_neighbour(self, clock: Clock) -> Layer | None:
        """A layer of another cache in the same store as the last one of `make_layer`; `None`: there is no such thing.

        To be overridden where several caches share a store, each with a namespace of its own.
        """
        return None

    def run_in_loop(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test; to be overridden for another kind of event loop."""
        asyncio.run(test)

    async def _layer(self, trial: Trial) -> Layer:
        return trial.use(await self.make_layer(trial.clock))


def promise(test: Callable[[C, Trial], Coroutine[Any, Any, None]]) -> Callable[[C], None]:
    """Make a test of a coroutine whose docstring says what a layer promises."""
    promised = inspect.cleandoc(test.__doc__ or test.__name__)

    @functools.wraps(test)
    def run(self: C) -> None:
        __tracebackhide__ = True
        try:
            self.run_in_loop(_attempt(self, test))
        except AssertionError as error:
            trace = _from_test(error, test)
            raise AssertionError(f"A layer promises: {promised}\n{error}").with_traceback(trace) from error.__cause__
        except Exception as error:
            error.add_note(f"A layer promises: {promised}")
            error.__traceback__ = _from_test(error, test)
            raise

    del run.__wrapped__  # otherwise a runner would look for the trial among its fixtures
    return run


async def _attempt(contract: C, test: Callable[[C, Trial], Coroutine[Any, Any, None]]) -> None:
    trial: Trial | None = None
    try:
        async with asyncio.timeout(contract.patience) as limit, AsyncExitStack() as stack:
            trial = Trial(stack, real=contract.real_time)
            await test(contract, trial)
    except TimeoutError as error:
        if trial is None or not limit.expired():
            raise
        raise AssertionError(f"After {contract.patience} s: {trial.broken}") from error


def _from_test(error: BaseException, test: Callable[..., object]) -> TracebackType | None:
    """The traceback without what is between the test runner and the test."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not test.__code__:
        trace = trace.tb_next
    return trace or error.__traceback__


def expect(kept: object, broken: str) -> None:
    """Fail unless something is true.

    Args:
        broken: what the layer did instead.
    """
    __tracebackhide__ = True
    if not kept:
        fail(broken)


def fail(broken: str) -> NoReturn:
    """Fail, saying what the layer did."""
    __tracebackhide__ = True
    raise AssertionError(broken)


def expect_methods(layer: object, protocol: type) -> None:
    """Fail unless a layer has everything that a protocol names."""
    __tracebackhide__ = True
    missing = [name for name in dir(protocol) if not name.startswith("_") and not hasattr(layer, name)]
    expect(not missing, f"For a {protocol.__name__}, {type(layer).__name__} lacks {', '.join(missing)}.")


def expect_value(found: Entry | None, value: object, where: str) -> Entry:
    """The entry, if it holds the value; fail otherwise.

    Args:
        where: what gave the entry.
    """
    __tracebackhide__ = True
    if found is None:
        fail(f"{where} gave nothing where {reprlib.repr(value)} was stored.")
    if type(found.value) is not type(value) or found.value != value:
        fail(f"{where} gave {reprlib.repr(found.value)} where {reprlib.repr(value)} was stored.")
    # Memory above keeps the packed form of what readers could change, from which each gets a value of its own.
    if not is_immutable(value) and (found.payload is None or CODEC.loads(found.payload) != value):
        fail(f"{where} gave {reprlib.repr(value)}, which readers can change, without its packed form.")
    return found


async def expect_nothing(layer: Layer, key: str) -> None:
    """Fail if anything is under the key."""
    __tracebackhide__ = True
    found = await layer.lookup(key)
    expect(found is None, f"lookup gave {found!r} where nothing is.")
    many = await layer.lookup_many([key])
    expect(many == {}, f"lookup_many gave {many!r} where nothing is.")
    removed = await layer.remove(key)
    expect(removed is False, f"remove gave {removed!r} where nothing is.")


async def is_gone(layer: Layer, key: str) -> bool:
    """Whether nothing is found under the key."""
    return await layer.lookup(key) is None


def expect_life(trial: Trial, found: Entry | None, stored: Entry) -> None:
    """Fail unless an entry has the instants with which it was stored."""
    __tracebackhide__ = True
    if found is None:
        fail("What was stored is not found.")
    for name in ("fresh_until", "expires"):
        instant, right = getattr(found, name), getattr(stored, name)
        late = instant - right
        expect(-SLACK <= late <= SLACK + trial.delay, f"{name} came back as {instant}, where it was {right}.")


async def cancelled_anywhere(
    trial: Trial,
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]],
    check: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Cancel calls at different points of their way, and check after each of them that the layer works."""
    loop = asyncio.get_running_loop()
    for name, call in calls.items():
        for steps, seconds in [*((steps, 0.0) for steps in (0, 1, 2, 3, 5, 8, 13)), (0, 0.0002), (0, 0.001)]:
            task = loop.create_task(call())
            for _ in range(steps):
                await asyncio.sleep(0)
            if seconds:
                await asyncio.sleep(seconds)
            asked = task.cancel()
            with trial.says(f"{name} was cancelled, and has not ended."):
                await asyncio.wait((task,))
            if not task.cancelled() and (error := task.exception()) is not None:
                raise AssertionError(f"{name} was cancelled and raised {error!r}.") from error
            expect(task.cancelled() or not asked, f"{name} was cancelled, went on, and gave an answer.")
            await check()
