"""How the calls for embeddings of each protocol are taken apart, and their answers put together."""

from __future__ import annotations

from typing import Any, Final

from ._answer import Document, items, members
from ._items import Draft, ItemRules, is_number


def _itself(item: Any, model: str) -> object:
    return item


def _inputs(document: Document) -> list[Any] | None:
    """Of OpenAI's `input`: a text, tokens, or several of either."""
    if document.get("late_chunking"):  # Jina: each text is embedded as a part of all of them
        return None
    value = document.get("input")
    if isinstance(value, str):
        return [value]
    numbers = [is_number(one) for one in items(value)]
    if not any(numbers):
        return list(items(value)) or None
    return [value] if all(numbers) else None


def _without_input(document: Document) -> Draft:
    return {name: value for name, value in document.items() if name != "input"}


def _with_input(document: Document, inputs: list[Any]) -> Draft:
    return {name: inputs if name == "input" else value for name, value in document.items()}


def _data(answer: Document) -> list[Any] | None:
    """The elements of OpenAI's `data`, in the order of their `index`, which some servers leave out."""
    ordered: dict[int, Any] = {}
    data = items(answer.get("data"))
    if all(members(element).get("embedding") is not None and "index" not in element for element in data):
        return data
    for element in data:
        index = members(element).get("index")
        if isinstance(index, bool) or not isinstance(index, int) or element.get("embedding") is None:
            return None
        ordered[index] = element
    return [ordered[index] for index in range(len(data))] if ordered.keys() == set(range(len(data))) else None


def _with_data(envelope: Document, elements: list[Any], inputs: list[Any]) -> Draft:
    data = [{**one, "index": index} if "index" in one else one for index, one in enumerate(elements)]
    return {**envelope, "data": data}


OPENAI: Final = ItemRules(
    inputs=_inputs,
    rest=_without_input,
    identity=_itself,
    with_inputs=_with_input,
    elements=_data,
    with_elements=_with_data,
    places=("data",),
    usage=(("usage",),),
    limit=2048,
)


def _vectors(answer: Document) -> list[Any] | None:
    vectors = answer.get("embeddings")
    return vectors if isinstance(vectors, list) and all(isinstance(one, list) and one for one in vectors) else None


def _with_vectors(envelope: Document, elements: list[Any], inputs: list[Any]) -> Draft:
    return {**envelope, "embeddings": elements}


OLLAMA: Final = ItemRules(
    inputs=_inputs,
    rest=_without_input,
    identity=_itself,
    with_inputs=_with_input,
    elements=_vectors,
    with_elements=_with_vectors,
    places=("embeddings",),
    usage=(("prompt_eval_count",), ("total_duration",), ("load_duration",)),
)

_KINDS: Final = ("texts", "images", "inputs")


def _kind(document: Document) -> str | None:
    """Which kind of things Cohere is asked for; `None`: several, or none."""
    kinds = [kind for kind in _KINDS if document.get(kind) is not None]
    return kinds[0] if len(kinds) == 1 else None


def _of_kind(document: Document) -> list[Any] | None:
    kind = _kind(document)
    # Named, so that a text is not taken for an image that is written alike.
    return None if kind is None else [{kind: one} for one in items(document[kind])] or None


def _without_kind(document: Document) -> Draft:
    return {name: value for name, value in document.items() if name not in _KINDS}


def _with_kind(document: Document, inputs: list[Any]) -> Draft:
    kind = _kind(document)
    return {name: [one[kind] for one in inputs] if name == kind else value for name, value in document.items()}


def _by_type(answer: Document) -> list[Any] | None:
    """Of Cohere's embeddings, which are lists by type of number: for each thing one of each type, and what it was."""
    types = answer.get("embeddings")
    if not isinstance(types, dict):
        return None
    lengths = {len(value) if isinstance(value, list) else -1 for value in types.values() if value is not None}
    if len(lengths) != 1 or -1 in lengths:
        return None
    (number,) = lengths
    images = items(answer.get("images"))
    return [
        {
            "vectors": {name: None if value is None else value[place] for name, value in types.items()},
            "image": images[place] if len(images) == number else None,
        }
        for place in range(number)
    ]


def _types(element: Any) -> set[str]:
    return {name for name, vector in element["vectors"].items() if vector is not None}


def _with_types(envelope: Document, elements: list[Any], inputs: list[Any]) -> Draft:
    if any(_types(one) != _types(elements[0]) for one in elements):
        raise ValueError("vectors of different types of numbers do not belong together")
    answer = dict(envelope)
    answer["embeddings"] = {
        name: None if one is None else [element["vectors"][name] for element in elements]
        for name, one in elements[0]["vectors"].items()
    }
    if isinstance(answer.get("texts"), list):
        answer["texts"] = [one["texts"] for one in inputs if "texts" in one]
    if isinstance(answer.get("images"), list):
        answer["images"] = [element["image"] for element in elements if element["image"] is not None]
    return answer


COHERE: Final = ItemRules(
    inputs=_of_kind,
    rest=_without_kind,
    identity=_itself,
    with_inputs=_with_kind,
    elements=_by_type,
    with_elements=_with_types,
    places=("embeddings", "texts", "images"),
    usage=(("meta", "billed_units"), ("meta", "tokens")),
    limit=96,
)


def _requests(document: Document) -> list[Any] | None:
    requests = items(document.get("requests"))
    return requests if requests and all(isinstance(one, dict) for one in requests) else None


def _without_model(item: Any, model: str) -> object:
    """A request of Gemini without the model, where that is the one that the path names."""
    if members(item).get("model") not in (f"models/{model}", model):
        return item
    return {name: value for name, value in item.items() if name != "model"}


def _values(answer: Document) -> list[Any] | None:
    elements = items(answer.get("embeddings"))
    return elements if elements and all(members(one).get("values") for one in elements) else None


def _embedding(answer: Document) -> Any:
    element = members(answer.get("embedding"))
    return element if element.get("values") else None


def _with_embedding(envelope: Document, element: Any, item: Any) -> Draft:
    return {"embedding": element, **{name: value for name, value in envelope.items() if name != "embeddings"}}


def _with_embeddings(envelope: Document, elements: list[Any], inputs: list[Any]) -> Draft:
    around = {name: value for name, value in envelope.items() if name != "embedding"}
    return {**around, "embeddings": elements} if "embeddings" in around else {"embeddings": elements, **around}


GEMINI_BATCH: Final = ItemRules(
    inputs=_requests,
    rest=lambda document: {name: value for name, value in document.items() if name != "requests"},
    identity=_without_model,
    with_inputs=lambda document, inputs: {**document, "requests": inputs},
    elements=_values,
    with_elements=_with_embeddings,
    places=("embeddings",),
    alone=_with_embedding,
    element=_embedding,
    usage=(("usageMetadata",),),
    limit=100,
    alone_at=("embedContent", ":embedContent"),
)


def item_of_gemini(document: Document, model: str) -> object:
    """The item that a call for one embedding asks for."""
    return _without_model(document, model)
