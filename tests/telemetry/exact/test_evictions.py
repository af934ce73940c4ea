"""Each entry that goes from memory is counted once, by why it goes."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, opened, series

LARGEST = 3000
STEPS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from("abcdef"), st.sampled_from([1, 500, 1500]), st.sampled_from([1, 5, 100])),
    st.tuples(st.sampled_from(["get", "delete", "soften"]), st.sampled_from("abcdef")),
    st.tuples(st.sampled_from(["invalidate", "invalidate softly"]), st.sampled_from("TU")),
    st.tuples(st.sampled_from(["clear", "search"])),
    st.tuples(st.just("wait"), st.sampled_from([1, 3])),
)


def key_of(cache: CacheManager, name: str) -> str:
    """Returns the key of a name, as patterns find it."""
    return cache.key_builder.build_key("k", name)


async def act(cache: CacheManager, step: tuple[object, ...]) -> set[str]:
    """Does it; returns the key that it has written."""
    match step:
        case "set", str(name), int(size), int(ttl):
            await cache.set(key := key_of(cache, name), "x" * size, ttl=ttl, tags=["T" if name < "d" else "U"])
            return {key}
        case "get", str(name):
            await cache.get(key_of(cache, name))
        case "delete", str(name):
            await cache.delete(key_of(cache, name))
        case "soften", str(name):
            await cache.delete(key_of(cache, name), soft=True)
        case "invalidate", str(tag):
            await cache.invalidate_tags(tag)
        case "invalidate softly", str(tag):
            await cache.invalidate_tags(tag, soft=True)
        case ("clear",):
            await cache.clear()
        case _:
            await cache.invalidate_pattern("*", everything=True)
    return set()


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=40))
async def test_what_was_there_is_still_there_or_counted(steps: list[tuple[object, ...]]) -> None:
    clock = ManualClock()
    gone = 0
    async with opened(configuration(name="test-evictions", max_size=4, max_bytes=LARGEST), clock=clock) as cache:
        memory = cache._engine.stack.memory
        assert memory is not None

        def counted() -> Counter[str]:
            return Counter(
                {dict(key)[names.REASON]: int(number) for key, number in series(cache, names.EVICTIONS).items()}
            )

        begun = counted()
        for step in steps:
            before, earlier = set(memory.entries), counted()
            if step[0] == "wait":
                assert isinstance(step[1], int)
                clock.advance(step[1])
            else:
                gone += len((before | await act(cache, step)) - set(memory.entries))
            since = counted() - earlier
            assert not since["capacity"] or step[0] == "set"
            assert not since["invalidated"] or step[0] != "set"
        assert sum((counted() - begun).values()) == gone
