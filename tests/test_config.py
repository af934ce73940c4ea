"""What a configuration accepts, and what an error says where it does not."""

import dataclasses
import enum
import importlib.util
import math
from datetime import timedelta
from typing import Any

import pytest

from aurelis.cache import CacheConfig, CacheLayer, CacheManager, EntryOptions, RedisBackend, UnifiedCacheManager
from aurelis.cache.exceptions import CacheError, ConfigurationError, MissingExtraError
from tests.managers import run_script

URL = "redis://127.0.0.1:6379/0"
MEMORY = CacheLayer("memory", "memory", 60, priority=2)
REDIS = CacheLayer("redis", "redis", 3600, priority=1)
PASSWORD = "hunter2"


class Colour(enum.Enum):
    RED = 1


def layers(config: CacheConfig) -> list[tuple[str, float]]:
    """Returns backend and ttl of each layer, in the order in which they are asked."""
    return [
        (layer.backend, layer.ttl.total_seconds() if isinstance(layer.ttl, timedelta) else layer.ttl)
        for layer in config.effective_layers()
    ]


# --- what works


def test_without_options_there_is_memory_alone() -> None:
    assert layers(CacheConfig()) == [("memory", 3600.0)]


def test_a_url_adds_a_shared_layer_below_memory() -> None:
    assert layers(CacheConfig(redis_url=URL)) == [("memory", 300.0), ("redis", 3600.0)]


def test_memory_does_not_keep_values_longer_than_the_layer_below_it() -> None:
    assert layers(CacheConfig(redis_url=URL, ttl=10)) == [("memory", 10.0), ("redis", 10)]
    assert layers(CacheConfig(redis_url=URL, ttl=timedelta(hours=2), l1_ttl=timedelta(minutes=1))) == [
        ("memory", 60.0),
        ("redis", 7200.0),
    ]


def test_layers_say_it_all_and_the_highest_priority_is_asked_first() -> None:
    assert layers(CacheConfig(redis_url=URL, layers=[REDIS, MEMORY])) == [("memory", 60), ("redis", 3600)]
    assert layers(CacheConfig(redis_url=URL, layers=[REDIS])) == [("redis", 3600)]
    assert layers(CacheConfig(layers=[MEMORY])) == [("memory", 60)]


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://127.0.0.1:6379",
        "redis://127.0.0.1:6379/",
        "redis://127.0.0.1:6379/15",
        "rediss://user:p%40ss@example.com:6380/2?ssl_cert_reqs=none",
        "redis://[::1]:6379/0",
        "unix:///run/redis.sock?db=1",
        "unix://user:password@/run/redis.sock",
    ],
)
def test_urls_as_redis_py_writes_them_are_accepted(url: str) -> None:
    CacheManager(CacheConfig(redis_url=url))


@pytest.mark.parametrize("life", [0.001, 1, math.inf, timedelta(days=1)], ids=repr)
def test_durations_are_seconds_or_timedeltas(life: float | timedelta) -> None:
    CacheManager(CacheConfig(ttl=life, l1_ttl=life, breaker_pause=life, layers=[CacheLayer("m", "memory", life)]))


def test_registered_types_are_taken() -> None:
    CacheManager(CacheConfig(types=[Colour]))


