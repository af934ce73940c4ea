"""A prompt as the lexical gate reads it: words, numbers, signs, negations and names, in their order."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from ._phrases import Tokens, plain
from ._spelling import Spelling
from ._words import ABOUT_WORDS, ALIKE, ARTICLES, BRITISH, COURTESY, NEGATIONS, NEGATIONS_INSIDE

_TOKEN: Final = re.compile(
    r"(?P<number>\d+(?:[.,:/]\d+)*)|(?P<word>[^\W\d_]+(?:['’ʼ][^\W\d_]+)*)|(?P<space>\s+)|(?P<sign>.)", re.DOTALL
)
_LIGHT: Final = frozenset(".,;:?'\"`…–—‘’“”«»¿¡、。，！？：；・")
"""Punctuation that may differ. A full stop, a dash and an exclamation mark count where they begin something."""
_CLOSING: Final = frozenset("!?.:\"')]”’»")
_OPENING: Final = frozenset("([{=")
_QUOTES: Final = frozenset("'\"`")
_BEFORE_QUOTES: Final = _OPENING | frozenset(" \t\n")
_SEPARATORS: Final = frozenset(",;:")
_DASHES: Final = frozenset("-–−—")
_ALONE: Final = re.compile(r"(?<!\S)[^\w\s]+(?!\S)")
"""Signs that no word is joined to, which is how one asks for an operator."""
_GIVEN: Final = re.compile(r":\s|：|\n[^\S\n]*\n")
_GLUE: Final = frozenset("0123456789_=")
_SENTENCE_ENDS: Final = frozenset(".!?:;。！？\n")

_ENDINGS: Final = {"'re": "are", "'ll": "will", "'ve": "have", "n't": "not"}
_AFTERWARDS: Final = COURTESY | {"are", "is", "thank", "thanks", "you"}
_INDENTED: Final = re.compile(r"\n[^\S\n]+\S")
_ISE: Final = re.compile(r"(?<=\w{4})is(?=(?:e|ed|es|er|ing|ation)$)")
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


@dataclass(frozen=True, slots=True, repr=False)  # there is nothing in it but the prompt
class Reading:
    """What of a prompt counts.

    Attributes:
        tokens: words, numbers and signs in order; words in lower case, written out, without courtesy.
        words: the words among them.
        numbers: the numbers among them, each with the word that follows it, which may be a unit, or with nothing.
        signs: the signs among them.
        negations: how many negations there are.
        names: words that begin with a capital inside of a sentence, or that have several.
        article: of the last word; empty: it has none.
        capitals: of those words whose meaning depends on it, the ones with a capital; and as they are written letters
            by themselves, units such as MW and mW, pieces of codes, and words that are in the prompt in two spellings.
        mixed: words that have capitals inside and other letters, too, as they are written.
        verbatim: what something is to be done with, such as what is to be translated, as it is written.
        scripts: in which it is written, as far as letters say.
    """

    tokens: tuple[str, ...]
    words: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    signs: tuple[str, ...]
    negations: int
    names: tuple[str, ...]
    article: str
    capitals: tuple[str, ...]
    mixed: frozenset[str]
    verbatim: str
    scripts: frozenset[str]

    @property
    def text(self) -> str:
        """What is compared letter by letter."""
        return " ".join(self.tokens)


def read(prompt: str) -> Reading:
    """Read a prompt, in time that grows with its length. Never raises."""
    tokens: Tokens = []
    names: list[str] = []
    text = unicodedata.normalize("NFC", prompt).strip()
    shouts = text.isupper()
    lined_up = _INDENTED.search(text) is not None  # as code is, where that has a meaning
    alone = _alone(text)
    spelling = Spelling()
    begins, depth = True, 0
    for match in _TOKEN.finditer(text):
        kind, found, at = str(match.lastgroup), match.group(), match.start()
        if kind == "space":
            begins = begins or "\n" in found
            if lined_up and "\n" in found:
                tokens.append((f"\n{len(found.rpartition(chr(10))[2])}", "sign"))
            continue
        if kind == "sign":
            depth = max(depth + (found in "([{") - (found in ")]}"), 0)
            if lined_up or at in alone or (depth and found in _SEPARATORS) or _counts(text, at, found):
                tokens.append((found, kind))
            begins = begins or found in _SENTENCE_ENDS
            continue
        if kind == "number":
            tokens.append((found, kind))
            begins = False
            continue
        lower = found.lower().replace("’", "'").replace("ʼ", "'")
        written = _written_out(lower)
        if not shouts:
            several = sum(map(str.isupper, found)) > 1
            if ((found[0].isupper() and not begins) or several) and len(written) == 1 and lower != "i":
                names += written
            before = text[at - 1 : at] if at else ""
            spelling.add(
                found,
                lower,
                begins=begins,
                measures=bool(tokens) and tokens[-1][1] == "number",
                joined=bool(before) and not before.isspace() and before not in _QUOTES and before not in _OPENING,
                glued=before in _GLUE or text[match.end() : match.end() + 1] in _GLUE,
            )
        tokens += [(word, kind) for word in written]
        begins = False
    article = _last_article(tokens)
    return _reading(plain(tokens), tuple(names), article, spelling, text)


def _reading(tokens: Tokens, names: tuple[str, ...], article: str, spelling: Spelling, text: str) -> Reading:
    words = tuple(token for token, kind in tokens if kind == "word")
    numbers = tuple(
        (token, after if after_kind == "word" else "")
        for (token, kind), (after, after_kind) in zip(tokens, [*tokens[1:], ("", "")], strict=False)
        if kind == "number"
    )
    signs = tuple(token for token, kind in tokens if kind == "sign")
    negations = sum(word in NEGATIONS for word in words) + sum(map(text.count, NEGATIONS_INSIDE))
    return Reading(
        tuple(token for token, _ in tokens),
        words,
        numbers,
        signs,
        negations,
        names,
        article,
        spelling.capitals,
        spelling.mixed,
        _verbatim(text, words),
        _scripts(words),
    )


def _verbatim(text: str, words: tuple[str, ...]) -> str:
    """What follows a colon or an empty line; all, if it is about words and there is no such place."""
    place = _GIVEN.search(text)
    if place is None and ABOUT_WORDS.isdisjoint(words):
        return ""
    rest = " ".join(text[0 if place is None else place.end() :].split()).rstrip(".?!")
    return rest[:1].lower() + rest[1:]


def _last_article(tokens: Tokens) -> str:
    words = [token for token, kind in tokens if kind == "word"]
    while words and words[-1] in _AFTERWARDS:
        words.pop()
    return words[-2] if len(words) > 1 and words[-2] in ARTICLES else ""


def _alone(text: str) -> frozenset[int]:
    """Where signs are that no word is joined to, but for a dash, and for a mark at the end that has a space before."""
    spans = (match.span() for match in _ALONE.finditer(text))
    return frozenset(
        at
        for begin, end in spans
        if end - begin > 1 or not (text[begin] in _DASHES or (end == len(text) and text[begin] in "?!"))
        for at in range(begin, end)
    )


def _counts(text: str, at: int, sign: str) -> bool:
    """Whether a sign is more than punctuation."""
    after = text[at + 1 : at + 2]
    before = text[at - 1 : at] if at else ""
    if before in _QUOTES and sign not in _QUOTES and (at == 1 or text[at - 2] in _BEFORE_QUOTES):
        return True  # ";"
    if sign in "-–−":
        if text[max(at - 8, 0) : at].rstrip()[-1:].isdigit() or text[at + 1 : at + 8].lstrip()[:1].isdigit():
            return True  # a minus, a range
        return after.isalnum() and not before.isalnum()  # an option
    if sign in ".:?!,;":
        return bool(after) and not after.isspace() and after not in _CLOSING  # .5, .env, a::b, !=, a;b
    if sign in "'’\"":
        if before.isdigit():
            return text.count(sign) % 2 == 1  # inches; a pair of them quotes
        if text[max(at - 8, 0) : at].rstrip()[-1:] in _OPENING or (after and after in ")]}"):
            return True  # of a string in code
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
    return (_as_americans_do(word),)


def _as_americans_do(word: str) -> str:
    """The word in one of its two spellings. What else is changed is changed alike in all prompts."""
    for british in BRITISH:
        if word.startswith(british):
            return f"{british[:-2]}r{word[len(british) :]}"
    return ALIKE.get(word) or _ISE.sub("iz", word)


def _scripts(words: tuple[str, ...]) -> frozenset[str]:
    """The first words of the letters' names, such as LATIN, CYRILLIC or CJK."""
    letters = set().union(*words) if words else set()
    return frozenset(unicodedata.name(letter, "?").partition(" ")[0] for letter in letters if letter.isalpha())
