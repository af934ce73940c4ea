"""The names that a key has in Redis."""

import string

from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from aurelis.cache import CacheKeyBuilder
from aurelis.cache.layers._names import Names, tagged

ODD = ["", "}", "{", "{}", "}{", "{a}", "a{b}c", "}}", "%7D", ".", "{.}.", "a}", "{a", "\ud800", "é}", "k\x00"]
DIGEST = "92a374ade7cc7dd1a9a8a0d4e323e2ce"
PIECES = st.sampled_from(["{", "}", ":", ".", "%7D", "a", "v1", DIGEST, "ns"])
KEYS = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=())),
    st.lists(PIECES, max_size=9).map("".join),
    st.builds(CacheKeyBuilder("a").build_key, st.text(), st.text(), st.fixed_dictionaries({"p": st.integers(0, 3)})),
)


@given(KEYS, KEYS)
def test_different_keys_have_different_names(one: str, other: str) -> None:
    assert (tagged(one) == tagged(other)) == (one == other)


@given(st.text(min_size=1), KEYS)
def test_entry_and_lease_of_a_key_are_in_one_slot(namespace: str, key: str) -> None:
    """A tag between braces that is empty is none, and the names would differ."""
    entry, lease = Names(namespace).entry_and_lease(key)
    assert entry == Names(namespace).entry(key)
    assert entry != lease
    assert key_slot(entry) == key_slot(lease)


@given(st.text(), st.text(), st.lists(st.integers(), min_size=1, max_size=5))
def test_all_variants_of_a_thing_are_in_one_slot(category: str, identifier: str, params: list[int]) -> None:
    build = CacheKeyBuilder("shop").build_key
    names = [Names("shop").entry(build(category, identifier, {"p": param})) for param in params]
    assert len({key_slot(name) for name in names}) == 1


def test_different_things_are_in_different_slots() -> None:
    names = Names("shop")
    keys = [f"shop:v1:user:{number}" for number in range(1000)]
    assert len({key_slot(names.entry(key)) for key in keys}) > 900
    assert len({key_slot(names.entry(f"{key}:{DIGEST}")) for key in keys}) > 900


def test_people_find_what_they_look_for() -> None:
    names = Names("shop")
    assert names.entry("shop:v1:user:17") == b"shop:e:{shop:v1:user:17}"
    assert names.entry(f"shop:v1:user:17:{DIGEST}") == f"shop:e:{{v1:user:17}}:shop:{DIGEST}".encode()
    assert names.entry_and_lease("anything at all")[1] == b"shop:l:{anything at all}"


@given(st.text(min_size=1))
def test_the_pattern_of_a_namespace_means_nothing_but_itself(namespace: str) -> None:
    pattern = Names(namespace).entries
    assert pattern.endswith(b":e:*")
    assert set(pattern[:-1].decode()) <= set(string.ascii_letters + string.digits + "_.~-%:")