# --- what does not

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "ttl negative": ({"ttl": -1}, "ttl must be 0 or more seconds"),
    "ttl zero": ({"ttl": 0}, "ttl must be more than 0 seconds"),
    "ttl nan": ({"ttl": math.nan}, "ttl must be 0 or more seconds"),
    "ttl text": ({"ttl": "60"}, "ttl must be seconds or a timedelta, not str"),
    "ttl negative timedelta": ({"ttl": timedelta(seconds=-1)}, "ttl must be 0 or more seconds"),
    "l1_ttl negative": ({"l1_ttl": -0.5}, "l1_ttl must be 0 or more seconds"),
    "timeout zero": ({"timeout": 0}, "timeout must be more than 0 seconds"),
    "breaker_pause negative": ({"breaker_pause": -1}, "breaker_pause must be"),
    "lease infinite": ({"lease": math.inf}, "lease must be finite"),
    "heartbeat infinite": ({"heartbeat": math.inf}, "heartbeat must be finite"),
    "password bytes": ({"redis_url": URL, "redis_password": b"secret"}, "redis_password must be a str, not bytes"),
    "breaker_failures zero": ({"breaker_failures": 0}, "breaker_failures must be a whole number of 1 or more, not 0"),
    "max_size zero": ({"max_size": 0}, "max_size must be a whole number of 1 or more, not 0"),
    "max_size true": ({"max_size": True}, "max_size must be a whole number of 1 or more, not True"),
    "max_bytes float": ({"max_bytes": 1.5}, "max_bytes must be a whole number"),
    "connections zero": ({"redis_max_connections": 0}, "redis_max_connections must be"),
    "namespace number": ({"namespace": 5}, "namespace must be a str, not int"),
    "name number": ({"name": 5}, "name must be a str, not int"),
    "copy text": ({"copy": "no"}, "copy must be True or False, not 'no'"),
    "ssl text": ({"redis_url": URL, "redis_ssl": "0"}, "redis_ssl must be True or False"),
    "secret empty": ({"secret": ""}, "secret must be a str or bytes, and not empty"),
    "secret number": ({"secret": 5}, "secret must be a str or bytes"),
    "compression unknown": ({"compression": "lz4"}, "compression must be 'zstd' or 'gzip', or None, not 'lz4'"),
    "compression true": ({"compression": True}, "compression must be 'zstd' or 'gzip', or None, not True"),
    "threshold zero": ({"compression_threshold": 0}, "compression_threshold must be a whole number of 1 or more"),
    "unpacked zero": ({"compression_max_bytes": 0}, "compression_max_bytes must be a whole number of 1 or more"),
    "key short": ({"encryption_key": bytes(range(31))}, "encryption_key must be 32 random bytes"),
    "key word": ({"encryption_key": PASSWORD}, "encryption_key must be 32 random bytes"),
    "key number": ({"encryption_key": 5}, "encryption_key must be 32 random bytes"),
    "key none of several": ({"encryption_key": []}, "encryption_key must be 32 random bytes"),
    "key one of several": ({"encryption_key": [bytes(range(32)), PASSWORD]}, "encryption_key must be 32 random bytes"),
    "key zeros": ({"encryption_key": bytes(32)}, "all of these are the same"),
    "types class": ({"types": Colour}, "types must be a sequence of classes"),
    "layers records": ({"layers": [{"name": "L1"}]}, r"layers must be a sequence of CacheLayer\(...\)"),
    "layers text": ({"layers": "memory"}, "layers must be a sequence"),
    "layers layer": ({"layers": MEMORY}, "layers must be a sequence"),
    "url number": ({"redis_url": 6379}, "redis_url must be a str, not int"),
    "url bytes": ({"redis_url": URL.encode()}, "redis_url must be a str, not bytes"),
    "url line end": ({"redis_url": URL + "\n"}, "redis_url contains a space or a control character"),
    "namespace empty": ({"namespace": ""}, "namespace must not be empty"),
    "name empty": ({"name": ""}, "name must not be empty"),
    "spans unknown": ({"spans": "some"}, "spans must be 'none', 'io' or 'all', not 'some'"),
    "span_keys unknown": ({"span_keys": "plain"}, "span_keys must be 'none' or 'hash', not 'plain'"),
    "span_keys without secret": ({"span_keys": "hash"}, "span_keys='hash' needs secret=: without one, keys could be"),
    "serialization json": ({"serialization": "json"}, "serialization must be 'msgpack', not 'json'"),
    "serialization pickle": ({"serialization": "pickle"}, "pickle' is refused: .*run code.*types="),
    "categories list": ({"categories": ["a"]}, "categories must be a mapping of names to EntryOptions, not list"),
    "categories options": ({"categories": {"a": {"ttl": 1}}}, "categories maps names to EntryOptions, and has a dict"),
    "categories name": ({"categories": {1: EntryOptions()}}, "categories maps names to EntryOptions, and has a int"),
    "no layers": ({"layers": []}, "layers must name at least one layer"),
    "layers of one name": (
        {"redis_url": URL, "layers": [MEMORY, CacheLayer("memory", "redis", 1)]},
        "two layers have the same name",
    ),
    "backend twice": ({"layers": [MEMORY, CacheLayer("m", "memory", 1)]}, "each backend can be used once"),
    "memory below": (
        {"redis_url": URL, "layers": [MEMORY, CacheLayer("redis", "redis", 1, priority=9)]},
        "memory must have the highest priority",
    ),
    "redis layer without url": ({"layers": [REDIS]}, "a redis layer needs redis_url="),
    "url without redis layer": ({"redis_url": URL, "layers": [MEMORY]}, "layers name no redis layer"),
    "no copies over redis": ({"redis_url": URL, "copy": False}, "copy=False .* memory alone"),
    "url scheme": ({"redis_url": "http://127.0.0.1:6379"}, "scheme 'http'; accepted are redis://, rediss://, unix://"),
    "url without scheme": ({"redis_url": "127.0.0.1:6379"}, "redis_url"),
    "url empty": ({"redis_url": ""}, "scheme ''"),
    "url without host": ({"redis_url": "redis://"}, "redis_url needs a host"),
    "url port text": ({"redis_url": "redis://127.0.0.1:port/0"}, "redis_url"),
    "url port too large": ({"redis_url": "redis://127.0.0.1:99999/0"}, "redis_url"),
    "url port zero": ({"redis_url": "redis://127.0.0.1:0/0"}, "redis_url needs a host"),
    "url database": ({"redis_url": "redis://127.0.0.1/cache"}, "the path names the database and must be a number"),
    "url database negative": ({"redis_url": "redis://127.0.0.1/-1"}, "must be a number"),
    "url bracket": ({"redis_url": "redis://[::1/0"}, "redis_url cannot be parsed"),
    "socket without path": ({"redis_url": "unix://"}, "unix:// needs the path"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_is_refused_at_construction_and_the_error_says_what_to_do(case: str) -> None:
    options, message = WRONG[case]
    with pytest.raises(ConfigurationError, match=message) as caught:
        CacheConfig(**options)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CacheError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "memory", 1), "name must not be empty"),
        (("L1", "memcached", 1), "CacheLayer 'L1': unknown backend 'memcached'; known are memory, redis"),
        (("L1", "memory", -1), "CacheLayer 'L1': ttl must be 0 or more seconds"),
        (("L1", "memory", 0), "CacheLayer 'L1': ttl must be more than 0 seconds"),
        (("L1", "memory", None), "CacheLayer 'L1': ttl must be seconds or a timedelta, not NoneType"),
        (("L1", "memory", 1, 0), "CacheLayer 'L1': max_size must be a whole number of 1 or more, not 0"),
        (("L1", "memory", 1, "10"), "CacheLayer 'L1': max_size must be a whole number of 1 or more, not '10'"),
        (("L1", "memory", 1, 1.5), "max_size must be a whole number"),
        (("L1", "memory", 1, None, "first"), "CacheLayer 'L1': priority must be a number, not 'first'"),
        (("L1", "memory", 1, None, math.nan), "CacheLayer 'L1': priority must be a number, not nan"),
        ((5, "memory", 1), "CacheLayer.name must be a str, not int"),
    ],
    ids=repr,
)
def test_a_layer_that_cannot_work_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CacheLayer(*arguments)


