"""Calls for several items are taken apart, and answers put together."""

import json
from typing import Any

import pytest

from aurelis.cache.models import Batch, Catalogue, ItemRules, ModelRequest, apart, recognise
from aurelis.cache.models._item_rules import COHERE, GEMINI_BATCH, OLLAMA, OPENAI
from aurelis.cache.models._items import unused, used
from tests.models.examples import FIELDS, POLICY, dump

BASE = "https://model.example"
EMBEDDINGS = "/v1/embeddings"
BATCH = "/v1beta/models/e-1:batchEmbedContents"
ONE = "/v1beta/models/e-1:embedContent"
Doc = dict[str, Any]


def request(path: str, body: Doc, **more: Any) -> ModelRequest:
    call = recognise("POST", path, b"application/json", dump(body), **more)
    assert call is not None
    return ModelRequest(BASE + path, FIELDS, call)


def keys(path: str, body: Doc, *, by_user: bool = False) -> list[str]:
    """The keys of the items of a call."""
    found = apart(request(path, body, by_user=by_user), dump(body), by_user=by_user)
    assert found is not None
    return [POLICY.key(one) for one in found[2]]


def key(path: str, body: Doc, **more: Any) -> str:
    return POLICY.key(request(path, body, **more))


def batch(path: str, body: Doc) -> Batch:
    found = apart(request(path, body), dump(body))
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("a", 0),
        (["a"], 0),
        ([1, 2], 0),
        ([[1, 2]], 0),
        (["a", "b"], 2),
        ([[1], [2]], 2),
        (["a", [1]], 2),
        ([{"image": "x"}, {"text": "x"}], 2),
        (["a", 1], 0),
        ([], 0),
    ],
)
def test_how_many_items_there_are(value: object, number: int) -> None:
    assert request(EMBEDDINGS, {"model": "m", "input": value}).call.items == number


def test_an_item_has_the_key_of_the_call_that_asks_for_it_alone() -> None:
    body = {"model": "m", "dimensions": 3, "user": "u"}
    found = keys(EMBEDDINGS, {**body, "input": ["a", [1, 2], "a"]})
    assert found[0] == found[2] == key(EMBEDDINGS, {**body, "input": "a"}) == key(EMBEDDINGS, {**body, "input": ["a"]})
    assert found[1] == key(EMBEDDINGS, {**body, "input": [1, 2]}) == key(EMBEDDINGS, {**body, "input": [[1, 2]]})
    assert found[0] == key(EMBEDDINGS, {"input": "a", "dimensions": 3, "model": "m"})


@pytest.mark.parametrize(
    "change", [{"model": "n"}, {"dimensions": 4}, {"encoding_format": "float"}, {"unknown": 1}], ids=str
)
def test_all_else_in_a_body_tells_items_apart(change: Doc) -> None:
    body = {"model": "m", "input": ["a", "b"]}
    assert not set(keys(EMBEDDINGS, body)) & set(keys(EMBEDDINGS, {**body, **change}))


def test_texts_and_tokens_are_different_items() -> None:
    assert len(set(keys(EMBEDDINGS, {"model": "m", "input": ["1", [1], "[1]", '"1"', [1, 1]]}))) == 5


def test_on_whose_behalf_a_call_is_made_tells_items_apart_where_that_is_wanted() -> None:
    one, two = ({"model": "m", "input": ["a", "b"], "user": user} for user in ("u", "v"))
    assert keys(EMBEDDINGS, one) == keys(EMBEDDINGS, two)
    assert not set(keys(EMBEDDINGS, one, by_user=True)) & set(keys(EMBEDDINGS, two, by_user=True))


def test_what_an_answer_has_beside_its_items_is_under_a_key_of_its_own() -> None:
    body = {"model": "m", "input": ["a", "b"]}
    found = apart(request(EMBEDDINGS, body), dump(body))
    assert found is not None
    assert len({POLICY.key(found[0]), key(EMBEDDINGS, body), *(POLICY.key(one) for one in found[2])}) == 4


