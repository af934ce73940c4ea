"""What does telemetry cost, compared with the same code without it?

The baseline of each table is our own code with telemetry taken out: the functions of the hot paths are compiled again
without the statements that count, and everywhere else a `Telemetry` takes its place that does nothing. So a ratio is
the price of all metrics, and within a trace that of spans and attributes, too. With telemetry off there is no SDK that
could be imported.

Beside a hit in memory stands what instruments of the SDK and a span would cost there, if each hit used them.

The number misleads as a share of a request: a server, a framework or a client around the cache takes many times as long
as a hit in memory, so that its share there is much smaller. Spans are exported to nowhere, so the cost of sending them
is not in it. Nor is that of collecting, which is told by itself: it happens aside, once in some seconds.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count as numbers
from pathlib import Path
from time import perf_counter
from types import FunctionType, MethodType
from typing import Any
from unittest import mock

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import aurelis.cache._assembly
import aurelis.cache._cache_manager
from aurelis.cache import CacheConfig, CacheLayer, CacheManager, cached
from aurelis.cache._computing import Computing
from aurelis.cache._engine import Engine
from aurelis.cache.exchange._answers import hit_of
from aurelis.cache.exchange._exchange import Exchange
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._cells import Cell
from aurelis.cache.telemetry.otel import Sizes, Telemetry, instrument
from tests import servers
from tests.benchmarks import apps, asgi_hit, l1_hit, transport_hit
from tests.benchmarks.harness import Bench, Subject, Target, always

_TELLING = {
    *("telemetry", "_telemetry", "_hit", "hit", "count", "_observes_hits", "count_memory_hit", "note", "observed"),
    *("saved", "span", "_count"),
}
"""Names of the hot paths by which a statement is known to count."""

Make = Callable[[Bench, str], Subject]
"""Makes a subject with this name, with the telemetry that is there at the time."""

OPERATIONS: dict[str, tuple[Make, int, int]] = {}
"""What is measured beside the hit in memory: how it is made, rounds, and operations of a round."""


def run(bench: Bench) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder, redis(bench, Path(folder)) as url:
        operations = dict(OPERATIONS)
        if url is not None:
            operations["get, hit in Redis"] = (lambda bench, name: l2_hit(bench, name, url), 15, 200)
        disk = Path(folder) / "disk"
        operations["get, hit on the disk"] = (lambda bench, name: l3_hit(bench, name, disk), 15, 200)
        compare(bench, operations)
        bench.end()  # as long as the server runs
        if bench.telemetry == "on":
            collect(bench)


def compare(bench: Bench, operations: Mapping[str, tuple[Make, int, int]]) -> None:
    """Print the tables, with Redis if it is there."""
    limit = 1.6 if bench.telemetry == "on" else 1.4
    bench.compare(
        "CacheManager.get, hit in memory",
        [
            bare_l1_hit(bench),
            outside(l1_hit.ours(bench, "all metrics", CacheConfig())),
            outside(l1_hit.ours(bench, "all metrics, span_attributes=False", CacheConfig(span_attributes=False))),
        ],
        {"all metrics": [Target(limit)], "all metrics, span_attributes=False": [Target(limit)]},
        rounds=200,
        count=500,
    )
    # In a table of its own: what takes so long leaves nothing of the others in the caches of the processor.
    bench.compare(
        "CacheManager.get, hit in memory, if each hit had a counter and a histogram",
        [bare_l1_hit(bench), outside(naive(bench, "a counter and a histogram"))],
        {},
        rounds=60,
        count=200,
    )
    for title, (make, rounds, count) in operations.items():
        bench.compare(
            title, [outside(silent(bench, make)), outside(make(bench, "all metrics"))], {}, rounds=rounds, count=count
        )
    if bench.telemetry == "off":
        return
    unsampled, sampled = traces()
    bench.compare(
        "CacheManager.get, hit in memory, within a trace",
        [
            bare_l1_hit(bench),
            within(unsampled, l1_hit.ours(bench, "not sampled", CacheConfig())),
            within(sampled, l1_hit.ours(bench, "sampled", CacheConfig())),
            within(sampled, l1_hit.ours(bench, "sampled, spans='all'", CacheConfig(spans="all"))),
        ],
        {},
        rounds=100,
        count=500,
    )
    bench.compare(
        "CacheManager.get, hit in memory, within a trace, if each hit had a span, a counter and a histogram",
        [
            bare_l1_hit(bench),
            within(unsampled, naive(bench, "not sampled", span=True)),
            within(sampled, naive(bench, "sampled", span=True)),
        ],
        {},
        rounds=60,
        count=200,
    )
    for title, (make, rounds, count) in operations.items():
        bench.compare(
            f"{title}, within a trace",
            [
                outside(silent(bench, make)),
                within(unsampled, make(bench, "not sampled")),
                within(sampled, make(bench, "sampled")),
            ],
            {},
            rounds=rounds,
            count=count,
        )


# Taking telemetry out


class _Silence(ast.NodeTransformer):
    """Drops the statements that count. Of those around others, only what counts goes, and then what is empty."""

    def __init__(self, telling: set[str]) -> None:
        self._telling = telling
        self.dropped = 0

    def visit(self, node: ast.AST) -> Any:
        """The node, or what is left of it."""
        match node:
            case ast.With(items=items) if any(map(self._tells, items)):
                self.dropped += 1
                return self._left(node.body)
            case ast.If(test=test) if not self._tells(test):
                node.body, node.orelse = self._left(node.body), self._left(node.orelse)
                if not node.body and not node.orelse:
                    return None
                node.body = node.body or [ast.Pass()]
                return node
            case ast.Try(handlers=[], orelse=[]):
                node.body, node.finalbody = self._left(node.body), self._left(node.finalbody)
                return node if node.finalbody else node.body
            case ast.With() | ast.For() | ast.While() | ast.Try() | ast.FunctionDef() | ast.AsyncFunctionDef():
                return self.generic_visit(node)
            case ast.stmt() if self._tells(node):
                self.dropped += 1
                return None
        return self.generic_visit(node)

    def _left(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        left: list[ast.stmt] = []
        for found in map(self.visit, statements):
            left += found if isinstance(found, list) else [] if found is None else [found]
        return left

    def _tells(self, node: ast.AST) -> bool:
        named = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        named |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        return bool(named & self._telling)


def compiled_out(
    function: Callable[..., Any], statements: int, telling: set[str] = _TELLING, **others: object
) -> FunctionType:
    """The function without its statements that count.

    Args:
        statements: how many there are: the benchmark is to break when the function has changed.
        telling: names by which they are known.
        others: what other names of its module stand for in it.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    silence = _Silence(telling)
    tree = ast.fix_missing_locations(silence.visit(tree))
    assert silence.dropped == statements, f"{function.__qualname__}: {silence.dropped} statements count"
    known = inspect.unwrap(function).__globals__
    space: dict[str, Any] = {}
    exec(compile(tree, inspect.getfile(function), "exec"), {**known, **others} if others else known, space)
    made = space[function.__name__]
    assert isinstance(made, FunctionType)
    return made


