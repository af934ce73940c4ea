"""An instrumentation of OpenAI's SDK above the transport: `gen_ai.*` is its own, and what it cannot know is ours."""

from collections.abc import Iterator

import pytest
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # not typed
from opentelemetry.trace import SpanKind

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import instrument
from tests.client.stack import KINDS, Stack, closing
from tests.client.upstream import Upstream, stream_reply
from tests.managers import count, own_counts
from tests.models.examples import DONE, event, piece
from tests.models.examples import USAGE as USED
from tests.telemetry.integration.seen import Seen

USAGE = "gen_ai.client.token.usage"
DURATION = "gen_ai.client.operation.duration"


@pytest.fixture
def instrumented(seen: Seen) -> Iterator[None]:
    """The SDK and both client libraries."""
    instrumentors: list[BaseInstrumentor] = [
        OpenAIInstrumentor(),
        HTTPXClientInstrumentor(),
        HTTPX2ClientInstrumentor(),
    ]
    for each in instrumentors:
        each.instrument(tracer_provider=seen.tracers, meter_provider=seen.meters)
    with own_counts():
        instrument(seen.meters)
        yield
    for each in instrumentors:
        each.uninstrument()


def tokens(seen: Seen, kind: str) -> float:
    """Tokens that the instrumentation has counted."""
    return sum(float(p.sum) for p in seen.points(USAGE) if p.attributes["gen_ai.token.type"] == kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_usage_counts_answers_and_saved_tokens_say_which_of_them_are_not_billed(
    kind: str, stream: bool, seen: Seen, instrumented: None, upstream: Upstream, manager: CacheManager
) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    if stream:
        last = event({**piece(None), "choices": [], "usage": USED})
        upstream.answer = lambda asked: stream_reply(event(piece("Hello")), event(piece(None, "stop")), last, DONE)
    async with closing(Stack(kind, manager)) as stack:
        sdk = stack.sdk(upstream.url)
        await stack.ask(sdk, **options)
        billed = {each: tokens(seen, each) for each in ("input", "output")}
        for _ in range(3):
            await stack.ask(sdk, **options)
    assert upstream.calls == 1
    assert all(billed.values())
    # A hit is a call for the one above, and none for the one below.
    assert seen.recorded(DURATION) == 4
    for each, number in billed.items():
        saved = count(manager, names.SAVED_TOKENS, {names.TOKEN_TYPE: each})
        assert tokens(seen, each) - saved == number
    assert {name for name in seen.metrics() if name.startswith("gen_ai.") and "chunk" not in name} == {USAGE, DURATION}
    calls = [span for span in seen.spans(SpanKind.CLIENT) if "gen_ai.operation.name" in (span.attributes or {})]
    assert len(calls) == 4
    marked = [(span.attributes or {}).get(names.RESULT) for span in calls]
    assert sorted(map(str, marked)) == ["None", "hit", "hit", "hit"]
    (request,) = [span for span in seen.spans(SpanKind.CLIENT) if span not in calls]
    name = manager.config.name
    assert seen.lineage(request) == [f"fill {name}", f"get {name}", calls[0].name]


def test_no_metric_of_ours_is_in_a_namespace_of_others() -> None:
    assert not [metric.name for metric in names.METRICS if not metric.name.startswith("aurelis.cache.")]