def test_a_request_of_gemini_is_what_embedcontent_asks_for() -> None:
    content = {"parts": [{"text": "a"}]}
    asked = [{"model": "models/e-1", "content": content}, {"content": content, "taskType": "X"}]
    first, second = keys(BATCH, {"requests": asked})
    assert first == key(ONE, {"content": content}) == key(ONE, {"content": content, "model": "models/e-1"})
    assert second == key(ONE, {"content": content, "taskType": "X"})
    other = keys(BATCH, {"requests": [{"model": "models/e-2", "content": content}]})
    assert other != [first]
    assert request(BATCH, {"requests": asked[:1]}).call.items == 1  # answered in another form than when it is alone


def test_a_forced_operation_keeps_its_address() -> None:
    profiles = Catalogue(protocols={BASE: "gemini/batchEmbedContents"}).at(f"{BASE}/ask")
    body = dump({"requests": [{"content": {}}, {}]})
    call = recognise("POST", "/ask", b"application/json", body, profiles)
    assert call is not None
    found = apart(ModelRequest(f"{BASE}/ask?x=1", FIELDS, call), body)
    assert found is not None
    assert [one.url for one in found[2]] == [f"{BASE}/ask?x=1"] * 2


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"input": ["a", 1e400], "model": "m"}'])
def test_what_cannot_be_read_is_not_taken_apart(body: bytes) -> None:
    whole = request(EMBEDDINGS, {"model": "m", "input": ["a", "b"]})
    assert apart(whole, body) is None
    assert apart(request("/v1/completions", {"model": "m", "prompt": ["a", "b"]}), body) is None


def test_the_body_for_some_items() -> None:
    body = {"input": ["é", "\ud83d", "c"], "model": "m"}
    some = batch(EMBEDDINGS, body)
    assert json.loads(some.body([2, 1])) == {"input": ["c", "\ud83d"], "model": "m"}
    assert some.body([0]) == '{"input":["é"],"model":"m"}'.encode()


# Answers


def embedding(index: int, value: object) -> Doc:
    return {"object": "embedding", "index": index, "embedding": value}


ANSWER: Doc = {
    "object": "list",
    "data": [embedding(1, "BB"), embedding(0, "AA")],
    "model": "m",
    "usage": {"prompt_tokens": 7, "total_tokens": 7, "details": {"cached": [1, 2]}},
}


def test_an_answer_is_taken_apart_in_the_order_of_its_items() -> None:
    parts = batch(EMBEDDINGS, {"model": "m", "input": ["a", "b"]}).parts(dump(ANSWER), [0, 1])
    assert parts is not None
    assert parts[0] == ANSWER
    first = json.loads(parts[1][0])
    assert first["data"] == [embedding(0, "AA")]
    assert first["usage"] == {"prompt_tokens": 0, "total_tokens": 0, "details": {"cached": [0, 0]}}


def test_an_answer_with_too_much_beside_its_items_is_not_taken_apart() -> None:
    texts = [str(number) for number in range(40)]
    answer = {**ANSWER, "data": [embedding(place, "AA") for place in range(40)], "padding": "x" * 2**20}
    whole = batch(EMBEDDINGS, {"model": "m", "input": texts})
    assert whole.parts(dump(answer), range(40)) is None
    assert whole.parts(dump({**answer, "padding": ""}), range(40)) is not None


def test_one_item_has_used_what_its_answer_says() -> None:
    answer = {**ANSWER, "data": [embedding(0, "AA")]}
    parts = batch(EMBEDDINGS, {"model": "m", "input": ["a", "b"]}).parts(dump(answer), [1])
    assert parts is not None
    assert json.loads(parts[1][0]) == answer


def test_answers_are_put_together_and_their_usage_added_up() -> None:
    whole = batch(EMBEDDINGS, {"model": "m", "input": ["b", "a", "b"]})
    stored = [dump({**ANSWER, "data": [embedding(0, value)]}) for value in ("BB", "AA", "BB")]
    joined = whole.joined(stored, [ANSWER, ANSWER], [ANSWER])
    assert joined is not None
    answer = json.loads(joined)
    assert [(one["index"], one["embedding"]) for one in answer["data"]] == [(0, "BB"), (1, "AA"), (2, "BB")]
    assert answer["usage"] == {"prompt_tokens": 21, "total_tokens": 21, "details": {"cached": [1, 2]}}


