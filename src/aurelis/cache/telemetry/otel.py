"""The instruments of OpenTelemetry, and what one cache reports by them; its spans are in `_spans`."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
from opentelemetry.trace import TracerProvider

from aurelis.cache._clock import SYSTEM_CLOCK
from aurelis.cache._forking import renew_in_children
from aurelis.cache._tags import BELOW, EVERYTHING
from aurelis.cache._trouble import Incidents
from aurelis.cache.exceptions import ConfigurationError, MissingExtraError

from . import names
from ._bounded import Bounded, is_name, is_type
from ._cells import REGISTRY, Cell, CellTable, Sum
from ._inherited import forget
from ._reading import Reading
from ._spans import Spans
from ._switch import SWITCH
from ._unheard import unheard

T = TypeVar("T")

try:
    _VERSION = version("aurelis-cache")
except PackageNotFoundError:  # a checkout that was never installed
    _VERSION = "0"

SAMPLE_MASK = 127
"""The latency of hits in memory is recorded for one in 128: to record it takes twenty times as long as such a hit."""
SIZE_SAMPLE_MEMORY, SIZE_SAMPLE = 61, 7
"""Sizes are recorded of one store in so many, in memory and below. Primes, since what is stored in pairs, as a variant
and its index are, would fall into step with others: always the one would be recorded, and never the other."""
DISK_SAMPLE = 8
"""That of reads of the disk is recorded for one in 8: to record it takes half as long as such a read."""


class Instruments:
    """One set of instruments for one meter provider.

    There is exactly one set per provider, whatever the number of caches: the SDK silently drops a second observable
    instrument of the same name.

    Args:
        only: names of the caches that are reported; it may be changed later. `None`: all.
    """

    def __init__(self, provider: MeterProvider | None = None, only: set[str] | None = None) -> None:
        self.only = only
        self._provider = None if provider is None else weakref.ref(provider)
        meter = _meter(provider)
        self.histograms: dict[str, Histogram] = {}
        self._all: list[object] = []
        for metric in names.METRICS:
            instrument: object
            if metric.kind == "histogram":
                instrument = self.histograms[metric.name] = meter.create_histogram(
                    metric.name,
                    metric.unit,
                    metric.description,
                    explicit_bucket_boundaries_advisory=metric.buckets,
                )
            elif metric.kind == "counter":
                instrument = meter.create_observable_counter(
                    metric.name, [self._observer(metric, REGISTRY.counts)], metric.unit, metric.description
                )
            else:
                instrument = meter.create_observable_up_down_counter(
                    metric.name, [self._observer(metric, REGISTRY.levels)], metric.unit, metric.description
                )
            self._all.append(instrument)

    @property
    def is_global(self) -> bool:
        """Whether the provider has become the global one since it was named."""
        return self._provider is not None and self._provider() is _global_provider()

    def begin_anew(self) -> None:
        """Let go of what was reported, in a child: its parent has reported it."""
        with contextlib.suppress(Exception):  # in another SDK; the child has more to make anew than telemetry
            forget(self._all)

    def _observer(
        self, metric: names.Metric, read: Callable[[names.Metric], Mapping[tuple[tuple[str, str], ...], float]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            series = ((dict(attributes), value) for attributes, value in read(metric).items())
            only = self.only
            if only is not None and self.is_global:  # the SDK keeps these, and drops those of the other set
                only = _PROVIDERS.first().only
            return [Observation(value, found) for found, value in series if only is None or found[names.NAME] in only]

        return observe


def _meter(provider: MeterProvider | None) -> Meter:
    if provider is None and _global_provider() is None:
        provider = metrics.NoOpMeterProvider()
    return metrics.get_meter(names.SCOPE, _VERSION, provider, names.SCHEMA_URL)


def _global_provider() -> MeterProvider | None:
    """The global provider; `None`: the environment names one that cannot be made."""
    if not SWITCH.meters_broken:
        try:
            return metrics.get_meter_provider()
        except Exception as error:  # noqa: BLE001  # whatever an entry point raises
            SWITCH.meters_broken = True  # it would be looked for again with each duration
            unheard(error)
    return None


class _Providers:
    """The sets of instruments in use.

    One behind the global provider, one for each provider named explicitly, and one that is read in the process itself.
    Those of the named ones are not held: whoever collects has their callbacks, and with these the sets, so that a set
    is there as long as its provider or a reader of it is.
    """

    def __init__(self) -> None:
        self.sets: tuple[weakref.ref[Instruments], ...] = ()
        self._first: Instruments | None = None
        self._inner: tuple[Instruments, Any] | None = None
        self._lock = threading.Lock()
        self._named: weakref.WeakKeyDictionary[MeterProvider, Instruments] = weakref.WeakKeyDictionary()
        renew_in_children(self)

    def ensure_global(self) -> None:
        """Made with the first cache. The API's proxies bind to a provider that is set later."""
        if self._first is None:
            with self._lock:
                if self._first is None:
                    first = Instruments(only=None if SWITCH.on else set())
                    self.sets = (weakref.ref(first),)
                    self._first = first

    def first(self) -> Instruments:
        """The set of the global provider."""
        self.ensure_global()
        assert self._first is not None
        return self._first

    def living(self) -> list[Instruments]:
        """All sets, that of the global provider first."""
        return [instruments for reference in self.sets if (instruments := reference()) is not None]

    def _use(self, instruments: Instruments) -> None:
        self.sets = tuple(map(weakref.ref, (*self.living(), instruments)))

    def _drop(self, instruments: Instruments) -> None:
        self.sets = tuple(weakref.ref(each) for each in self.living() if each is not instruments)

    def switch(self, on: bool) -> bool:
        """Report to the global provider, or do not; returns whether it was so before."""
        instruments = self.first()
        before, instruments.only = instruments.only is None, None if on else set()
        return before

    def add(self, provider: MeterProvider) -> bool:
        """Report to this provider; returns whether that is new."""
        self.ensure_global()
        with self._lock:
            # The set of the global provider is there already.
            if provider in self._named or provider is _global_provider():
                instruments = self._named.get(provider)
                if instruments is None or instruments.only is None:
                    return False
                instruments.only = None
            else:
                self._named[provider] = instruments = Instruments(provider)
            self._use(instruments)
        return True

    def remove(self, provider: MeterProvider) -> None:
        """Report no longer to a provider that was added."""
        with self._lock:
            instruments = self._named[provider]
            instruments.only = set()  # the SDK lets go of no instrument
            self._drop(instruments)

    def reader(self, name: str) -> Any:  # an `InMemoryMetricReader`, whose module may be absent
        """The reader of the process's own provider, which from now on reports caches of this name, too."""
        self.ensure_global()
        with self._lock:
            if self._inner is None:
                provider, reader = _inner_provider()
                self._inner = Instruments(provider, only=set()), reader
                self._use(self._inner[0])
            instruments, reader = self._inner
            assert instruments.only is not None
            instruments.only.add(name)
        return reader

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        if self._inner is not None:  # its locks may be held for ever; the next reader has another
            self._drop(self._inner[0])
            self._inner = None
        for instruments in {*self.living(), *self._named.values()}:
            instruments.begin_anew()


