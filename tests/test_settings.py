"""A configuration from code, the environment and a file: what counts, what is refused, and what is never repeated."""

import asyncio
import math
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path

import pytest

from aurelis.cache import (
    CacheConfig,
    CacheLayer,
    EntryOptions,
    UnifiedCacheManager,
    cached,
    get_cache_manager,
    load_config,
    set_cache_manager,
)
from aurelis.cache._settings import PREFIX, load
from aurelis.cache.codecs import Frame
from aurelis.cache.exceptions import ConfigurationError
from tests.managers import run_script
from tests.servers import ServerProcess, redis_command

SECRET = "hunter2-and-more"
URL = "redis://127.0.0.1:6379/0"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what the machine says."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets variables, named by their options."""

    def put(**variables: object) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(PREFIX + name.upper(), str(value))

    return put


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes a file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "cache.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def process() -> Iterator[None]:
    """Leaves the process's manager as it was."""
    before = set_cache_manager(None)
    yield
    set_cache_manager(before)


# --- what counts


def test_code_goes_before_the_environment_and_that_before_the_file(
    environ: Callable[..., None], toml: Callable[[str], Path]
) -> None:
    file = toml("max_size = 1\nmax_bytes = 1\ndisk_max_size = 1")
    environ(max_size=2, max_bytes=2)
    config = load_config(file, max_size=3)
    assert (config.max_size, config.max_bytes, config.disk_max_size) == (3, 2, 1)


def test_without_anything_to_read_it_is_the_default() -> None:
    assert load_config() == CacheConfig()


def test_a_configuration_in_code_reads_nothing(environ: Callable[..., None]) -> None:
    environ(max_size=2, nonsense=1)
    assert CacheConfig().max_size == 10_000


def test_the_file_is_named_in_code_or_else_in_the_environment(
    environ: Callable[..., None], toml: Callable[[str], Path], tmp_path: Path
) -> None:
    environ(config_file=toml("max_size = 1"))
    assert load_config().max_size == 1
    other = tmp_path / "other.toml"
    other.write_text("max_size = 2")
    assert load_config(other).max_size == 2
    assert load_config(str(other)).max_size == 2


VALUES: dict[str, tuple[str, str, object]] = {
    "text": ("namespace", "shop", "shop"),
    "text of digits": ("name", "7", "7"),
    "whole number": ("max_size", "500", 500),
    "seconds": ("ttl", "0.5", 0.5),
    "for ever": ("ttl", "inf", math.inf),
    "duration": ("ttl", "PT1H30M", timedelta(minutes=90)),
    "yes": ("redis_ssl", "yes", True),
    "zero": ("copy", "0", False),
    "choice": ("spans", "all", "all"),
    "folder": ("cache_dir", "/var/cache/shop", "/var/cache/shop"),
    "classes": ("types", '["decimal.Decimal", "tests.test_settings:Colour"]', None),
    "layers": (
        "layers",
        '[{"name": "L1", "backend": "memory", "ttl": 60, "max_size": 10, "priority": 2}]',
        [CacheLayer("L1", "memory", 60, 10, 2)],
    ),
}


@dataclass(frozen=True)
class Colour:
    red: int


@pytest.mark.parametrize("case", VALUES)
def test_the_texts_of_the_environment_become_what_the_options_are(case: str, environ: Callable[..., None]) -> None:
    name, text, expected = VALUES[case]
    environ(**{name: text})
    given = getattr(load_config(), name)
    if case == "classes":
        from decimal import Decimal

        assert [each.__name__ for each in given] == [Decimal.__name__, Colour.__name__]
    else:
        assert given == expected
        assert type(given) is type(expected)


def test_every_option_can_be_said_in_a_file(toml: Callable[[str], Path]) -> None:
    """One that is added to `CacheConfig` needs no word elsewhere."""
    text = f'''
        redis_url = "{URL}"
        redis_password = "{SECRET}"
        redis_ssl = true
        namespace = "shop"
        types = ["tests.test_settings:Colour"]
        ttl = inf
        l1_ttl = "PT5M"

        [[layers]]
        name = "memory"
        backend = "memory"
        ttl = 60.5
        priority = 2

        [[layers]]
        name = "redis"
        backend = "redis"
        ttl = "P1D"
    '''
    assert load_config(toml(text)) == CacheConfig(
        redis_url=URL,
        redis_password=SECRET,
        redis_ssl=True,
        namespace="shop",
        types=[Colour],
        ttl=math.inf,
        l1_ttl=timedelta(minutes=5),
        layers=[CacheLayer("memory", "memory", 60.5, priority=2), CacheLayer("redis", "redis", timedelta(days=1))],
    )
    plain = {
        each.name: each.default for each in fields(CacheConfig) if isinstance(each.default, (bool, int, float, str))
    }
    lines = [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in plain.items()
    ]
    assert load_config(toml("\n".join(lines))) == CacheConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wider:
    """A configuration that has more kinds of options than there are today."""

    categories: Mapping[str, EntryOptions] = field(default_factory=dict)
    first: EntryOptions = field(default_factory=EntryOptions)
    keys: str | bytes | Sequence[str | bytes] | None = field(default=None, repr=False)


