"""What watches redis-py sees the app's own commands, within our spans, and nothing twice."""

import json

from tests.managers import run_script
from tests.telemetry.integration.programs import OWN_PROVIDERS

PROGRAM = (
    OWN_PROVIDERS
    + """
    import json
    import redis.asyncio
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from redis.observability.config import MetricGroup, OTelConfig
    from redis.observability.providers import get_observability_instance

    RedisInstrumentor().instrument()
    get_observability_instance().init(OTelConfig(metric_groups=list(MetricGroup)))

    async def main():
        client = redis.asyncio.Redis.from_url(sys.argv[1])

        async def load():
            return await client.incr("app:loads")

        config = CacheConfig(name="shared", redis_url=sys.argv[1])
        async with CacheManager(config) as writer, CacheManager(config) as reader:
            for key in "abc":
                await writer.get_or_compute(key, load)
            await reader.get_many(list("abc"))
            for key in "abc":
                await reader.get(key)
            await reader.get("nothing")
            await writer.invalidate_tags("t")
        await client.get("app:loads")
        await client.aclose()

    asyncio.run(main())
    known = {span.context.span_id: span.name for span in exporter.get_finished_spans()}
    commands = spans("opentelemetry.instrumentation.redis")
    parents = [known.get(span.parent.span_id) if span.parent else None for span in commands]
    print(json.dumps({
        "requests": sum(values("aurelis.cache.requests")),
        "found in Redis": sum(values("aurelis.cache.requests", "hit", "l2")),
        "commands": [[span.name, parent] for span, parent in zip(commands, parents)],
        "ours": sorted({span.name for span in spans("aurelis.cache")}),
        "operations": {
            point.attributes["db.operation.name"]: point.count
            for metric in reported() if metric.name == "db.client.operation.duration"
            for point in metric.data.data_points
        },
        "reads of ours": sum(values("aurelis.cache.operation.duration", "get", "l2")),
    }))
"""
)


def test_commands_of_the_app_are_children_of_our_loads_and_ours_are_told_by_our_own_figures(redis_url: str) -> None:
    """The cache speaks to Redis on connections of redis-py, below what instrumentations of its client wrap."""
    found = json.loads(run_script(PROGRAM, redis_url))
    assert found == {
        "requests": 3 + 3 + 3 + 1,
        "found in Redis": 3,
        "commands": [["INCRBY", "fill shared"], ["INCRBY", "fill shared"], ["INCRBY", "fill shared"], ["GET", None]],
        "ours": ["fill shared", "get shared"],
        "operations": {"INCRBY": 3, "GET": 1, "SUBSCRIBE": 2},
        "reads of ours": 3 + 1 + 1,
    }
