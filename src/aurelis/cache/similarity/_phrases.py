"""Phrases of English that ask the same: courtesy is left out, and what is told as a question becomes one."""

from __future__ import annotations

from typing import Final

from ._words import (
    ASKINGS,
    COURTESY,
    GREETINGS,
    HOW_TO,
    KNOWING,
    OPENINGS,
    QUESTIONS,
    SAYING,
    TASKS,
    THANKS,
    THINGS,
)

Tokens = list[tuple[str, str]]
"""Words, numbers and signs, each with its kind."""

_REPHRASED: Final = tuple(
    (tuple(begins.split()), tuple(ends.split()), tuple(instead.split()))
    for begins, ends, instead in (
        ("how is weather", "", "what is weather"),
        ("how many people live in", "", "what is population of"),
        ("how much does", "cost", "what is price of"),
        ("how old is", "", "what is age of"),
        ("how tall is", "", "what is height of"),
        ("what are steps to", "", "how to"),
        ("what is definition of", "", "define"),
        ("what is procedure to", "", "how to"),
        ("what is way to", "", "how to"),
        ("what is weather like", "", "what is weather"),
        ("where is", "located", "where is"),
        ("who is author of", "", "who wrote"),
        ("who was author of", "", "who wrote"),
    )
)
"""How a question begins and ends, and the beginning that says the same; something must be in between."""

_AFTER_GREETINGS: Final = QUESTIONS | TASKS | {opening for opening, _ in OPENINGS} | {"are", "do", "does", "i", "is"}
"""What a greeting may stand before; before all else it may be a part of a name."""


def plain(tokens: Tokens) -> Tokens:
    """The tokens as they would be if it were asked plainly; as they are, if nothing else were left."""
    kept = [(token, kind) for token, kind in tokens if kind != "word" or (token not in COURTESY and token != "the")]
    if not kept:
        return tokens
    kept = _without_frame(kept, polite=len(kept) < sum(token != "the" for token, _ in tokens))
    words = tuple(token for token, _ in kept)
    if words[:3] in HOW_TO and len(words) > 3:
        kept = _word("how", "to") + kept[3:]
    else:
        for begins, ends, instead in _REPHRASED:
            middle = len(words) - len(begins) - len(ends)
            if middle > 0 and words[: len(begins)] == begins and words[len(begins) + middle :] == ends:
                kept = _word(*instead) + kept[len(begins) : len(begins) + middle]
                break
    # The capital city of something is its capital.
    around = zip([("", ""), *kept], kept, [*kept[1:], ("", "")], strict=False)
    return [pair for before, pair, after in around if (before[0], pair[0], after[0]) != ("capital", "city", "of")]


def _without_frame(kept: Tokens, *, polite: bool) -> Tokens:
    words = [token for token, _ in kept]
    if len(words) > 1 and words[0] in GREETINGS and words[1] in _AFTER_GREETINGS:
        del kept[0], words[0]
    for thanks in THANKS:
        if len(words) > len(thanks) and tuple(words[-len(thanks) :]) == thanks:
            del kept[-len(thanks) :], words[-len(thanks) :]
    # "Can you write to a closed file?" asks whether it can be done; with "please" or "me" it asks for it to be done.
    asks = tuple(words[:2]) in OPENINGS and len(words) > 3 and words[2] in TASKS
    if asks and (polite or words[2] in SAYING or words[3] == "me"):
        del kept[:2], words[:2]
    if len(words) > 2 and words[0] in TASKS and words[1] == "me" and words[2] not in QUESTIONS:
        del kept[1], words[1]
    for opening, questions in (*((opening, QUESTIONS) for opening in ASKINGS), (KNOWING, THINGS)):
        size = len(opening)
        if tuple(words[:size]) == opening and len(words) > size and words[size] in questions:
            del kept[:size], words[:size]
            if len(words) > 2 and words[-1] in ("is", "are") and words[0] in ("what", "where", "who"):
                kept.insert(1, kept.pop())
            break
    return kept


def _word(*tokens: str) -> Tokens:
    return [(token, "word") for token in tokens]
