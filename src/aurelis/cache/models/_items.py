"""Calls that ask for several things at once, which are looked up and kept one by one: embeddings of several texts.

Each item has the key of the call that asks for it alone, so calls for one and calls for many share what they find. What
an item is kept as is the answer to that call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from ._answer import Document, parse
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
        with_elements: an answer like the one given with these elements, for these inputs. Raises `ValueError` where
            they do not belong together.
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
    inputs: list[Any] = field(repr=False)
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
            `None`: something stored is not what it should be, or of different models or kinds.
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
        try:
            return _dump(self.rules.with_elements(envelope, elements, self.inputs))
        except ValueError:
            return None


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
    return 0 if is_number(value) else value


def _plus(other: object) -> Callable[[object], object]:
    def plus(value: object) -> object:
        if isinstance(value, dict) and isinstance(other, dict):
            return {name: _plus(other.get(name))(one) for name, one in value.items()}
        if is_number(value) and is_number(other):
            return value + other  # type: ignore[operator]  # both are numbers
        return value

    return plus


def is_number(value: object) -> bool:
    """Whether JSON holds a number."""
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


def _alone_of(rules: ItemRules) -> Callable[[Document, Any, Any], Draft]:
    return lambda envelope, element, item: rules.with_elements(envelope, [element], [item])


def _element_of(rules: ItemRules) -> Callable[[Document], Any]:
    def element(document: Document) -> Any:
        elements = rules.elements(document)
        return elements[0] if elements is not None and len(elements) == 1 else None

    return element


def _model_of(answer: Document) -> object:
    return answer.get("model")


def _dump(document: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can hold and UTF-8 cannot
        return json.dumps(document, separators=(",", ":")).encode("ascii")