def test_options_of_entries_can_be_said_in_a_file(toml: Callable[[str], Path]) -> None:
    file = toml(
        """
        first = {jitter = 1}

        [categories.user]
        ttl = 60
        stale_if_error = "PT1H"

        [categories."model answers"]
        early_beta = 1.0
        """
    )
    assert load(Wider, file, {}) == Wider(
        categories={
            "user": EntryOptions(ttl=60, stale_if_error=3600),
            "model answers": EntryOptions(early_beta=1.0),
        },
        first=EntryOptions(jitter=1),
    )
    for text, message in {
        "[categories.user]\nttll = 5": r"toml: categories\.user\.ttll is not an option; did you mean 'ttl'",
        "[categories.user]\nttl = -5": r"categories\.user: EntryOptions: ttl must be 0 or more seconds",
        "[first]\nttl = []": r"first.ttl: ",
    }.items():
        with pytest.raises(ConfigurationError, match=message):
            load(Wider, toml(text), {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), ('["new", "old"]', ["new", "old"]), ("[no list", "[no list"), ("[1]", "[1]"), ("{x}", "{x}")],
)
def test_a_text_that_begins_like_json_is_that_where_it_can_be(
    text: str, expected: object, environ: Callable[..., None]
) -> None:
    environ(keys=text)
    assert load(Wider, None, {}).keys == expected


def test_what_is_said_in_code_is_taken_as_it_is(environ: Callable[..., None]) -> None:
    environ(types="nothing that could be read", max_size=5)
    assert load_config(types=[Colour]).types == [Colour]
    with pytest.raises(ConfigurationError, match="max_size must be a whole number"):
        load_config(max_size="5", types=[Colour])


def test_an_empty_variable_counts_as_absent(environ: Callable[..., None], toml: Callable[[str], Path]) -> None:
    environ(redis_url="", max_size="", config_file="")
    assert load_config() == CacheConfig()
    assert load_config(toml("max_size = 3")).max_size == 3


def test_names_of_variables_may_be_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("aurelis_cache_max_size", "5")
    assert load_config().max_size == 5


# --- names that are not known


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("REDIS_PASWORD", "AURELIS_CACHE_REDIS_PASSWORD"),
        ("MAXSIZE", "AURELIS_CACHE_MAX_SIZE"),
        ("CONFIG", "AURELIS_CACHE_CONFIG_FILE"),
        ("REDIS_PASSWORD_FIL", "AURELIS_CACHE_REDIS_PASSWORD_FILE"),
        ("NAMESPACE_FILE", "AURELIS_CACHE_NAMESPACE"),
    ],
)
def test_a_variable_that_is_not_known_is_refused_with_the_nearest(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, SECRET)
    with pytest.raises(ConfigurationError, match=f"{PREFIX}{name} in the environment is not an option") as caught:
        load_config()
    assert f"did you mean {meant!r}?" in str(caught.value)
    assert_hidden(caught.value)


def test_an_empty_variable_that_is_not_known_is_refused_as_well(environ: Callable[..., None]) -> None:
    environ(redis_uri="")
    with pytest.raises(ConfigurationError, match="did you mean 'AURELIS_CACHE_REDIS_URL'"):
        load_config()


