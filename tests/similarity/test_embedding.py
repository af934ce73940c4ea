"""`OpenAIEmbedder`: vectors of a real server that speaks as OpenAI's does, by both families of clients."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

from aurelis.cache import CacheManager, ModelResponseCache, OpenAIEmbedder, SimilarityCache
from aurelis.cache.exceptions import ConfigurationError, EmbeddingError, MissingExtraError
from tests.client.upstream import Asked, Reply, Server, Upstream, json_reply
from tests.managers import configuration, opened, run_script
from tests.similarity.pairs import IN_OTHER_WORDS
from tests.similarity.test_cache import PARIS, Answer


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for this file."""
    with Server().running() as server:
        yield server


@pytest.fixture
def upstream(server: Server) -> Upstream:
    """One that gives for each text its length and 1, the last one first."""
    upstream = server.part()

    def answer(asked: Asked) -> Reply:
        texts = json.loads(asked.body)["input"]
        data = [{"index": index, "embedding": [len(text), 1.0]} for index, text in enumerate(texts)]
        return json_reply({"object": "list", "data": data[::-1], "usage": {"total_tokens": 1}})

    upstream.answer = answer
    return upstream


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_it_asks_for_vectors_in_batches_and_gives_them_in_order(library: Any, upstream: Upstream) -> None:
    async with library.AsyncClient() as client:
        url = f"{upstream.url}/v1/embeddings"
        embedder = OpenAIEmbedder(client, "e", url=url, api_key="secret", dimensions=2, batch=2)
        assert await embedder.embed(["a", "bb", "ccc"]) == [[1, 1], [2, 1], [3, 1]]
        assert await embedder.embed([]) == []
    assert [json.loads(asked.body) for asked in upstream.asked] == [
        {"model": "e", "input": ["a", "bb"], "encoding_format": "float", "dimensions": 2},
        {"model": "e", "input": ["ccc"], "encoding_format": "float", "dimensions": 2},
    ]
    assert {asked.headers["authorization"] for asked in upstream.asked} == {"Bearer secret"}


async def test_each_text_is_asked_for_once_and_what_is_like_it_is_found(upstream: Upstream) -> None:
    async with (
        httpx2.AsyncClient() as client,
        opened(configuration(types=[Answer])) as manager,
        SimilarityCache(manager, embedder=OpenAIEmbedder(client, "e", url=upstream.url + "/e")) as similar,
    ):
        for model in "ab":
            for _, one, other in IN_OTHER_WORDS:
                await ModelResponseCache(manager).cache_response(model, one, {}, PARIS)
                assert await similar.find_similar_response(other, model) == PARIS
    assert upstream.calls == 2 * len(IN_OTHER_WORDS)
    assert "authorization" not in upstream.asked[0].headers


@pytest.mark.parametrize(
    "reply",
    [
        json_reply({"error": {"message": "the text was: secret"}}, status=500),
        json_reply({"data": []}),
        json_reply({"data": [{"index": 1, "embedding": [1]}]}),
        json_reply({"data": "secret"}),
        json_reply([1]),
        Reply(200, (), [b"<html>"]),
    ],
)
async def test_what_is_no_answer_is_an_error_that_repeats_nothing(upstream: Upstream, reply: Reply) -> None:
    upstream.replies(reply)
    async with httpx2.AsyncClient() as client:
        with pytest.raises(EmbeddingError) as caught:
            await OpenAIEmbedder(client, "e", url=upstream.url + "/e").embed(["secret"])
    assert "secret" not in str(caught.value)


def test_its_name_stands_for_all_that_changes_vectors() -> None:
    client: Any = object()
    names = {
        OpenAIEmbedder(client, "a").name,
        OpenAIEmbedder(client, "b").name,
        OpenAIEmbedder(client, "a", dimensions=2).name,
        OpenAIEmbedder(client, "a", url="http://localhost/v1/embeddings").name,
    }
    assert len(names) == 4
    assert OpenAIEmbedder(client, "a", api_key="x", batch=1).name in names
    assert not any("localhost" in name for name in names)


@pytest.mark.parametrize(
    "options",
    [{"model": ""}, {"url": "localhost"}, {"dimensions": 0}, {"batch": 0}],
    ids=lambda options: next(iter(options)),
)
def test_wrong_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        OpenAIEmbedder(object(), **{"model": "e", **options})  # type: ignore[arg-type]  # no client is needed


@pytest.mark.parametrize(
    ("package", "extra", "options"),
    [
        ("rapidfuzz", "similarity", {}),
        ("numpy", "similarity", {"mode": "verified"}),
        ("numpy", "similarity", {"embedder": OpenAIEmbedder(object(), "e")}),  # type: ignore[arg-type]
        ("usearch", "usearch", {"embedder": OpenAIEmbedder(object(), "e"), "index": "usearch"}),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_installed_is_named(
    package: str, extra: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "aurelis-cache\[{extra}\]"'):
        SimilarityCache(CacheManager(), **options)


def test_importing_it_imports_none_of_them() -> None:
    script = """
        import sys
        from aurelis.cache import OpenAIEmbedder, SimilarityCache, SimilarityReport, SimilarMatch
        print(sorted({"numpy", "rapidfuzz", "usearch", "httpx", "httpx2"} & sys.modules.keys()))
    """
    assert run_script(script) == "[]\n"
