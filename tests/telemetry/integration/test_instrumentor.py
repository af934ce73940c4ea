"""The instrumentor: providers by name, and the library's telemetry switched off and on."""

import importlib.metadata
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.telemetry.instrumentor import AurelisCacheInstrumentor
from tests.conftest import ROOT
from tests.managers import run_script
from tests.telemetry.collecting import reader_of_all, record_spans
from tests.telemetry.integration.programs import OWN_PROVIDERS


@pytest.fixture
def instrumentor() -> Iterator[AurelisCacheInstrumentor]:
    """The one of the process, which instruments nothing before and after."""
    instrumentor = AurelisCacheInstrumentor()
    assert not instrumentor.is_instrumented_by_opentelemetry
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


async def use(cache: CacheManager) -> None:
    """One miss, with its load, and one hit."""

    async def load() -> int:
        return 1

    await cache.get_or_compute("k", load)
    await cache.get("k")
    await cache.delete("k")


def counted(reader: InMemoryMetricReader, name: str) -> float | None:
    """What the reader has of the requests of one cache; `None` if nothing is reported."""
    data: Any = reader.get_metrics_data()
    points = [
        point.value
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "aurelis.cache.requests"
        for point in metric.data.data_points
        if point.attributes["aurelis.cache.name"] == name
    ]
    return sum(points) if points else None


def test_opentelemetry_finds_it() -> None:
    """The table that the wheel is made from; `tests/packaging` looks into the wheel."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    ((name, value),) = table["opentelemetry_instrumentor"].items()
    found = importlib.metadata.EntryPoint(name, value, "opentelemetry_instrumentor").load()
    assert found is AurelisCacheInstrumentor
    assert name == "aurelis_cache"


async def test_providers_that_are_named_get_metrics_and_spans_until_it_is_undone(
    instrumentor: AurelisCacheInstrumentor,
) -> None:
    """Of a cache that was there before, too."""
    everywhere = record_spans()
    reader, exporter = reader_of_all(), InMemorySpanExporter()
    meters, tracers = MeterProvider([reader], shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    async with CacheManager(CacheConfig(name="named")) as cache:
        await use(cache)
        before = len(everywhere.named("fill named"))
        instrumentor.instrument(meter_provider=meters, tracer_provider=tracers, logger_provider=None)
        await use(cache)
        assert counted(reader, "named") == 4
        assert [span.name for span in exporter.get_finished_spans()] == ["fill named", "get named"]
        assert len(everywhere.named("fill named")) == before

        instrumentor.uninstrument()
        await use(cache)
        assert counted(reader, "named") is None
        assert len(exporter.get_finished_spans()) == 2
        assert len(everywhere.named("fill named")) == before + 1

        instrumentor.instrument(meter_provider=meters)
        assert counted(reader, "named") == 6
    everywhere.clear()


async def test_what_was_reported_to_before_is_reported_to_afterwards(instrumentor: AurelisCacheInstrumentor) -> None:
    from aurelis.cache.telemetry.otel import instrument

    reader = reader_of_all()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    instrument(meters)
    instrumentor.instrument(meter_provider=meters)
    instrumentor.uninstrument()
    async with CacheManager(CacheConfig(name="before")) as cache:
        await use(cache)
        assert counted(reader, "before") == 2


@pytest.mark.parametrize(("option", "method"), [("meter_provider", "get_meter"), ("tracer_provider", "get_tracer")])
def test_what_is_no_provider_is_refused(instrumentor: AurelisCacheInstrumentor, option: str, method: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must have a method {method}, which str has not"):
        instrumentor.instrument(**{option: "otlp"})
    assert not instrumentor.is_instrumented_by_opentelemetry


SWITCHED: dict[str, tuple[str, str]] = {
    "off": ("", "0 0 no"),
    "on again": ("AurelisCacheInstrumentor().instrument()", "2 2 yes"),
    "off again": ("AurelisCacheInstrumentor().instrument(); AurelisCacheInstrumentor().uninstrument()", "0 0 no"),
    "for a provider that is the global one": (
        "AurelisCacheInstrumentor().instrument(meter_provider=provider)",
        "2 2 yes",
    ),
}


@pytest.mark.parametrize(
    ("case", "disabled"),
    [*((case, "aurelis_cache") for case in SWITCHED), ("off", "redis, aurelis_cache"), ("off", "*")],
)
def test_the_variable_that_disables_instrumentations_is_heeded(case: str, disabled: str) -> None:
    """Also without `opentelemetry-instrument`, as the library needs none; figures in the process stay."""
    printed = run_script(
        OWN_PROVIDERS
        + f"""
    from aurelis.cache.telemetry.instrumentor import AurelisCacheInstrumentor
    from aurelis.cache import CacheStats

    cache = CacheManager(CacheConfig(name="switched"))
    stats = CacheStats(cache)
    {SWITCHED[case][0]}
    with trace.get_tracer("app").start_as_current_span("request") as span:
        asyncio.run(use(cache))
    assert stats.metrics.hits == 1
    marked = "yes" if "aurelis.cache.result" in span.attributes else "no"
    print(sum(values("aurelis.cache.requests")), len(spans("aurelis.cache")), marked)
        """,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=disabled,
    )
    assert printed == SWITCHED[case][1] + "\n"


def test_other_instrumentations_may_be_disabled() -> None:
    printed = run_script(
        OWN_PROVIDERS
        + """
    asyncio.run(use(CacheManager(CacheConfig(name="switched"))))
    print(sum(values("aurelis.cache.requests")), len(spans("aurelis.cache")))
        """,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="redis,httpx",
    )
    assert printed == "2 2\n"


BECOMES_GLOBAL: dict[str, Callable[[str, str], str]] = {
    "named first": lambda named, becomes: f"{named}; {becomes}",
    "named again": lambda named, becomes: f"{named}; {becomes}; {named}",
}


@pytest.mark.parametrize("case", BECOMES_GLOBAL)
def test_a_provider_that_is_named_and_later_the_global_one_is_reported_to_once(case: str) -> None:
    """The API has both sets of instruments bound to it then, and the SDK makes them one."""
    steps = BECOMES_GLOBAL[case]("instrument(provider)", "metrics.set_meter_provider(provider)")
    printed = run_script(
        OWN_PROVIDERS.replace("metrics.set_meter_provider(provider)", "")
        + f"""
    from aurelis.cache.telemetry.otel import instrument

    cache = CacheManager(CacheConfig(name="both"))
    {steps}
    asyncio.run(use(cache))
    print(sum(values("aurelis.cache.requests")), sum(values("aurelis.cache.operation.duration", "fill")))
        """
    )
    assert printed == "2 1\n"


def test_a_provider_that_is_no_longer_named_is_reported_to_once_it_is_the_global_one() -> None:
    printed = run_script(
        OWN_PROVIDERS.replace("metrics.set_meter_provider(provider)", "")
        + """
    from aurelis.cache.telemetry.instrumentor import AurelisCacheInstrumentor

    cache = CacheManager(CacheConfig(name="both"))
    AurelisCacheInstrumentor().instrument(meter_provider=provider)
    AurelisCacheInstrumentor().uninstrument()
    assert not values("aurelis.cache.requests")
    metrics.set_meter_provider(provider)
    asyncio.run(use(cache))
    print(sum(values("aurelis.cache.requests")), sum(values("aurelis.cache.operation.duration", "fill")))
        """
    )
    assert printed == "2 1\n"
