"""The error tree: what each error is, says and carries."""

import builtins
import pickle
import re

import pytest

from aurelis.cache import exceptions
from aurelis.cache.exceptions import (
    CacheClosedError,
    CacheError,
    ConfigurationError,
    EmbeddingError,
    FrameError,
    JournalFullError,
    LayerError,
    LayerTimeout,
    LayerUnavailableError,
    MissingExtraError,
    RecursiveLoadError,
    UnkeyableError,
    UnstorableValueError,
    type_name,
)

EVERY: list[CacheError] = [
    CacheError("message"),
    ConfigurationError("ttl must be 0 or more"),
    MissingExtraError("redis"),
    MissingExtraError("otel", "a Prometheus exporter"),
    UnkeyableError("params['x'][0]", "app.User"),
    UnkeyableError("params", "list", "pass a mapping"),
    UnstorableValueError("app.models.User"),
    UnstorableValueError("app.User", "value['rows'][0]", "its field 'x' has no value"),
    LayerError("L2_redis", "get"),
    LayerTimeout("L2_redis", "get", "no answer within 0.25 s"),
    LayerUnavailableError("L2_redis", "set"),
    EmbeddingError("the endpoint answered with status 500"),
    RecursiveLoadError("the load asked for its own key"),
    CacheClosedError("the cache is closed"),
    JournalFullError("no room"),
    FrameError("check"),
    FrameError("payload", "KeyError"),
]


def test_the_docstring_shows_the_tree_as_it_is() -> None:
    lines = (exceptions.__doc__ or "").split("::", 1)[1].splitlines()
    shown: dict[str, set[str]] = {}
    parents: list[str] = []
    for line in lines:
        found = re.match(r" {4}([│├└─ ]*)(\w+)\((\w+)\)|^ {4}([│├└─ ]*)(\w+) {2,}", line)
        if found is None:
            continue
        depth = len(found[1] if found[2] else found[4]) // 4
        name = found[2] or found[5]
        parents[depth:] = [name]
        shown[name] = {found[3]} if found[2] else set()
        if depth:
            shown[name].add(parents[depth - 1])
    real = {name: {base.__name__ for base in getattr(exceptions, name).__bases__} for name in exceptions.__all__}
    assert shown == real


@pytest.mark.parametrize("error", EVERY, ids=str)
def test_every_error_survives_pickling(error: CacheError) -> None:
    """Process pools and task queues send errors to other processes."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (ConfigurationError("x"), "ValueError"),
        (MissingExtraError("redis"), "ImportError"),
        (UnkeyableError("params", "app.User"), "TypeError"),
        (UnstorableValueError("app.User"), "TypeError"),
        (LayerTimeout("L2", "get"), "TimeoutError"),
        (RecursiveLoadError("x"), "RuntimeError"),
        (CacheClosedError("x"), "RuntimeError"),
        (FrameError("magic"), "ValueError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_plain_handlers_work(error: CacheError, base: str) -> None:
    assert isinstance(error, getattr(builtins, base))


def test_a_missing_extra_says_how_to_get_it() -> None:
    error = MissingExtraError("redis", "a Redis layer")
    assert str(error) == 'a Redis layer needs an optional dependency: pip install "aurelis-cache[redis]"'
    assert (error.extra, error.feature) == ("redis", "a Redis layer")
    assert 'pip install "aurelis-cache[otel]"' in str(MissingExtraError("otel"))


def test_an_unkeyable_argument_is_located() -> None:
    error = UnkeyableError("params['x'][0]", "app.User")
    assert (error.path, error.type_name) == ("params['x'][0]", "app.User")
    assert "params['x'][0] of type app.User" in str(error)


def test_an_unstorable_value_says_how_to_make_it_storable() -> None:
    error = UnstorableValueError("app.models.User", "value['rows'][0]")
    assert (error.type_name, error.path) == ("app.models.User", "value['rows'][0]")
    assert "value['rows'][0] of type app.models.User" in str(error)
    assert "CacheConfig(types=[User])" in str(error)


def test_a_failing_layer_is_named() -> None:
    for error in (LayerError("L2", "get"), LayerTimeout("L2", "get"), LayerUnavailableError("L2", "get")):
        assert (error.layer, error.operation) == ("L2", "get")
        assert "'L2'" in str(error)
        assert "'get'" in str(error)
    assert str(LayerError("L2", "get", "ConnectionError")).endswith(": ConnectionError")


def test_types_are_named_with_their_module() -> None:
    assert type_name(int) == "int"
    assert type_name(re.Pattern) == "re.Pattern"
