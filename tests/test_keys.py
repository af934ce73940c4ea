"""Keys: stable, and never mistaken for each other."""

import doctest
import enum
import itertools
import re
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurelis.cache import _keys
from aurelis.cache._keys import CacheKeyBuilder, escape
from aurelis.cache.exceptions import ConfigurationError, UnkeyableError

SHAPE = re.compile(r"[A-Za-z0-9_.~%-]+(:[A-Za-z0-9_.~%-]*){3}(:[0-9a-f]{32})?")

# Short parts of few characters, so that a way to forge a key would be found.
parts = st.text(alphabet=":*?[]{}%^\\ \n\x00aA01.-~_/+3é中\ud800\udfff😀", max_size=4) | st.text(max_size=8)
params = st.none() | st.dictionaries(st.sampled_from(["a", "b", "1"]), st.sampled_from([0, 1, True, 1.0, "1", None]))
arguments = st.tuples(parts, parts, params, st.sampled_from(["v1", "v2", "v1:a", ""]))


def _exact(value: dict[str, Any] | None) -> object:
    return sorted((key, type(item).__name__, repr(item)) for key, item in (value or {}).items())


def test_the_examples_in_the_docstring_run() -> None:
    assert doctest.testmod(_keys).attempted
    assert not doctest.testmod(_keys).failed


@pytest.mark.parametrize(
    ("given_arguments", "key"),
    [
        (("user_data", "user123"), "aurelis:v1:user_data:user123"),
        (("a", "b", None, "v2"), "aurelis:v2:a:b"),
        (("a", "b", {}), "aurelis:v1:a:b"),
        (("a", ""), "aurelis:v1:a:"),
        (("a:b", "c*"), "aurelis:v1:a%3Ab:c%2A"),
        (("a", "100%"), "aurelis:v1:a:100%25"),
        (("é", "\ud800"), "aurelis:v1:%C3%A9:%ED%A0%80"),
        (("a", "b\n"), "aurelis:v1:a:b%0A"),
        (("s", "q", {"page": 1, "limit": 10}), "aurelis:v1:s:q:92a374ade7cc7dd1a9a8a0d4e323e2ce"),
    ],
)
def test_keys_are_what_is_stored(given_arguments: tuple[Any, ...], key: str) -> None:
    """A stored format: a change of these makes every entry a miss."""
    assert CacheKeyBuilder().build_key(*given_arguments) == key


@given(st.lists(arguments, min_size=2, max_size=5))
@settings(max_examples=300)
@example([("a:b", "c", None, "v1"), ("a", "b:c", None, "v1")])
@example([("a", "b:%s" % ("0" * 32), None, "v1"), ("a", "b", {"a": 1}, "v1")])
def test_different_arguments_never_collide(
    examples: list[tuple[str, str, dict[str, Any] | None, str]],
) -> None:
    build = CacheKeyBuilder("app").build_key
    for left, right in itertools.combinations(examples, 2):
        equal = left[:2] == right[:2] and left[3] == right[3] and _exact(left[2]) == _exact(right[2])
        assert (build(*left) == build(*right)) == equal


@given(parts.filter(bool), arguments)
def test_no_part_brings_in_a_separator_or_a_glob_character(
    namespace: str, given_arguments: tuple[str, str, dict[str, Any] | None, str]
) -> None:
    key = CacheKeyBuilder(namespace).build_key(*given_arguments)
    assert SHAPE.fullmatch(key)
    assert key.count(":") == (4 if given_arguments[2] else 3)
    assert key.startswith(escape(namespace) + ":")


@given(parts)
def test_escaping_can_be_undone(part: str) -> None:
    assert unquote(escape(part), errors="surrogatepass") == part


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 3), min_size=2), st.randoms())
def test_the_order_of_params_does_not_count(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    build = CacheKeyBuilder().build_key
    assert build("a", "b", dict(items)) == build("a", "b", value) == build("a", "b", MappingProxyType(value))


def test_types_in_params_count() -> None:
    build = CacheKeyBuilder().build_key
    keys = {build("a", "b", {"x": x}) for x in (1, 1.0, True, "1", b"1", [1], (1,), None)}
    assert len(keys) == 8


def test_a_string_enum_is_the_string() -> None:
    class Category(str, enum.Enum):  # noqa: UP042 - its `str()` is not its value, which is the trap
        USERS = "users"

    keys = CacheKeyBuilder()
    assert keys.build_key(Category.USERS, "a") == keys.build_key("users", "a")
    assert keys.build_key(Category.USERS, "a:") == keys.build_key("users", "a:")
    assert keys.build_model_key(Category.USERS, Category.USERS, {}) == keys.build_model_key("users", "users", {})


@pytest.mark.parametrize(
    ("given_arguments", "path", "type_name"),
    [
        ((1, "b"), "category", "int"),
        (("a", 1), "identifier", "int"),
        (("a", None), "identifier", "NoneType"),
        (("a", b"b"), "identifier", "bytes"),
        (("a", "b", None, 1), "version", "int"),
        (("a", "b", [("x", 1)]), "params", "list"),
        (("a", "b", []), "params", "list"),
        (("a", "b", 0), "params", "int"),
        (("a", "b", {"x": [object()]}), "params['x'][0]", "object"),
    ],
)
def test_what_cannot_be_part_of_a_key_is_named(given_arguments: tuple[Any, ...], path: str, type_name: str) -> None:
    with pytest.raises(UnkeyableError) as raised:
        CacheKeyBuilder().build_key(*given_arguments)
    assert (raised.value.path, raised.value.type_name) == (path, type_name)


def test_a_namespace_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="namespace"):
        CacheKeyBuilder("")
    with pytest.raises(UnkeyableError, match="namespace"):
        CacheKeyBuilder(1)  # type: ignore[arg-type]  # the point of the test


def test_namespaces_are_apart() -> None:
    assert CacheKeyBuilder().namespace == "aurelis"
    assert CacheKeyBuilder("a:v1").build_key("b", "c") != CacheKeyBuilder("a").build_key("v1:b", "c")


class TestModelKeys:
    def test_the_key_is_built_from_model_prompt_and_parameters(self) -> None:
        keys = CacheKeyBuilder()
        key = keys.build_model_key("gpt-4o", "Hello", {"temperature": 0})
        assert re.fullmatch(r"aurelis:v1:model:gpt-4o%3A[0-9a-f]{32}:[0-9a-f]{32}", key)
        assert keys.build_model_key("gpt-4o", "Hello", {}) == keys.build_model_key("gpt-4o", "Hello", None)

    @given(st.lists(st.tuples(parts, parts, params), min_size=2, max_size=5))
    def test_different_calls_never_collide(self, calls: list[tuple[str, str, dict[str, Any] | None]]) -> None:
        build = CacheKeyBuilder().build_model_key
        for left, right in itertools.combinations(calls, 2):
            equal = left[:2] == right[:2] and _exact(left[2]) == _exact(right[2])
            assert (build(*left) == build(*right)) == equal

    @pytest.mark.parametrize(
        ("call", "path"),
        [
            ((1, "x", {}), "model_type"),
            (("x", None, {}), "prompt"),
            (("x", ["x"], {}), "prompt"),
            (("x", "x", {"tools": [object()]}), "parameters['tools'][0]"),
        ],
    )
    def test_wrong_arguments_are_named(self, call: tuple[Any, ...], path: str) -> None:
        with pytest.raises(UnkeyableError) as raised:
            CacheKeyBuilder().build_model_key(*call)
        assert raised.value.path == path
