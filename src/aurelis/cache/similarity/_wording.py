"""A prompt as the lexical gate reads it: words, numbers, signs, negations and names, in their order."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from ._words import (
    ASKINGS,
    CASE_MATTERS,
    COURTESY,
    GREETINGS,
    HOW_TO,
    NEGATIONS,
    NEGATIONS_INSIDE,
    OPENINGS,
    QUESTIONS,
    TASKS,
    THANKS,
)

_TOKEN: Final = re.compile(
    r"(?P<number>\d+(?:[.,:/]\d+)*)|(?P<word>[^\W\d_]+(?:['’ʼ][^\W\d_]+)*)|(?P<space>\s+)|(?P<sign>.)", re.DOTALL
)
_LIGHT: Final = frozenset(".,;:?'\"`…–—‘’“”«»¿¡、。，！？：；・")
"""Punctuation that may differ. A full stop, a dash and an exclamation mark count where they begin something."""
_CLOSING: Final = frozenset("!?.:\"')]”’»")
_SENTENCE_ENDS: Final = frozenset(".!?:;。！？\n")

_ENDINGS: Final = {"'re": "are", "'ll": "will", "'ve": "have", "n't": "not"}
_IS: Final = frozenset(("what", "who", "where", "how", "when", "why", "that", "it", "there", "here"))
_SPELT: Final = {
    "cannot": ("can", "not"),
    "can't": ("can", "not"),
    "won't": ("will", "not"),
    "shan't": ("shall", "not"),
    "i'm": ("i", "am"),
    "whats": ("what", "is"),
    **{
        verb + "nt": (verb, "not")
        for verb in (
            *("are", "could", "did", "do", "does", "had", "has", "have", "is", "should", "was", "were", "would"),
        )
    },
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a prompt counts.

    Attributes:
        tokens: words, numbers and signs in order; words in lower case, written out, without courtesy.
        words: the words among them.
        numbers: the numbers among them, each with the word that follows it, which may be a unit, or with nothing.
        signs: the signs among them.
        negations: how many negations there are.
        names: words that begin with a capital inside of a sentence, or that have several.
        capitals: of those words whose meaning depends on it, the ones with a capital.
        scripts: in which it is written, as far as letters say.
    """

    tokens: tuple[str, ...]
    words: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    signs: tuple[str, ...]
    negations: int
    names: tuple[str, ...]
    capitals: tuple[str, ...]
    scripts: frozenset[str]

    @property
    def text(self) -> str:
        """What is compared letter by letter."""
        return " ".join(self.tokens)


def read(prompt: str) -> Reading:
    """Read a prompt, in time that grows with its length. Never raises."""
    tokens: list[str] = []
    kinds: list[str] = []
    names: list[str] = []
    capitals: list[str] = []
    text = unicodedata.normalize("NFC", prompt)
    shouts = text.isupper()
    begins = True
    for match in _TOKEN.finditer(text):
        kind, found = str(match.lastgroup), match.group()
        if kind == "space":
            begins = begins or "\n" in found
            continue
        if kind == "sign":
            if _counts(text, match.start(), found):
                tokens.append(found)
                kinds.append(kind)
            begins = begins or found in _SENTENCE_ENDS
            continue
        if kind == "number":
            tokens.append(found)
            kinds.append(kind)
            begins = False
            continue
        lower = found.casefold().replace("’", "'").replace("ʼ", "'")
        several = sum(map(str.isupper, found)) > 1
        written = _written_out(lower)
        if not shouts and ((found[0].isupper() and not begins) or several) and written == (lower,) and lower != "i":
            names.append(lower)
        if not shouts and lower in CASE_MATTERS and found[0].isupper() and (not begins or several):
            capitals.append(lower)
        tokens += written
        kinds += ["word"] * len(written)
        begins = False
    return _reading(*_without_courtesy(tokens, kinds), tuple(names), tuple(capitals), text)