def _inner_provider() -> tuple[MeterProvider, Any]:
    try:
        from opentelemetry.sdk import metrics as sdk
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.resources import Resource
    except ImportError as error:
        raise MissingExtraError("otel", "reading what a cache has counted") from error
    reader = InMemoryMetricReader()
    off, resource = sdk.AlwaysOffExemplarFilter(), Resource.get_empty()
    return sdk.MeterProvider([reader], resource, off, shutdown_on_exit=False), reader


_PROVIDERS = _Providers()  # process-wide for the reason given at Instruments


def instrument(meter_provider: MeterProvider) -> None:
    """Report to this meter provider as well as to the global one. Doing it twice for one provider does nothing."""
    _PROVIDERS.add(meter_provider)


def begin_reporting(meter_provider: MeterProvider | None, tracer_provider: TracerProvider | None) -> Callable[[], None]:
    """Report to these providers; returns what undoes it.

    Args:
        meter_provider: for metrics, beside the global one. `None`: they are for the global one, also where the
            environment has switched it off.
        tracer_provider: for spans, in place of the global one. `None`: they are for the global one.
    """
    on, tracer = SWITCH.on, SWITCH.tracer
    globally = _PROVIDERS.switch(True) if meter_provider in (None, _global_provider()) else None
    added = meter_provider is not None and _PROVIDERS.add(meter_provider)
    SWITCH.on = True
    if tracer_provider is not None:
        SWITCH.tracer = trace.get_tracer(names.SCOPE, _VERSION, tracer_provider, names.SCHEMA_URL)

    def undo() -> None:
        SWITCH.on, SWITCH.tracer = on, tracer
        if globally is not None:
            _PROVIDERS.switch(globally)
        if meter_provider is not None and added:
            _PROVIDERS.remove(meter_provider)

    return undo