class _NoSizes(Sizes):
    """Records no sizes."""

    def __init__(self) -> None:
        """Of nothing."""

    def note(self, size: int) -> None:
        """Does nothing."""


class Silent(Telemetry):
    """Counts nothing, records nothing, makes no spans. Its methods are those of `Telemetry`, by what they return."""

    def __init__(self, name: str, **_options: Any) -> None:
        super().__init__(name, spans="none", span_attributes=False)


def _nothing(returns: str) -> Callable[..., Any]:
    if returns == "None" or returns.endswith("| None"):
        return lambda *_args, **_named: None
    if returns.startswith("AbstractContextManager"):
        none = contextlib.nullcontext()
        return lambda *_args, **_named: none
    if returns == "Sizes":
        sizes = _NoSizes()
        return lambda *_args, **_named: sizes
    assert returns == "Cell", f"what to return in place of {returns}?"
    cell = Cell()
    return lambda *_args, **_named: cell


for _name, _method in list(vars(Telemetry).items()):
    if isinstance(_method, FunctionType) and not _name.startswith("_") and not _name.startswith("saved_by"):
        setattr(Silent, _name, _nothing(_method.__annotations__["return"]))


class SilentEngine(Engine):
    """Its functions that answer from memory, or say that there is nothing, count nothing."""

    read_memory = compiled_out(Engine.read_memory, 4)
    get = compiled_out(Engine.get, 9)
    get_many = compiled_out(Engine.get_many, 8)

    def count_memory_hit(self, begin: float) -> object:
        """Nothing; who is not compiled anew calls it."""
        return False

    def note(self, *_args: Any, **_named: Any) -> None:
        """Nothing, likewise."""


