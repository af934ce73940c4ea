"""The program of the page, as a newcomer copies it."""

from pathlib import Path

from tests.conftest import ROOT
from tests.docs.blocks import files
from tests.managers import run_script
from tests.servers import free_port
from tests.telemetry.integration.collector import Collector


def test_providers_that_a_program_sets_by_itself(collector: Collector, tmp_path: Path) -> None:
    name = "shop_telemetry.py"
    (tmp_path / name).write_text(files(ROOT / "docs" / "opentelemetry.md")[name])
    printed = run_script(
        """
        import asyncio, sys, urllib.request
        sys.path.insert(0, sys.argv[1])
        from opentelemetry import trace
        from aurelis.cache import CacheConfig, CacheManager
        from shop_telemetry import set_up

        async def load():
            return 1

        async def main():
            async with CacheManager(CacheConfig(name="shop")) as cache:
                await cache.get_or_compute("k", load)
                set_up(int(sys.argv[2]))
                await cache.get_or_compute("k", load)
                await cache.get_or_compute("other", load)

        asyncio.run(main())
        trace.get_tracer_provider().shutdown()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        print(opener.open(f"http://127.0.0.1:{sys.argv[2]}/metrics").read().decode())
        """,
        str(tmp_path),
        str(free_port()),
        within=30.0,
        **collector.environment(),
    )
    requests = [line for line in printed.splitlines() if line.startswith("aurelis_cache_requests_total{")]
    counts = {"hit": 0.0, "miss": 0.0}
    for line in requests:
        for result in counts:
            if f'aurelis_cache_result="{result}"' in line:
                counts[result] += float(line.rpartition(" ")[2])
    assert counts == {"hit": 1, "miss": 2}
    assert 'service_name="shop"' in printed
    assert [span.name for _, _, span in collector.received().spans] == ["fill shop", "get shop"]
