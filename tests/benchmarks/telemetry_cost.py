"""What does telemetry cost, compared with the same code without it?

The baseline of each table is our own code with telemetry taken out: the functions of the hot path are compiled again
without the statements that count, and everywhere else a `Telemetry` takes its place that does nothing. So a ratio is
the price of all metrics, and within a trace that of spans and attributes, too.

The number misleads as a share of a request: a server, a framework or a client around the cache takes many times as long
as a hit in memory, so that its share there is much smaller. Spans are exported to nowhere, so the cost of sending them
is not in it.
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
from types import FunctionType, MethodType
from typing import Any, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import aurelis.cache._assembly
from aurelis.cache import CacheConfig, CacheLayer, CacheManager, cached
from aurelis.cache._engine import Engine
from aurelis.cache.telemetry._cells import Cell
from aurelis.cache.telemetry.otel import Sizes, Telemetry
from tests import servers
from tests.benchmarks import apps, asgi_hit, l1_hit, transport_hit
from tests.benchmarks.harness import Bench, Subject, Target, always

_TELLING = {"telemetry", "_hit", "hit", "count", "_observes_hits"}
"""Names of the hot path by which a statement is known to count."""

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
        compare(bench, operations)
        bench.end()  # as long as the server runs


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
    """Drops the statements that count."""

    def __init__(self) -> None:
        self.dropped = 0

    def visit(self, node: ast.AST) -> Any:
        """The node, or nothing in its place."""
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef) and _tells(node):
            self.dropped += 1
            return None
        return self.generic_visit(node)


def _tells(node: ast.AST) -> bool:
    named = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    named |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    return bool(named & _TELLING)


def compiled_out(function: Callable[..., Any], statements: int) -> FunctionType:
    """The function without its statements that count.

    Args:
        statements: how many there are: the benchmark is to break when the function has changed.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    silence = _Silence()
    tree = ast.fix_missing_locations(silence.visit(tree))
    assert silence.dropped == statements, f"{function.__qualname__}: {silence.dropped} statements count"
    space: dict[str, Any] = {}
    exec(compile(tree, inspect.getfile(function), "exec"), inspect.unwrap(function).__globals__, space)
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


def silent(bench: Bench, make: Make) -> Subject:
    """A subject whose telemetry does nothing."""
    module = cast(Any, aurelis.cache._assembly)
    module.Telemetry = Silent
    try:
        return make(bench, "without telemetry")
    finally:
        module.Telemetry = Telemetry


def bare_l1_hit(bench: Bench) -> Subject:
    """`CacheManager.get` whose reading of memory counts nothing."""
    subject = l1_hit.ours(bench, "without telemetry", CacheConfig())
    manager = cast(Any, subject.call).__self__
    assert isinstance(manager, CacheManager)
    bare = MethodType(compiled_out(Engine.read_memory, statements=4), cast(Any, manager)._engine)
    cast(Any, manager)._read_memory = bare
    return outside(subject)


# Traces


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


def traces() -> tuple[Context, Context]:
    """A context whose span is not sampled and one whose span is, from now on with a provider that samples."""
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