class Saved:
    """What answers of one model have saved.

    Args:
        prices: the costs are asked for; otherwise their cells are nobody's, that a report does not say 0.
    """

    __slots__ = ("cost", "input", "output", "seconds", "unknown", "unpriced")

    def __init__(self, table: CellTable, model: str, *, prices: bool) -> None:
        named = {names.MODEL: model} if model else {}
        self.seconds = table.sum(names.SAVED_TIME, **named)
        self.input = table.cell(names.SAVED_TOKENS, **{names.TOKEN_TYPE: "input"}, **named)
        self.output = table.cell(names.SAVED_TOKENS, **{names.TOKEN_TYPE: "output"}, **named)
        self.unknown = table.cell(names.SAVED_UNKNOWN, **named)
        self.cost = table.sum(names.SAVED_COST, **named) if prices else Sum()
        self.unpriced = table.cell(names.SAVED_UNPRICED, **named) if prices else Cell()


def read(name: str) -> Reading:
    """What OpenTelemetry reports now of the caches of this name; of durations, since this was first called for it.

    Raises:
        MissingExtraError: the SDK is not installed.
        ConfigurationError: it is switched off.
    """
    reading = Reading.of(_PROVIDERS.reader(name).get_metrics_data(), name)
    if not reading.has(names.REQUESTS):
        raise ConfigurationError(
            "OpenTelemetry reports nothing: is its SDK switched off by OTEL_SDK_DISABLED, or was the cache let go of?"
        )
    return reading


def _record(metric: names.Metric, value: float, attributes: dict[str, str]) -> None:
    """Record a value of a histogram. `attributes`: the cache's name among them."""
    sets, name = _PROVIDERS.living(), attributes[names.NAME]
    for instruments in sets:
        if (only := instruments.only) is None or name in only:
            if instruments.is_global and sets[0].only is None:
                continue  # by both sets it would be the same instrument
            try:
                instruments.histograms[metric.name].record(value, attributes)
            except Exception as error:  # noqa: BLE001  # of an aggregation or a reservoir, whoever has made it
                unheard(error)


class Sizes:
    """Sizes of what one layer is given to keep, of which one in `every` is recorded, the first among them."""

    __slots__ = ("_attributes", "_every", "_left")

    def __init__(self, name: str, layer: str, every: int) -> None:
        self._attributes = {names.NAME: name, names.LAYER: layer}
        self._every = every
        self._left = 1

    def note(self, size: int) -> None:
        """Something of so many bytes is stored."""
        self._left = left = self._left - 1
        if left <= 0:
            self._left = self._every
            _record(names.SIZE, size, self._attributes)