def test_a_type_that_cannot_be_stored_exactly_is_refused_with_the_manager() -> None:
    class Plain:
        pass

    with pytest.raises(ConfigurationError, match=r"types: .*Plain is none of Enum, dataclass, NamedTuple and pydantic"):
        CacheManager(CacheConfig(types=[Plain]))


@pytest.mark.parametrize("taker", [CacheManager, UnifiedCacheManager, RedisBackend])
@pytest.mark.parametrize("given", [URL, {"redis_url": URL}, MEMORY, CacheConfig, 0, ""], ids=str)
def test_what_takes_a_configuration_takes_nothing_else_and_says_what_to_write(taker: Any, given: object) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{taker.__name__} takes a CacheConfig, not .*: write .*\(CacheConfig"
    ):
        taker(given)


def test_a_missing_extra_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "redis" else find(name, *rest))
    with pytest.raises(MissingExtraError, match=r'pip install "aurelis-cache\[redis\]"') as caught:
        CacheConfig(redis_url=URL)
    assert isinstance(caught.value, ImportError)
    assert caught.value.extra == "redis"
    CacheConfig()


def test_without_redis_py_memory_works_and_the_backend_names_the_extra() -> None:
    run_script(
        """
        import importlib.abc, sys

        class Missing(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {"redis", "hiredis"}:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())

        import asyncio
        import aurelis.cache
        from aurelis.cache.exceptions import MissingExtraError

        async def main() -> None:
            async with aurelis.cache.CacheManager() as cache:
                await cache.set("k", 1)
                assert await cache.get("k") == 1

        asyncio.run(main())
        for attempt in (
            lambda: aurelis.cache.RedisBackend,
            lambda: aurelis.cache.CacheConfig(redis_url="redis://127.0.0.1:6379/0"),
        ):
            try:
                attempt()
            except MissingExtraError as error:
                assert "aurelis-cache[redis]" in str(error), error
            else:
                raise AssertionError("it was found")
        """
    )


