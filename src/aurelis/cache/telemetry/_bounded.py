"""Values of attributes that come from outside: few of them, and none that could be an address or a text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from . import names

_TYPE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.<>]{0,127}", re.ASCII)
"""A qualified name of a class. One made at run time may be called anything."""
_MODEL: Final = re.compile(r"(?!.*://)[^\x00-\x1f\x7f?]{1,128}")


class Bounded:
    """Lets through the first values that come, up to a number, and of the others their place.

    Args:
        limit: how many.
        fits: whether a value may be shown at all.
    """

    __slots__ = ("_fits", "_known", "_limit")

    def __init__(self, limit: int, fits: Callable[[str], bool]) -> None:
        self._limit = limit
        self._fits = fits
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value, or `names.OTHER`."""
        if value in self._known:
            return value
        if len(self._known) >= self._limit or not self._fits(value):
            return names.OTHER
        self._known.add(value)
        return value


def is_type(name: str) -> bool:
    """Whether this is the name of a class as programs have it."""
    return _TYPE.fullmatch(name) is not None


def is_model(name: str) -> bool:
    """Whether this can be the name of a model: not long, no address, nothing unprintable."""
    return _MODEL.fullmatch(name) is not None