def _reading(
    tokens: list[str], kinds: list[str], names: tuple[str, ...], capitals: tuple[str, ...], text: str
) -> Reading:
    words = tuple(token for token, kind in zip(tokens, kinds, strict=True) if kind == "word")
    follows = [*zip(tokens[1:], kinds[1:], strict=True), ("", "")]
    numbers = tuple(
        (token, after if after_kind == "word" else "")
        for token, kind, (after, after_kind) in zip(tokens, kinds, follows, strict=False)
        if kind == "number"
    )
    signs = tuple(token for token, kind in zip(tokens, kinds, strict=True) if kind == "sign")
    negations = sum(word in NEGATIONS for word in words) + sum(map(text.count, NEGATIONS_INSIDE))
    return Reading(tuple(tokens), words, numbers, signs, negations, names, capitals, _scripts(words))


def _counts(text: str, at: int, sign: str) -> bool:
    """Whether a sign is more than punctuation."""
    after = text[at + 1 : at + 2]
    before = text[at - 1 : at] if at else ""
    if sign in "-–−":
        if text[:at].rstrip()[-1:].isdigit() or text[at + 1 : at + 40].lstrip()[:1].isdigit():
            return True  # a minus, a range
        return after.isalnum() and not before.isalnum()  # an option
    if sign in ".:?!":
        return bool(after) and not after.isspace() and after not in _CLOSING  # .5, .env, a::b, !=
    if sign in "'’\"":
        if before.isdigit():
            return text.count(sign) % 2 == 1  # inches; a pair of them quotes
        return before.isalnum() and after in ("(", "'")  # a derivative
    return sign not in _LIGHT


def _written_out(word: str) -> tuple[str, ...]:
    if word in _SPELT:
        return _SPELT[word]
    if word.endswith("'s") and word[:-2] in _IS:
        return word[:-2], "is"
    for ending, full in _ENDINGS.items():
        if word.endswith(ending) and len(word) > len(ending):
            return word[: -len(ending)], full
    return (word,)


def _without_courtesy(tokens: list[str], kinds: list[str]) -> tuple[list[str], list[str]]:
    """Leave out what asks nicely, and put a question that is told as one into its usual order."""
    kept = [
        (token, kind)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind != "word" or (token not in COURTESY and token != "the")
    ]
    if not kept:
        return tokens, kinds
    words = [token for token, _ in kept]
    if len(words) > 1 and words[0] in GREETINGS:
        del kept[0], words[0]
    for thanks in THANKS:
        if len(words) > len(thanks) and tuple(words[-len(thanks) :]) == thanks:
            del kept[-len(thanks) :], words[-len(thanks) :]
    if tuple(words[:2]) in OPENINGS and len(words) > 2 and words[2] in TASKS:
        del kept[:2], words[:2]
    if len(words) > 2 and words[0] in TASKS and words[1] == "me" and words[2] not in QUESTIONS:
        del kept[1], words[1]
    for opening in ASKINGS:
        size = len(opening)
        if tuple(words[:size]) == opening and len(words) > size and words[size] in QUESTIONS:
            del kept[:size], words[:size]
            if len(words) > 2 and words[-1] in ("is", "are") and words[0] in ("what", "where", "who"):
                kept.insert(1, kept.pop())
                words.insert(1, words.pop())
    if tuple(words[:3]) in HOW_TO and len(words) > 3:
        kept[:3] = [("how", "word"), ("to", "word")]
    pairs = [
        pair
        for index, pair in enumerate(kept)
        if not (pair[0] == "city" and index and kept[index - 1][0] == "capital" and kept[index - 1][1] == "word")
    ]
    return [token for token, _ in pairs], [kind for _, kind in pairs]


def _scripts(words: tuple[str, ...]) -> frozenset[str]:
    """The first words of the letters' names, such as LATIN, CYRILLIC or CJK."""
    letters = set().union(*words) if words else set()
    return frozenset(unicodedata.name(letter, "?").partition(" ")[0] for letter in letters if letter.isalpha())