class SilentComputing(Computing):
    """Its functions that load, or find what is loaded, count nothing."""

    get_or_compute = compiled_out(Computing.get_or_compute, 5, _TELLING | {"shared"})
    _from_memory = compiled_out(Computing._from_memory, 5, _TELLING | {"reason"})


_BARE_HIT = compiled_out(hit_of, 10, _TELLING | {"chunks", "size"})
_FRESH = compiled_out(Exchange.fresh, 2, {"count_memory_hit", "observed"}, hit_of=_BARE_HIT)
_FROM_MEMORY = compiled_out(
    Exchange._from_memory, 5, {"count_memory_hit", "lookup", "reason", "note"}, hit_of=_BARE_HIT
)


@contextlib.contextmanager
def taken_out() -> Iterator[None]:
    """What is made inside has no telemetry."""
    begin = Exchange.__init__

    def begin_silent(self: Any, *args: Any, **named: Any) -> None:
        begin(self, *args, **named)
        self.fresh, self._from_memory = MethodType(_FRESH, self), MethodType(_FROM_MEMORY, self)

    with (
        mock.patch.object(aurelis.cache._assembly, "Telemetry", Silent),
        mock.patch.object(aurelis.cache._assembly, "Engine", SilentEngine),
        mock.patch.object(aurelis.cache._cache_manager, "Computing", SilentComputing),
        mock.patch.object(Exchange, "__init__", begin_silent),
    ):
        yield


def silent(bench: Bench, make: Make) -> Subject:
    """A subject whose telemetry is taken out."""
    with taken_out():
        return make(bench, "without telemetry")


def bare_l1_hit(bench: Bench) -> Subject:
    """`CacheManager.get` that counts nothing."""
    return outside(silent(bench, lambda bench, name: l1_hit.ours(bench, name, CacheConfig())))


# What one would do without a second thought


def naive(bench: Bench, name: str, *, span: bool = False) -> Subject:
    """`CacheManager.get` that counts nothing, and around it what the SDK offers."""
    get = silent(bench, lambda bench, name: l1_hit.ours(bench, name, CacheConfig())).call
    meter = metrics.get_meter("benchmark")
    counter, histogram = meter.create_counter("benchmark.requests"), meter.create_histogram("benchmark.duration", "s")
    attributes = {names.NAME: "default", names.RESULT: names.HIT, names.LAYER: names.L1}

    async def counted(key: str) -> object:
        begin = perf_counter()
        value = await get(key)
        counter.add(1, attributes)
        histogram.record(perf_counter() - begin, attributes)
        return value

    async def traced(key: str) -> object:
        with trace.get_tracer("benchmark").start_as_current_span("get", attributes=attributes):
            return await counted(key)

    return Subject(name, traced if span else counted, always(l1_hit.KEY))


# Collecting