def test_without_their_packages_compression_and_encryption_name_their_extras_and_gzip_works() -> None:
    run_script(
        """
        import importlib.abc, sys

        class Missing(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {"backports", "cryptography", "compression"}:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())
        from aurelis.cache import CacheConfig, DiskBackend
        from aurelis.cache.codecs import decompress
        from aurelis.cache.exceptions import FrameError, MissingExtraError

        CacheConfig(compression="gzip")
        for extra, options in (("zstd", {"compression": "zstd"}), ("crypto", {"encryption_key": bytes(range(32))})):
            for attempt in (CacheConfig, DiskBackend):
                try:
                    attempt(**options)
                except MissingExtraError as error:
                    assert f"aurelis-cache[{extra}]" in str(error), error
                else:
                    raise AssertionError("it was found")
        try:
            decompress(b"", 0x20)
        except FrameError as error:
            assert (error.reason, error.detail) == ("compression", 'it needs the extra "zstd"'), error
        """
    )


# --- secrets


def test_no_password_and_no_key_is_shown() -> None:
    key = bytes(range(32))
    config = CacheConfig(
        redis_url=f"redis://user:{PASSWORD}@127.0.0.1:6379/0",
        redis_password=PASSWORD,
        secret=PASSWORD,
        encryption_key=[key.hex(), key],
    )
    manager = CacheManager(config)
    shown = [config, manager, manager._engine, manager._engine.stack, manager._engine.stack.lower[0].layer]
    shown += [config.framing(), manager._engine.stack.lower[0].layer._framing]  # type: ignore[attr-defined]
    hidden = (PASSWORD, key.hex(), repr(key)[2:-1])
    assert all(secret not in repr(thing) + str(thing) for thing in shown for secret in hidden)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{PASSWORD}@127.0.0.1:6379/0",
        f"redis://user:{PASSWORD}@127.0.0.1:port/0",
        f"redis://user:{PASSWORD}@127.0.0.1:6379/cache",
        f"redis://user:{PASSWORD}@/0",
        f"redis://user:{PASSWORD}@[::1/0",
        f"redis://user:{PASSWORD}",
        f"unix://user:{PASSWORD}@",
        f"redis://:{PASSWORD}@127.0.0.1:6379/{PASSWORD}",
        f"redis://:{PASSWORD}/with/slashes@127.0.0.1:6379/0",
        f"redis://:{PASSWORD}#hash@127.0.0.1:6379/0",
        f"redis://:{PASSWORD}?mark@127.0.0.1:6379/0",
    ],
)
def test_no_error_repeats_the_password_of_a_url(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CacheManager(CacheConfig(redis_url=url))
    chain: list[BaseException] = [caught.value]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    assert all(PASSWORD not in f"{error!r} {error}" for error in chain)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_hash_key_comes_from_the_secret_or_else_from_the_namespace() -> None:
    keys = [
        CacheConfig().hash_key(),
        CacheConfig(namespace="other").hash_key(),
        CacheConfig(secret="s").hash_key(),
        CacheConfig(secret=b"t").hash_key(),
        CacheConfig(secret="x" * 1000, namespace="\ud800").hash_key(),
    ]
    assert len(set(keys)) == 5
    assert {len(key) for key in keys} == {32}
    assert CacheConfig(secret="s").hash_key() == CacheConfig(secret=b"s", namespace="other").hash_key()


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CacheConfig().ttl = 1  # type: ignore[misc]  # that is the point
