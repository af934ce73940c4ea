"""Where the SDK is not installed everything works; `tests/packaging` does the same in an environment without it."""

from tests.managers import run_script

ABSENT = """
    import sys

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation")):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Absent())
"""


def test_every_face_works(redis_url: str) -> None:
    printed = run_script(
        ABSENT
        + """
    import asyncio
    import httpx, httpx2
    from fastapi import FastAPI
    from aurelis.cache import CacheConfig, CacheManager, cached
    from aurelis_asgi import CacheMiddleware, CacheRule
    import aurelis_httpx, aurelis_httpx2

    def answer(library):
        return lambda request: library.Response(200, headers={"cache-control": "max-age=60"}, text="body")

    async def main():
        async with CacheManager(CacheConfig(name="bare", redis_url=sys.argv[1])) as cache:

            @cached(cache=cache)
            async def double(number):
                return 2 * number

            assert [await double(4), await double(4)] == [8, 8]
            app = FastAPI()
            app.add_middleware(CacheMiddleware, cache=cache, rules=[CacheRule("/*", ttl=60)])
            app.get("/")(lambda: "hello")
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
                assert "hit" not in (await client.get("/")).headers["cache-status"]
                assert "hit" in (await client.get("/")).headers["cache-status"]
            for library, package in ((httpx, aurelis_httpx), (httpx2, aurelis_httpx2)):
                inner = package.AsyncCacheTransport(library.MockTransport(answer(library)), cache=cache)
                async with library.AsyncClient(transport=inner) as client:
                    url = f"http://{library.__name__}/"
                    assert "hit" not in (await client.get(url)).headers["cache-status"]
                    assert "hit" in (await client.get(url)).headers["cache-status"]

    asyncio.run(main())
    print([name for name in sys.modules if name.startswith("opentelemetry.sdk")])
        """,
        redis_url,
    )
    assert printed == "[]\n"


def test_whoever_needs_more_is_told_what_to_install() -> None:
    printed = run_script(
        ABSENT
        + """
    from aurelis.cache import CacheManager, CacheStats

    def told(attempt):
        try:
            attempt()
        except ImportError as error:
            print(str(error).rpartition(": ")[2])

    def instrumentor():
        import aurelis.cache.telemetry.instrumentor

    told(lambda: CacheStats(CacheManager()))
    told(instrumentor)
        """
    )
    assert printed.splitlines() == [
        'pip install "aurelis-cache[otel]"',
        'pip install "aurelis-cache[instrument]"',
    ]