def collect(bench: Bench) -> None:
    """Print what a reader takes for one look at all that is counted here."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    instrument(MeterProvider([reader], shutdown_on_exit=False))
    times = []
    series = 0
    for _ in range(30):
        begin = perf_counter()
        data = reader.get_metrics_data()
        times.append(perf_counter() - begin)
        assert data is not None
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        series = sum(len(metric.data.data_points) for scope in scopes for metric in scope.metrics)
    bench.console.print(f"one collection of {series} series: {min(times) * 1e3:.2f} ms at best")


# Traces


def traces() -> tuple[Context, Context]:
    """A context whose span is not sampled and one whose span is, from now on with a provider that samples."""
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class _Nowhere(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            del spans
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    trace.set_tracer_provider(provider)
    away = NonRecordingSpan(SpanContext(trace_id=1, span_id=1, is_remote=False, trace_flags=TraceFlags(0)))
    here = provider.get_tracer("benchmark").start_span("request")
    return trace.set_span_in_context(away, Context()), trace.set_span_in_context(here, Context())


def within(context: Context, subject: Subject) -> Subject:
    """The subject, called in this context: tasks of one runner share theirs."""
    before = subject.before

    async def enter() -> None:
        otel_context.attach(context)
        if before is not None:
            await before()

    return Subject(subject.name, subject.call, subject.arguments, enter)


def outside(subject: Subject) -> Subject:
    """The subject, called without any context, as in an app that traces nothing."""
    return within(Context(), subject)


# Operations


def _operation(title: str, rounds: int, count: int) -> Callable[[Make], Make]:
    def keep(make: Make) -> Make:
        OPERATIONS[title] = make, rounds, count
        return make

    return keep


@_operation("@cached, hit in memory", 100, 300)
def decorated_hit(bench: Bench, name: str) -> Subject:
    """A function whose result is in memory."""

    @cached(ttl=3600, cache=CacheManager())
    async def square(number: int) -> str:
        return str(number * number)

    assert bench.wait(square(500)) == "250000"
    return Subject(name, square, always(500))


@_operation("get_or_compute, hit in memory", 100, 300)
def computed_hit(bench: Bench, name: str) -> Subject:
    """It was loaded once."""
    manager = CacheManager()

    async def compute() -> str:
        return l1_hit.VALUE

    async def get(key: str) -> str:
        return await manager.get_or_compute(key, compute)

    assert bench.wait(get(l1_hit.KEY)) == l1_hit.VALUE
    return Subject(name, get, always(l1_hit.KEY))


@_operation("get_many of 10 keys, hits in memory", 60, 200)
def many_hits(bench: Bench, name: str) -> Subject:
    """All are there."""
    manager = CacheManager()
    keys = [f"aurelis:user:{number}" for number in range(10)]
    bench.wait(manager.set_many(dict.fromkeys(keys, l1_hit.VALUE)))
    assert len(bench.wait(manager.get_many(keys))) == len(keys)
    return Subject(name, manager.get_many, always(keys))


@_operation("get, miss in memory alone", 60, 300)
def miss(_bench: Bench, name: str) -> Subject:
    """Nothing is there, and there is nobody else to ask."""
    return Subject(name, CacheManager().get, always("aurelis:nobody"))


@_operation("set, memory alone", 60, 300)
def store(_bench: Bench, name: str) -> Subject:
    """One key, again and again."""
    manager = CacheManager()

    async def set_one(value: str) -> None:
        await manager.set(l1_hit.KEY, value)

    return Subject(name, set_one, always(l1_hit.VALUE))


@_operation("delete, memory alone", 60, 300)
def delete(_bench: Bench, name: str) -> Subject:
    """Nothing is there."""
    return Subject(name, CacheManager().delete, always("aurelis:nobody"))


@_operation("get_or_compute, miss and load, memory alone", 40, 200)
def load(_bench: Bench, name: str) -> Subject:
    """A load that returns at once."""
    manager = CacheManager(CacheConfig(max_size=1000))
    number = numbers()

    async def compute() -> str:
        return l1_hit.VALUE

    return Subject(
        name,
        lambda key: manager.get_or_compute(key, compute),
        lambda count: [f"aurelis:{next(number)}" for _ in range(count)],
    )


@_operation("CacheMiddleware, hit in memory", 60, 200)
def web_hit(bench: Bench, name: str) -> Subject:
    """The call of a server, to the last message."""
    return asgi_hit.hitting(bench, name, apps.ours)


@_operation("transport of httpx2, POST of a chat completion, hit in memory", 40, 80)
def model_hit(bench: Bench, name: str) -> Subject:
    """The call of a client, to the parsed answer."""
    return transport_hit.posting(bench, name, transport_hit.ours("httpx2", True), True, calls=1)


def l2_hit(bench: Bench, name: str, url: str) -> Subject:
    """One call after the other, Redis alone."""
    manager = CacheManager(CacheConfig(layers=[CacheLayer("L2", "redis", ttl=3600)], redis_url=url))
    bench.at_end(manager.aclose)
    bench.wait(manager.set(l1_hit.KEY, l1_hit.VALUE))
    assert bench.wait(manager.get(l1_hit.KEY)) == l1_hit.VALUE
    return Subject(name, manager.get, always(l1_hit.KEY))


def l3_hit(bench: Bench, name: str, folder: Path) -> Subject:
    """The same, the disk alone."""
    manager = CacheManager(CacheConfig(layers=[CacheLayer("L3", "disk", ttl=3600)], cache_dir=folder))
    bench.at_end(manager.aclose)
    bench.wait(manager.set(l1_hit.KEY, l1_hit.VALUE))
    assert bench.wait(manager.get(l1_hit.KEY)) == l1_hit.VALUE
    return Subject(name, manager.get, always(l1_hit.KEY))


@contextlib.contextmanager
def redis(bench: Bench, folder: Path) -> Iterator[str | None]:
    """The address of a server that runs, if one can."""
    if shutil.which("redis-server") is None:
        bench.console.print("[yellow]without Redis: redis-server is not installed")
        yield None
        return
    server = servers.redis(folder)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
