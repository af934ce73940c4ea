"""Which capitals of a prompt count. Mostly none does, as people write them or not."""

from __future__ import annotations

from typing import Final

from ._words import CASE_MATTERS, FUNCTION

_HOURS: Final = frozenset(("am", "pm"))
_MOSTLY: Final = frozenset("cr")
"""Letters that mostly are languages, which have a capital and mostly are written without."""
_SHORT: Final = 2


class Spelling:
    """How the words of a prompt are spelt, one after the other."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, str]] = []
        self._forms: dict[str, set[str]] = {}
        self._words: list[tuple[str, str]] = []

    def add(self, word: str, lower: str, *, begins: bool, measures: bool, joined: bool, glued: bool) -> None:
        """Take a word.

        Args:
            word: as it is written.
            lower: the same in lower case.
            begins: it begins a sentence.
            measures: it follows a number.
            joined: a sign stands right before it.
            glued: a digit or something of the kind is joined to it.
        """
        self._words.append((word, lower))
        mixed = _is_mixed(word)
        if not begins or mixed or (len(word) > 1 and word.isupper()):
            self._forms.setdefault(lower, set()).add(word)
        if word == lower or lower == "i":
            return
        if lower in CASE_MATTERS and word[0].isupper() and (not begins or sum(map(str.isupper, word)) > 1):
            self._kept.append((lower, lower))
        elif (
            (len(word) == 1 and (joined or lower not in _MOSTLY) and not (begins and lower == "a"))
            or (measures and (mixed or len(word) <= _SHORT) and lower not in _HOURS and lower not in FUNCTION)
            or (glued and mixed)
        ):
            self._kept.append((lower, word))

    @property
    def capitals(self) -> tuple[str, ...]:
        """What counts, in order; and all of what is in the prompt in two spellings."""
        twice = {lower for lower, forms in self._forms.items() if len(forms) > 1 and lower not in FUNCTION}
        kept = [form for lower, form in self._kept if lower not in twice]
        return (*kept, *(word for word, lower in self._words if lower in twice))

    @property
    def mixed(self) -> frozenset[str]:
        """Words with capitals inside and other letters, too."""
        return frozenset(word for word, _ in self._words if _is_mixed(word))


def _is_mixed(word: str) -> bool:
    return any(map(str.isupper, word[1:])) and any(map(str.islower, word))