@pytest.mark.parametrize(
    "name", ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_6379_TCP", "PORT_6379_TCP_ADDR"]
)
def test_what_kubernetes_says_of_a_service_of_that_name_is_no_option(name: str, environ: Callable[..., None]) -> None:
    environ(**{name: "tcp://10.0.0.1:6379"})
    assert load_config() == CacheConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redis_pasword = 'x'", r"cache\.toml: redis_pasword is not an option; did you mean 'redis_password'"),
        ("ttl_file = 'x'", r"ttl_file is not an option"),
        ("[max_sizes]\na = 1", r"max_sizes is .*did you mean 'max_size'"),
        ("[[layers]]\nname='a'\nbackend='memory'\nttl=1\nprio=2", r"layers\[0\]\.prio is not .*'priority'"),
    ],
)
def test_a_name_in_a_file_that_is_not_known_is_refused_with_the_nearest(
    text: str, message: str, toml: Callable[[str], Path]
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_config(toml(text))


def test_an_argument_that_is_not_known_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="'max_sise' is not an option; did you mean 'max_size'"):
        load_config(max_sise=1)


# --- values that cannot work


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("max_size", "many", "AURELIS_CACHE_MAX_SIZE: Input should be a valid integer"),
        ("ttl", "5 minutes", "AURELIS_CACHE_TTL: Input should be a valid number"),
        ("copy", "perhaps", "AURELIS_CACHE_COPY: Input should be a valid boolean"),
        ("spans", "some", "AURELIS_CACHE_SPANS: Input should be 'none', 'io' or 'all'"),
        ("layers", '[{"name": "L1"', "AURELIS_CACHE_LAYERS: Invalid JSON"),
        ("layers", "memory", "AURELIS_CACHE_LAYERS: "),
        ("layers", '[{"name": "L1", "backend": "memory", "ttl": -1}]', r"LAYERS\[0\]: CacheLayer 'L1': ttl must be"),
        ("layers", '[{"backend": "memory", "ttl": "x"}]', r"AURELIS_CACHE_LAYERS\[0\]\.name: Field required"),
        ("types", '["no_such.Class"]', r"AURELIS_CACHE_TYPES\[0\]: .*No module named 'no_such'"),
        ("types", '["os.path"]', "types must be a sequence of classes"),
        ("ttl", "-1", "ttl must be 0 or more seconds"),
        ("serialization", "pickle", "pickle' is refused"),
        ("cache_dir", "\x01", None),
    ],
)
def test_a_value_of_the_environment_that_cannot_work_is_refused_and_named(
    name: str, text: str, message: str | None, environ: Callable[..., None]
) -> None:
    environ(**{name: text})
    if message is None:
        assert load_config().cache_dir == text
        return
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_config()
    notes = getattr(caught.value, "__notes__", [])
    assert "AURELIS_CACHE" in str(caught.value) + "".join(notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_size = true", "max_size: Input should be a valid integer"),
        ('max_size = "5"', "max_size: Input should be a valid integer"),
        ("ttl = true", "ttl: Input should be a valid number"),
        ("copy = 1", "copy: Input should be a valid boolean"),
        ('copy = "no"', "copy: Input should be a valid boolean"),
        ("name = 5", "name: Input should be a valid string"),
        ("secret = 5", "secret: Input should be a valid string"),
        ("layers = []", "layers must name at least one layer"),
        ('[[layers]]\nname = "a"\nbackend = "memory"\nttl = true', r"layers\[0\]\.ttl: Input should be"),
        ("[categories.a]\nttl = true", r"categories\.a\.ttl: Input should be"),
        ("categories = []", "categories: Input should be an object"),
    ],
)
def test_a_value_of_a_file_has_a_type_and_is_taken_for_no_other(
    text: str, message: str, toml: Callable[[str], Path]
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_config(toml(text))


def test_an_error_of_the_configuration_itself_says_where_that_is_from(
    environ: Callable[..., None], toml: Callable[[str], Path]
) -> None:
    file = toml("l1_ttl = 0")
    environ(max_size=5)
    with pytest.raises(ConfigurationError, match="l1_ttl must be more than 0 seconds") as caught:
        load_config(file)
    assert caught.value.__notes__ == [f"the configuration is from AURELIS_CACHE_MAX_SIZE, {file}"]


@pytest.mark.parametrize("content", [b"ttl = ", b"ttl", b"a = 1\na = 2", b"\xff\xfe", b"[[layers"])
def test_a_file_that_is_no_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "cache.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"cache\.toml is (no TOML|not UTF-8)"):
        load_config(file)


def test_a_file_that_is_not_there_is_an_error(environ: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "none.toml")
    environ(config_file=tmp_path / "none.toml")
    with pytest.raises(FileNotFoundError):
        get_cache_manager_anew()


def get_cache_manager_anew() -> UnifiedCacheManager:
    """The process's manager as the first who asks gets it."""
    before = set_cache_manager(None)
    try:
        return get_cache_manager()
    finally:
        set_cache_manager(before)


# --- secrets


def assert_hidden(error: BaseException) -> None:
    """Nothing that is printed of an error has the secret, nor do the errors that it keeps."""
    assert SECRET not in "".join(traceback.format_exception(error))
    seen: list[BaseException] = [error]
    for each in seen:
        assert SECRET not in f"{each!r} {vars(each)}"
        seen += [other for other in (each.__cause__, each.__context__) if other is not None]


@pytest.mark.parametrize("name", ["redis_password", "redis_url", "secret"])
def test_a_secret_may_be_in_a_file_of_its_own(
    name: str, environ: Callable[..., None], toml: Callable[[str], Path], tmp_path: Path
) -> None:
    value = f"redis://:{SECRET}@127.0.0.1" if name == "redis_url" else SECRET
    path = tmp_path / "secret"
    path.write_text(value + "\r\n")
    more = {} if name == "redis_url" else {"redis_url": URL}
    environ(**{f"{name}_file": path})
    assert getattr(load_config(**more), name) == value
    assert getattr(load_config(toml(f"{name}_file = '/nowhere'"), **more), name) == value
    environ(**{f"{name}_file": ""})
    assert getattr(load_config(toml(f"{name}_file = '{path}'"), **more), name) == value
    environ(**{name: value})
    assert getattr(load_config(toml(f"{name}_file = '/nowhere'"), **more), name) == value
    assert getattr(load_config(toml(f"{name}_file = '/nowhere'"), **{**more, name: value}), name) == value


def test_a_file_of_a_secret_is_read_as_a_variable_is(environ: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text('["new", "old"]\n')
    environ(keys_file=path)
    assert load(Wider, None, {}).keys == ["new", "old"]
    path.write_text("one\n")
    assert load(Wider, None, {}).keys == "one"


def test_keys_for_encryption_come_from_the_environment_a_file_of_their_own_or_toml(
    environ: Callable[..., None], toml: Callable[[str], Path], tmp_path: Path
) -> None:
    new, old = bytes(range(1, 33)).hex(), bytes(range(32)).hex()
    frame = load_config(encryption_key=old).framing().encode(Frame("k", 0.0, 1.0, 0.0, b"x"))
    path = tmp_path / "key"
    path.write_text(f'["{new}", "{old}"]\n')
    environ(encryption_key=old, compression="gzip", compression_threshold=10)
    assert load_config().framing().decode(frame, "k").payload == b"x"
    assert (load_config().compression, load_config().compression_threshold) == ("gzip", 10)
    environ(encryption_key="", encryption_key_file=path)
    assert load_config().framing().decode(frame, "k").payload == b"x"
    environ(encryption_key_file="")
    assert load_config(toml(f"encryption_key = ['{new}', '{old}']")).framing().decode(frame, "k").payload == b"x"
    for wrong in (SECRET, f"['{SECRET}']", f'["{SECRET}"]'):
        environ(encryption_key=wrong)
        with pytest.raises(ConfigurationError, match="encryption_key") as caught:
            load_config()
        assert_hidden(caught.value)


def test_a_secret_in_two_places_of_one_source_is_refused(
    environ: Callable[..., None], toml: Callable[[str], Path]
) -> None:
    with pytest.raises(ConfigurationError, match="secret and secret_file in the file contradict") as caught:
        load_config(toml(f"secret = '{SECRET}'\nsecret_file = 'x'"))
    assert_hidden(caught.value)
    environ(secret=SECRET, secret_file="x")
    with pytest.raises(
        ConfigurationError, match="AURELIS_CACHE_SECRET and AURELIS_CACHE_SECRET_FILE contradict"
    ) as caught:
        load_config()
    assert_hidden(caught.value)


def test_a_secret_whose_file_is_not_there_is_an_error(environ: Callable[..., None], tmp_path: Path) -> None:
    environ(secret_file=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="none"):
        load_config()


@pytest.mark.parametrize("broken", ["environment", "file", "not text", "no toml", "json", "layers"])
def test_no_error_repeats_a_secret(
    broken: str, environ: Callable[..., None], toml: Callable[[str], Path], tmp_path: Path
) -> None:
    file = None
    match broken:
        case "environment":
            environ(redis_url=f"http://:{SECRET}@host", redis_password=SECRET, secret=SECRET)
        case "file":
            file = toml(f"redis_url = 'http://:{SECRET}@host'\nsecret = '{SECRET}'")
        case "not text":
            path = tmp_path / "secret"
            path.write_bytes(SECRET.encode() + b"\xff")
            environ(secret_file=path)
        case "no toml":
            file = toml(f"secret = '{SECRET}\nttl = 5")
        case "json":
            environ(secret=SECRET, layers='[{"name": "' + SECRET)
        case "layers":
            file = toml(f"secret = ['{SECRET}']")
    with pytest.raises(ConfigurationError) as caught:
        load_config(file)
    assert_hidden(caught.value)


def test_the_password_of_the_environment_opens_redis(
    own_redis: ServerProcess, environ: Callable[..., None], process: None, tmp_path: Path
) -> None:
    redis_command(own_redis.port, f"CONFIG SET requirepass {SECRET}")
    path = tmp_path / "password"
    path.write_text(SECRET + "\n")
    environ(redis_url=own_redis.url, redis_password_file=path, timeout=5)

    async def main() -> None:
        async with get_cache_manager() as cache:
            assert await cache.set("a", "b", "c")

    asyncio.run(main())


# --- the process's manager


async def test_the_environment_configures_the_process_manager_and_nothing_else(
    environ: Callable[..., None], process: None
) -> None:
    environ(namespace="shop", max_size=7)
    async with get_cache_manager() as cache:
        assert (cache.manager.config.namespace, cache.manager.config.max_size) == ("shop", 7)
    async with UnifiedCacheManager() as other:
        assert other.manager.config == CacheConfig()


async def test_options_of_categories_come_from_a_file(
    toml: Callable[[str], Path], environ: Callable[..., None], process: None
) -> None:
    environ(config_file=toml("[categories.short]\nttl = 0"))
    async with get_cache_manager() as cache:
        await cache.set("short", "k", 1)
        await cache.set("long", "k", 1)
        assert (await cache.get("short", "k"), await cache.get("long", "k")) == (None, 1)


async def test_decorators_use_what_the_environment_says(environ: Callable[..., None], process: None) -> None:
    @cached()
    async def load() -> int:
        return 1

    environ(name="from-the-environment")
    assert await load() == 1
    async with get_cache_manager() as cache:
        assert cache.manager.config.name == "from-the-environment"
        assert len(cache.manager._engine.stack.memory.entries) == 1  # type: ignore[union-attr]  # there is memory


def test_a_wrong_environment_is_told_each_time_until_it_is_right(
    environ: Callable[..., None], process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ(max_sizes=5)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="did you mean 'AURELIS_CACHE_MAX_SIZE'"):
            get_cache_manager()
    monkeypatch.delenv("AURELIS_CACHE_MAX_SIZES")
    assert get_cache_manager().manager.config == CacheConfig()


def test_a_module_that_is_named_and_asks_for_the_manager_hangs_nobody(tmp_path: Path) -> None:
    (tmp_path / "shop_models.py").write_text(
        "import dataclasses\n"
        "from aurelis.cache import get_cache_manager\n"
        "try:\n    get_cache_manager()\nexcept ValueError as error:\n    print(type(error).__name__)\n"
        "@dataclasses.dataclass\nclass Item:\n    a: int\n"
    )
    source = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from aurelis.cache import get_cache_manager
        print([kind.__name__ for kind in get_cache_manager().manager.config.types])
    """
    shown = run_script(source, AURELIS_CACHE_TYPES='["shop_models.Item"]')
    assert shown.splitlines() == ["ConfigurationError", "['Item']"]


def test_without_pydantic_there_is_no_need_of_it_until_there_is_something_to_read(tmp_path: Path) -> None:
    file = tmp_path / "cache.toml"
    file.write_text("max_size = 5")
    source = f"""
        import importlib.abc, os, sys

        class Missing(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0].startswith("pydantic"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Missing())

        from aurelis.cache import get_cache_manager, load_config
        from aurelis.cache.exceptions import MissingExtraError

        get_cache_manager()
        for attempt in (lambda: load_config({str(file)!r}), lambda: load_config()):
            os.environ["AURELIS_CACHE_SECRET"] = "hunter2"
            try:
                attempt()
            except MissingExtraError as error:
                assert error.extra == "settings" and "aurelis-cache[settings]" in str(error), error
                assert "hunter2" not in str(error)
            else:
                raise AssertionError("it was found")
    """
    run_script(source)
