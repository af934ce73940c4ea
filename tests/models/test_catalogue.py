"""Where models are looked for, and which of them."""

import pytest

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.models import OPTIONAL, PROFILES, Catalogue
from tests.models.wire import WIRES, Wire


def found(catalogue: Catalogue, address: str) -> set[str]:
    return {f"{one.name}/{one.operation}" for one in catalogue.at(address)}


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
def test_each_operation_has_a_path_of_its_own(wire: Wire) -> None:
    path = wire.path.partition("#")[0]
    catalogue = Catalogue()
    assert catalogue.may_be_call(path.encode())
    assert catalogue.may_be_call(path.partition("?")[0].encode() + b"?a=b")
    assert not catalogue.may_be_call(b"/other?" + path.encode())
    assert not catalogue.may_be_call(path.partition("?")[0].encode() + b"/more")


def test_everything_is_looked_for_everywhere() -> None:
    assert Catalogue().at("https://x/v1/chat/completions") == PROFILES


@pytest.mark.parametrize("kind", OPTIONAL)
def test_what_is_opted_in_is_looked_for_too(kind: str) -> None:
    path = OPTIONAL[kind][0].path_suffix.encode()
    assert not Catalogue().may_be_call(path)
    assert Catalogue([kind]).may_be_call(path)
    assert Catalogue([kind]).at("https://x/y") == PROFILES + OPTIONAL[kind]


def test_the_longest_base_counts() -> None:
    catalogue = Catalogue(
        protocols={
            "https://x.example": "openai",
            "https://X.example:443/a/": "anthropic",
            "https://x.example/a/b": None,
            "https://x.example/ask": "cohere/rerank",
        }
    )
    assert all(name.startswith("openai/") for name in found(catalogue, "https://x.example/v1/responses"))
    assert "anthropic/messages" in found(catalogue, "https://x.example/a")
    assert "anthropic/messages" in found(catalogue, "https://x.example/a/v1/messages")
    assert found(catalogue, "https://x.example/a/b/v1/messages") == set()
    assert found(catalogue, "https://x.example/ask/me") == {"cohere/rerank"}
    assert [one.path_suffix for one in catalogue.at("https://x.example/ask")] == [""]
    assert all(name.startswith("openai/") for name in found(catalogue, "https://x.example/asking"))
    assert catalogue.at("https://y.example/v1/messages") == PROFILES


def test_an_operation_at_any_path_makes_all_paths_worth_a_look() -> None:
    assert not Catalogue(protocols={"https://x": "openai"}).may_be_call(b"/ask")
    assert Catalogue(protocols={"https://x": "openai/chat"}).may_be_call(b"/ask")


@pytest.mark.parametrize("base", ["", "x.example", "ftp://x", "https://", "https://x?a", "https://x#a", "//x"])
def test_a_base_must_be_a_url(base: str) -> None:
    with pytest.raises(ConfigurationError, match="base URL"):
        Catalogue(protocols={base: "openai"})


@pytest.mark.parametrize("name", ["", "openai/", "openai/video", "chat", "openai/moderation", "/chat"])
def test_a_protocol_must_be_known(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is none of anthropic, anthropic/messages"):
        Catalogue(protocols={"https://x": name})


def test_an_optional_operation_is_known_where_it_is_opted_in() -> None:
    assert found(Catalogue(["audio"], {"https://x": "openai/speech"}), "https://x/say") == {"openai/speech"}