class Telemetry:
    """What one cache reports. Never raises and never changes a result.

    The cells of the hot path are attributes, found once.

    Args:
        loads: it keeps what is loaded; otherwise it has no series of memory and of loads.
    """

    def __init__(
        self,
        name: str,
        *,
        spans: str = "io",
        span_attributes: bool = True,
        span_hash_key: bytes | None = None,
        loads: bool = True,
    ) -> None:
        _PROVIDERS.ensure_global()
        self.name = name
        self._incidents = Incidents("something failed, and is done without")
        self.table = CellTable(**{names.NAME: name})
        REGISTRY.add(self, self.table)
        # Not by `trace.get_tracer`, which raises where the environment names a provider that cannot be made.
        tracer = trace.ProxyTracerProvider().get_tracer(names.SCOPE, _VERSION, names.SCHEMA_URL)
        self.spans = Spans(name, tracer, spans, attributes=span_attributes, hash_key=span_hash_key)
        self._requests: dict[tuple[str, str | None], Cell] = {}
        self._stores: dict[str, Cell] = {}
        self.miss = self.request(names.MISS)
        self.deleted = self._invalidations("key", "hard", "local")
        if loads:
            self._begin_with_zero()
        table = self.table if loads else CellTable()  # that of nobody
        self.hit_l1 = table.cell(names.REQUESTS, **{names.RESULT: names.HIT, names.LAYER: names.L1})
        self.bypass = table.cell(names.REQUESTS, **{names.RESULT: names.BYPASS})
        self.coalesced = table.cell(names.COALESCED)
        # A hit in memory is a request answered by a lookup in memory: one increment says both.
        table.alias(self.hit_l1, names.LOOKUPS, **{names.LAYER: names.L1, names.RESULT: names.HIT})
        self.miss_l1 = table.cell(names.LOOKUPS, **{names.LAYER: names.L1, names.RESULT: names.MISS})
        self.saved_seconds = table.sum(names.SAVED_TIME)
        self.saved_bytes = table.cell(names.SAVED_IO)
        self.saved: dict[str, Saved] = {}  # by model, for those that have a place of their own
        self._saved_by_others: Saved | None = None
        self.prices = False
        self.error_kind = Bounded(names.MAX_ERROR_TYPES, is_type)
        self.place = Bounded(names.MAX_PLACES, is_name)
        self._durations: dict[tuple[str, str | None, str | None], dict[str, str]] = {}

    # Series that begin with zero: one that begins with its first event has no increase by it

    def _begin_with_zero(self) -> None:
        for reason in names.STALE_REASONS:
            self.stale(reason)
        for reason in names.REFRESH_REASONS:
            self.table.cell(names.REFRESHES, **{names.REFRESH_REASON: reason})
        for result in names.STORE_RESULTS:
            self.store(result, 0)
        self._begin_invalidations("local", "hard", ("tag", "pattern", "everything"))
        self._begin_invalidations("local", "soft", ("key", "tag"))

    def _begin_invalidations(self, source: str, mode: str, scopes: Iterable[str]) -> None:
        for scope in scopes:
            self._invalidations(scope, mode, source)

    def expect_others(self) -> None:
        """There may be other processes, which tell of changes."""
        for reason in names.GAP_REASONS:
            self.table.cell(names.GAPS, **{names.GAP_REASON: reason})
        for kind in names.MESSAGE_KINDS:
            for direction in ("sent", "received"):
                self.table.cell(names.MESSAGES, **{names.DIRECTION: direction, names.KIND: kind})
        for result in names.RECOVERY_RESULTS:
            self.recovered(result, 0)
        self._begin_invalidations("remote", "hard", ("key", "tag", "everything"))
        self._begin_invalidations("remote", "soft", ("tag",))

    def expect_layer(self, layer: str) -> None:
        """There is a layer below memory."""
        self.request(names.HIT, layer)

    # Counts

    def stale(self, reason: str) -> Cell:
        """The cell of requests that got something stale for this reason."""
        return self.request(names.STALE, reason=reason)

    def request(self, result: str, layer: str | None = None, reason: str | None = None) -> Cell:
        """The cell of requests with this final result; `reason`: why it is stale."""
        cell = self._requests.get((result, layer or reason))
        if cell is None:
            attributes = {names.RESULT: result}
            if layer is not None:
                attributes[names.LAYER] = layer
            if reason is not None:
                attributes[names.STALE_REASON] = reason
            cell = self._requests[result, layer or reason] = self.table.cell(names.REQUESTS, **attributes)
        return cell

    def item(self, result: str, layer: str = "") -> Cell:
        """The cell of items with this result."""
        attributes = {names.RESULT: result, names.LAYER: layer} if layer else {names.RESULT: result}
        return self.table.cell(names.ITEMS, **attributes)

    def lookup(self, layer: str, result: str) -> Cell:
        """The cell of lookups in one layer."""
        return self.table.cell(names.LOOKUPS, **{names.LAYER: layer, names.RESULT: result})

    def saved_by(self, model: str) -> Saved:
        """Where it is counted what an answer of this model saves. The hot path looks into `saved` first."""
        if len(self.saved) < names.MAX_MODELS and (not model or is_name(model)):
            self.saved[model] = saved = Saved(self.table, model, prices=self.prices)
            return saved
        if self._saved_by_others is None:
            self._saved_by_others = Saved(self.table, names.OTHER_MODELS, prices=self.prices)
        return self._saved_by_others

    def expect_savings(self, model: str) -> None:
        """Have the series of a model begin with zero: one that begins with its first hit has no increase by it."""
        if model not in self.saved:
            self.saved_by(model)

    def count_costs(self) -> None:
        """From now on count what answers have cost, and those whose cost is not known."""
        if not self.prices:
            self.prices = True
            self.saved, self._saved_by_others = {}, None

    def store(self, result: str, count: int = 1) -> None:
        """Count decisions whether to keep something. `result`: may be a token as `Cache-Status` has them."""
        cell = self._stores.get(result)
        if cell is None:
            word = result.replace("-", "_")
            cell = self._stores[result] = self.table.cell(names.STORES, **{names.STORE_RESULT: word})
        cell.n += count

    def sizes(self, layer: str, every: int = 1) -> Sizes:
        """Where the sizes are noted of what a layer is given to keep."""
        return Sizes(self.name, layer, every)

    def invalidated(self, scope: str, count: int = 1, *, mode: str = "hard", source: str = "local") -> None:
        """Count what was named to be put out of date."""
        self._invalidations(scope, mode, source).n += count

    def _invalidations(self, scope: str, mode: str, source: str) -> Cell:
        attributes = {
            names.INVALIDATION_SCOPE: scope,
            names.INVALIDATION_MODE: mode,
            names.INVALIDATION_SOURCE: source,
        }
        return self.table.cell(names.INVALIDATIONS, **attributes)

    def invalidated_tags(self, tags: Iterable[str], *, soft: bool, source: str = "local") -> None:
        """Count tags that were named; that of everything is everything."""
        for tag in tags:
            if tag != BELOW:  # which follows from a pattern
                scope = "everything" if tag == EVERYTHING else "tag"
                self.invalidated(scope, mode="soft" if soft else "hard", source=source)

    def eviction(self, layer: str, reason: str) -> Cell:
        """The cell of entries that a layer has dropped."""
        return self.table.cell(names.EVICTIONS, **{names.LAYER: layer, names.REASON: reason})

    def refresh(self, reason: str) -> None:
        """Count one load for which no request counts as a miss."""
        self.table.cell(names.REFRESHES, **{names.REFRESH_REASON: reason}).n += 1

    def message(self, direction: str, kind: str) -> None:
        """Count one message of another process, or one of this process that came back."""
        self.table.cell(names.MESSAGES, **{names.DIRECTION: direction, names.KIND: kind}).n += 1

    def lag(self, elapsed: float) -> None:
        """Record how long a message took to come back, in seconds."""
        _record(names.LAG, elapsed, {names.NAME: self.name})

    def gap(self, reason: str) -> None:
        """Count one time when messages may have been lost."""
        self.table.cell(names.GAPS, **{names.GAP_REASON: reason}).n += 1

    def recovered(self, result: str, count: int = 1) -> None:
        """Count changes that a shared layer was told later."""
        self.table.cell(names.RECOVERED, **{names.RECOVERY_RESULT: result}).n += count

    def error(self, layer: str, operation: str, error_type: str) -> None:
        """Count one failure that was handled."""
        kind = self.error_kind(error_type)
        self.table.cell(names.ERRORS, **{names.LAYER: layer, names.OPERATION: operation, names.ERROR_TYPE: kind}).n += 1

    def incident(self, layer: str, operation: str, error_type: str) -> None:
        """`error`, and a word in the log, for what fails now and then; what fails for some time has a `Trouble`."""
        error_type = self.error_kind(error_type)  # the log has its place, too
        self.error(layer, operation, error_type)
        self._incidents.met(f"{layer}, {operation}: {error_type}", SYSTEM_CLOCK.monotonic())

    def expect_breaker(self, layer: str, subject: T, read: Callable[[T], str]) -> None:
        """There is a breaker in front of a layer. The series of its changes begin with zero, for the same reason.

        Args:
            read: gives its state now.
        """

        def is_in(state: str) -> Callable[[T], float]:
            return lambda subject: int(read(subject) == state)

        for state in names.BREAKER_STATES:
            attributes = {names.LAYER: layer, names.BREAKER_STATE: state}
            self.table.cell(names.BREAKER, **attributes)
            self.gauge(names.BREAKERS, subject, is_in(state), **attributes)

    def breaker(self, layer: str, state: str) -> None:
        """Count one change of state of a breaker."""
        self.table.cell(names.BREAKER, **{names.LAYER: layer, names.BREAKER_STATE: state}).n += 1

    def gauge(
        self,
        metric: names.Metric,
        subject: T,
        read: Callable[[T], float | None],
        of: Hashable = None,
        **attributes: str,
    ) -> None:
        """Have a level of `subject` read at each collection, as `CellTable.gauge`."""
        self.table.gauge(metric, subject, read, of, **attributes)

    def closed(self) -> None:
        """The cache was closed: it holds and asks nothing any more, and what others still hold is theirs to tell."""
        self.table.end(names.ENTRIES, names.USAGE, names.LIMIT, names.BREAKERS, names.PENDING)

    # Durations

    def duration(self, elapsed: float, operation: str, layer: str | None = None, error_type: str | None = None) -> None:
        """Record how long an operation took, in seconds."""
        if error_type is not None:
            error_type = self.error_kind(error_type)
        key = (operation, layer, error_type)
        attributes = self._durations.get(key)
        if attributes is None:
            attributes = {names.NAME: self.name, names.OPERATION: operation}
            if layer is not None:
                attributes[names.LAYER] = layer
            if error_type is not None:
                attributes[names.ERROR_TYPE] = error_type
            self._durations[key] = attributes
        _record(names.DURATION, elapsed, attributes)
