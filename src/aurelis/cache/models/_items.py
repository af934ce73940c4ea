"""Calls that ask for several things at once, which are looked up and kept one by one: embeddings of several texts.

Each item has the key of the call that asks for it alone, so calls for one and calls for many share what they find. What
an item is kept as is the answer to that call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from ._answer import Document, items, members, parse
from ._canonicalise import BodyRules, canonical_body, encode, parse_object

Draft = dict[str, Any]
"""A JSON object in the making. Any: whatever JSON can hold."""

_NOTHING: Final[Draft] = {}
_MOST_AROUND: Final = 32 * 2**20
"""Bytes that all items of an answer may hold at most of what the answer has beside them, as each is kept with that."""


@dataclass(frozen=True, slots=True)
class ItemRules:
    """How the calls of one operation are taken apart, and answers put together.

    Attributes:
        inputs: the items that a body asks for, as they stand there; `None`: it cannot be told, or they belong together.
        rest: what of a body is common to all items.
        identity: what of an item tells it from others, of a call to this model.
        with_inputs: the body that asks for these items instead.
        elements: of an answer, what answers each item, in their order; `None`: it is none that can be taken apart.
        with_elements: an answer like the one given with these elements, for these inputs.
        alone: the same for one item, as the call for it alone is answered.
        element: the opposite of `alone`.
        places: names in an answer under which there is what answers single items.
        usage: where an answer tells what was used: names, each within the one before.
        limit: items that a request may have at most; `None`: there is no limit.
        alone_at: the operation that asks for one item, and the end of its path; `None`: the same.
    """

    inputs: Callable[[Document], list[Any] | None]
    rest: Callable[[Document], Draft]
    identity: Callable[[Any, str], object]
    with_inputs: Callable[[Document, list[Any]], Draft]
    elements: Callable[[Document], list[Any] | None]
    with_elements: Callable[[Document, list[Any], list[Any]], Draft]
    places: tuple[str, ...]
    usage: tuple[tuple[str, ...], ...]
    alone: Callable[[Document, Any, Any], Draft] | None = None
    element: Callable[[Document], Any] | None = None
    limit: int | None = None
    alone_at: tuple[str, str] | None = None


def digests(common: bytes, identities: Iterable[object]) -> list[str]:
    """The digest of each item: that of the call which asks for it alone.

    Args:
        common: canonical form of what all items have in common.

    Raises:
        ValueError: a number is beyond binary64.
        RecursionError: nested beyond the recursion limit.
    """
    begun = blake2b(common, digest_size=16)
    found = []
    for identity in identities:
        digest = begun.copy()
        digest.update(b"\n" + encode(identity))  # canonical JSON has no line feed
        found.append(digest.hexdigest())
    return found


@dataclass(slots=True)
class Batch:
    """A call for several items. It holds the prompt, and lives as long as the call.

    Attributes:
        inputs: as the body has them.
        digests: of the items, in their order.
    """

    rules: ItemRules
    document: Document
    inputs: list[Any]
    digests: list[str]

    def body(self, places: Sequence[int]) -> bytes:
        """The body that asks for some of the items."""
        return _dump(self.rules.with_inputs(self.document, [self.inputs[place] for place in places]))

    def parts(self, body: bytes, places: Sequence[int]) -> tuple[Document, list[bytes]] | None:
        """An answer, and of it what answers each item, as the call for it alone is answered.

        `None`: it does not answer these items one by one.
        """
        answer = parse(body)
        elements = None if answer is None else self.rules.elements(answer)
        if answer is None or elements is None or len(elements) != len(places):
            return None
        # What one of several has used is not known, and what is given again has used nothing.
        envelope = answer if len(places) == 1 else unused(answer, self.rules.usage)
        if len(places) > 1 and len(places) * len(_dump(self._emptied(envelope))) > _MOST_AROUND:
            return None
        alone = self.rules.alone or _alone_of(self.rules)
        parts = [
            _dump(alone(envelope, element, self.inputs[place])) for place, element in zip(places, elements, strict=True)
        ]
        return answer, parts

    def frame(self, answers: Sequence[Document]) -> tuple[bytes, bytes]:
        """Several answers as one, and the same without what answers single items, whose places remain."""
        together = used(answers, self.rules.usage)
        return _dump(together), _dump(self._emptied(together))

    def _emptied(self, answer: Document) -> Draft:
        return {name: type(one)() if name in self.rules.places and one else one for name, one in answer.items()}

    def joined(
        self,
        stored: Sequence[bytes],
        answers: Sequence[Document],
        earlier: Sequence[Document] = (),
        frame: bytes | None = None,
    ) -> bytes | None:
        """The answer to the call, put together from answers for one item each, in the order of the items.

        Args:
            answers: the provider's own to what was asked now: what they have used is what the call has used.
            earlier: more of them, that are of no use otherwise.
            frame: of the answer that was given to the same call before; `None`: there is none.

        Returns:
            `None`: something stored is not what it should be, or of different models.
        """
        element = self.rules.element or _element_of(self.rules)
        documents = [parse(body) for body in stored]
        elements = []
        models = {_model_of(answer) for answer in answers}
        for document in documents:
            if document is None:
                return None
            found = element(document)
            if found is None:
                return None
            models.add(_model_of(document))
            elements.append(found)
        if len(models) > 1:
            return None  # vectors of different models do not belong together
        around = None if frame is None else parse(frame)
        if answers or earlier:
            envelope = used((*answers, *earlier), self.rules.usage)
        elif around is not None and _model_of(around) in models:
            envelope = dict(around)
        else:
            envelope = unused(documents[0] or _NOTHING, self.rules.usage)
        return _dump(self.rules.with_elements(envelope, elements, self.inputs))


def take_apart(
    rules: ItemRules, model: str, body: bytes, body_rules: BodyRules, *, by_user: bool = False
) -> Batch | None:
    """A call for several items; `None`: it is not to be taken apart. Never raises."""
    document = parse_object(body)
    inputs = None if document is None else rules.inputs(document)
    if document is None or not inputs:
        return None
    try:
        common = canonical_body(rules.rest(document), body_rules, by_user=by_user)
        found = digests(common, (rules.identity(item, model) for item in inputs))
    except (ValueError, RecursionError):
        return None
    return Batch(rules, document, inputs, found)


# Usage


def unused(answer: Document, paths: tuple[tuple[str, ...], ...]) -> Draft:
    """The answer, saying that nothing was used."""
    changed = dict(answer)
    for path in paths:
        _change(changed, path, _zero)
    return changed


def used(answers: Sequence[Document], paths: tuple[tuple[str, ...], ...]) -> Draft:
    """The first answer, saying what all of them have used."""
    changed = dict(answers[0])
    for other in answers[1:]:
        for path in paths:
            _change(changed, path, _plus(_at(other, path)))
    return changed


def _zero(value: object) -> object:
    if isinstance(value, dict):
        return {name: _zero(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_zero(one) for one in value]
    return 0 if _is_number(value) else value


def _plus(other: object) -> Callable[[object], object]:
    def plus(value: object) -> object:
        if isinstance(value, dict) and isinstance(other, dict):
            return {name: _plus(other.get(name))(one) for name, one in value.items()}
        if _is_number(value) and _is_number(other):
            return value + other  # type: ignore[operator]  # both are numbers
        return value

    return plus


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _at(document: Document, path: tuple[str, ...]) -> object:
    value: object = document
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _change(document: Draft, path: tuple[str, ...], change: Callable[[object], object]) -> None:
    """Change what is at the path, if there is anything, leaving what is around it as it was for others."""
    for name in path[:-1]:
        inner = document.get(name)
        if not isinstance(inner, dict):
            return
        document[name] = inner = dict(inner)
        document = inner
    if path[-1] in document:
        document[path[-1]] = change(document[path[-1]])


# The operations


def _alone_of(rules: ItemRules) -> Callable[[Document, Any, Any], Draft]:
    return lambda envelope, element, item: rules.with_elements(envelope, [element], [item])


def _element_of(rules: ItemRules) -> Callable[[Document], Any]:
    def element(document: Document) -> Any:
        elements = rules.elements(document)
        return elements[0] if elements is not None and len(elements) == 1 else None

    return element


def _model_of(answer: Document) -> object:
    return answer.get("model")


def _itself(item: Any, model: str) -> object:
    return item


def _inputs(document: Document) -> list[Any] | None:
    """Of OpenAI's `input`: a text, tokens, or several of either."""
    if document.get("late_chunking"):  # Jina: each text is embedded as a part of all of them
        return None
    value = document.get("input")
    if isinstance(value, str):
        return [value]
    numbers = [_is_number(one) for one in items(value)]
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


def _with_types(envelope: Document, elements: list[Any], inputs: list[Any]) -> Draft:
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


def _dump(document: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can hold and UTF-8 cannot
        return json.dumps(document, separators=(",", ":")).encode("ascii")
