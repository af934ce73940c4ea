"""Values of attributes that come from outside: few of them, and none that could be an address or a text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from aurelis.cache.exceptions import ConfigurationError

from . import names

_TYPE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.<>]{0,127}", re.ASCII)
"""A qualified name of a class. One made at run time may be called anything."""
_NAME: Final = re.compile(r"(?!.*://)[^?]{1,128}")
LONGEST: Final = 128
"""Characters of a name in telemetry."""


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


def is_name(name: str) -> bool:
    """Whether somebody outside can have called something so, a model for instance: not long, no address, printable.

    What is not printable would do worse than look bad: one lone surrogate keeps an exporter from exporting anything.
    """
    return name.isprintable() and _NAME.fullmatch(name) is not None


def require_label(what: str, name: str) -> None:
    """Refuse what nothing in telemetry may be called, whoever configures it.

    Raises:
        ConfigurationError: it is empty, long, or not printable.
    """
    if not (0 < len(name) <= LONGEST and name.isprintable()):
        found = "empty" if not name else f"of {len(name)} characters" if len(name) > LONGEST else ascii(name)
        raise ConfigurationError(
            f"{what} must be 1 to {LONGEST} printable characters, since telemetry tells whose things are by it, and is "
            f"{found}"
        )
