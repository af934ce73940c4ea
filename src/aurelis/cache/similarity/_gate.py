"""The lexical gate: what two prompts must have in common before any similarity counts. Pure.

Letters and vectors see that two prompts are about the same; they hardly see a number, a "not", or who goes where. So a
candidate passes only if nothing of that kind differs. `wording` lets through what says the same in the same words, but
for articles and courtesy. `meaning`, for scores of an embedder, also lets through what says it in other words; what
says the same with one word more, or with another one in its place, says something else.
"""

from __future__ import annotations

from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Final, Literal

from ._wording import Reading
from ._words import AGAINST, FEW, FUNCTION, LANGUAGES, LETTERED, LIGHT, OPPOSITES, QUANTITY, REVERSING

Gate = Literal["wording", "meaning"]
Refusal = Literal[
    "numbers", "units", "signs", "negation", "order", "names", "opposites", "quantity", "words", "language"
]

_SAME_SENTENCE: Final = 0.6
"""Part of the words in common from which two prompts are the same sentence but for some words."""

_FEW_WORDS: Final = 5
"""With fewer words there is no saying the same in others."""
_FEW_TOKENS: Final = 4
"""With fewer words, an article can make another question of it."""
_MAX_WORDS: Final = 200
"""Words of a prompt beyond which `meaning` is not looked for: comparing takes time that grows with their square."""

_OPPOSITES: Final = {
    word: frozenset().union(*(pair for pair in OPPOSITES if word in pair)) - {word}
    for word in frozenset().union(*OPPOSITES)
}
_AGAINST: Final = tuple(order for pair in AGAINST for order in (pair, pair[::-1]))


def refusal(asked: Reading, known: Reading, gate: Gate) -> Refusal | None:
    """Why the answer to one prompt is none to the other; `None`: nothing speaks against it. Symmetric."""
    if min(len(_core(asked)), len(_core(known))) < _FEW_TOKENS and asked.article != known.article:
        return "words"  # what is time, what is the time
    if asked.verbatim != known.verbatim:
        return "words"
    if not _are_spelt_alike(asked, known):
        return "names"
    if asked.tokens == known.tokens and asked.capitals == known.capitals:
        return None
    if [number for number, _ in asked.numbers] != [number for number, _ in known.numbers]:
        return "numbers"
    if asked.signs != known.signs:
        return "signs"
    if asked.scripts != known.scripts:
        return "language"
    if asked.negations != known.negations:
        return "negation"
    if asked.capitals != known.capitals or _lettered(asked) != _lettered(known):
        return "names"
    if Counter(asked.words) == Counter(known.words):
        return "order"
    if asked.numbers != known.numbers:
        return "units"
    if gate == "wording" or max(len(asked.words), len(known.words)) > _MAX_WORDS:
        return "words" if _core(asked) != _core(known) else None
    return _differs_in_meaning(asked, known)


def _differs_in_meaning(asked: Reading, known: Reading) -> Refusal | None:
    first, second = _languages(asked), _languages(known)
    if first and second and not first & second:
        return "language"
    if _only(asked, QUANTITY) != _only(known, QUANTITY):
        return "quantity"
    own, other = Counter(_content(asked)), Counter(_content(known))
    if _has_opposites(set(own - other), set(other - own)):
        return "opposites"
    for one, two in ((asked, known), (known, asked)):
        if not {name for name in one.names if name not in FUNCTION} <= set(two.words) | set(two.names):
            return "names"
    if _common(asked, known) != _common(known, asked):
        return "order"
    return "words" if _is_the_same_but_for_something(asked, known) else None


def _are_spelt_alike(asked: Reading, known: Reading) -> bool:
    """Whether no word has its capitals inside at one place here and at another there; it may have none."""
    if not asked.mixed or not known.mixed or asked.mixed == known.mixed:
        return True
    forms = {word.lower(): word for word in known.mixed}
    return all(forms.get(word.lower(), word) == word for word in asked.mixed)


def _core(reading: Reading) -> list[str]:
    """What there is beside light words."""
    return [token for token in reading.tokens if token not in LIGHT]


def _lettered(reading: Reading) -> list[str]:
    """What has an "a" that is no article, or more than one."""
    pairs = pairwise(reading.tokens)
    return [
        one if two == "a" else two
        for one, two in pairs
        if (two == "a" and one in LETTERED) or (one == "a" and two in FEW)
    ]


def _content(reading: Reading) -> list[str]:
    return [word for word in reading.words if word not in FUNCTION]


def _only(reading: Reading, words: frozenset[str]) -> Counter[str]:
    return Counter(word for word in reading.words if word in words)


def _common(one: Reading, other: Reading) -> list[str]:
    """The content words of one that the other has, too, be it as one or as many, in the order of their first places."""
    there = set(map(_singular, other.words))
    return [word for word in dict.fromkeys(map(_singular, _content(one))) if word in there]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def _is_the_same_but_for_something(asked: Reading, known: Reading) -> bool:
    """Whether one has words of weight beside those of the other, or they are one sentence with a word exchanged."""
    own, other = set(_content(asked)) - LIGHT, set(_content(known)) - LIGHT
    if own < other or other < own:
        return True
    # The shorter first, so that the answer is the same both ways: the matcher is not symmetric.
    one, two = sorted((asked.words, known.words), key=lambda words: (len(words), words))
    matcher = SequenceMatcher(None, one, two, autojunk=False)
    if own != other and len(one) >= _FEW_WORDS and matcher.ratio() < _SAME_SENTENCE:
        return False  # another sentence, with words of its own
    changes = (
        (_weight(one[begin:end]), _weight(two[other_begin:other_end]))
        for kind, begin, end, other_begin, other_end in matcher.get_opcodes()
        if kind != "equal"
    )
    return any(taken != put for taken, put in changes)


def _weight(words: tuple[str, ...]) -> list[str]:
    """What of some words a sentence cannot lose or gain without becoming another one."""
    return ["what" if word == "which" else word for word in words if word not in LIGHT]


def _has_opposites(own: set[str], other: set[str]) -> bool:
    """Whether one has the opposite of a word of the other, in time that grows with the number of words."""
    return _has_opposite(own, other) or _has_opposite(other, own)


def _has_opposite(ones: set[str], others: set[str]) -> bool:
    full = [word for word in others if not word.endswith("less")]
    stems = {word[:-3] for word in full}
    longer_stems = {word[:-4] for word in full}
    for one in ones:
        if not others.isdisjoint(_OPPOSITES.get(one, ())):
            return True
        if len(one) > 3 and any(prefix + one in others for prefix in REVERSING):
            return True
        if one.endswith("less") and (one[:-4] in stems or one[:-3] in longer_stems):
            return True  # careful, careless
        for left, right in _AGAINST:
            if one.startswith(left) and len(one) > len(left) + 2 and right + one[len(left) :] in others:
                return True
    return False


def _languages(reading: Reading) -> frozenset[str]:
    """The languages whose small words it has most of; none when it has hardly any."""
    found = {language: sum(word in markers for word in reading.words) for language, markers in LANGUAGES.items()}
    most = max(found.values())
    return frozenset(language for language, count in found.items() if count == most) if most > 1 else frozenset()