def test_what_is_not_asked_for_now_has_used_nothing() -> None:
    whole = batch(EMBEDDINGS, {"model": "m", "input": ["a", "b"]})
    stored = [dump({**ANSWER, "data": [embedding(0, value)]}) for value in ("AA", "BB")]
    bare = whole.joined(stored, [])
    assert bare is not None
    assert json.loads(bare)["usage"]["total_tokens"] == 0
    _, frame = whole.frame([ANSWER])
    assert list(json.loads(frame).items())[1] == ("data", [])
    framed = whole.joined(stored, [], frame=frame)
    assert framed is not None
    assert json.loads(framed)["usage"]["total_tokens"] == 7
    other = whole.joined(stored, [], frame=dump({**json.loads(frame), "model": "other"}))
    assert other == bare


@pytest.mark.parametrize(
    "stored",
    [b"", b"[]", dump({**ANSWER, "data": []}), dump({**ANSWER, "model": "n", "data": [embedding(0, "AA")]})],
)
def test_what_does_not_belong_together_is_not_put_together(stored: bytes) -> None:
    whole = batch(EMBEDDINGS, {"model": "m", "input": ["a", "b"]})
    good = dump({**ANSWER, "data": [embedding(0, "AA")]})
    assert whole.joined([good, stored], []) is None
    assert whole.joined([good, stored], [ANSWER]) is None


@pytest.mark.parametrize(
    ("rules", "answer"),
    [
        (OPENAI, {"data": []}),
        (OPENAI, {"data": [{"index": True, "embedding": [1]}]}),
        (OPENAI, {"data": [{"index": 1, "embedding": [1]}]}),
        (OPENAI, {"data": [embedding(0, None)]}),
        (OPENAI, {"data": ["x"]}),
        (OLLAMA, {"embeddings": [[]]}),
        (OLLAMA, {"embeddings": {}}),
        (OLLAMA, {}),
        (COHERE, {"embeddings": [[1]]}),
        (COHERE, {"embeddings": {}}),
        (COHERE, {"embeddings": {"float": [[1]], "int8": []}}),
        (COHERE, {"embeddings": {"float": 1}}),
        (GEMINI_BATCH, {"embeddings": [{}]}),
        (GEMINI_BATCH, {"embeddings": []}),
        (GEMINI_BATCH, {}),
    ],
)
def test_what_answers_no_items(rules: ItemRules, answer: Doc) -> None:
    elements = rules.elements(answer)
    assert not elements


def test_cohere_is_asked_for_one_kind_of_things() -> None:
    assert COHERE.inputs({"texts": ["a"], "images": ["b"]}) is None
    assert COHERE.inputs({"texts": []}) is None
    assert COHERE.inputs({"texts": ["a"], "images": None}) == [{"texts": "a"}]
    texts = keys("/v2/embed", {"model": "m", "texts": ["a", "b"]})
    assert not set(texts) & set(keys("/v2/embed", {"model": "m", "images": ["a", "b"]}))


def test_images_of_cohere_keep_what_is_said_of_them() -> None:
    body = {"model": "m", "images": ["x", "y"]}
    answer = {"embeddings": {"float": [[1], [2]], "int8": None}, "images": [{"width": 1}, {"width": 2}], "meta": {}}
    whole = batch("/v2/embed", body)
    parts = whole.parts(dump(answer), [0, 1])
    assert parts is not None
    assert json.loads(parts[1][1]) == {
        "embeddings": {"float": [[2]], "int8": None},
        "images": [{"width": 2}],
        "meta": {},
    }
    assert whole.joined(parts[1], [answer]) == dump(answer)


def test_usage_is_changed_where_it_is_and_nowhere_else() -> None:
    answer = {"meta": {"billed_units": {"input_tokens": 2}, "api_version": {"version": "2"}}, "id": 7}
    paths = (("meta", "billed_units"), ("meta", "tokens"), ("usage",))
    assert unused(answer, paths) == {**answer, "meta": {**answer["meta"], "billed_units": {"input_tokens": 0}}}  # type: ignore[dict-item]
    assert used([answer, answer, {"meta": 1}], paths)["meta"]["billed_units"] == {"input_tokens": 4}
    assert answer["meta"]["billed_units"] == {"input_tokens": 2}  # type: ignore[index]
