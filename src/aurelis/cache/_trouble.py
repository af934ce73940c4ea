"""Tells whoever reads the log that something outside fails, and not again and again."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Final

_LOG = logging.getLogger("aurelis.cache")

_QUIET: Final = 60.0
"""Seconds for which a cause is not told again, however often it comes and goes. One that stays longer is."""
_CAUSES: Final = 100
"""Causes that are kept apart; names of types are not bounded."""
_OTHERS: Final = "others"
"""The cause of what comes after them."""


def warn(message: str, *arguments: object) -> None:
    """Write into the log, on the way of a request: what a handler or filter of somebody's raises must not end it."""
    with contextlib.suppress(Exception):
        _LOG.warning(message, *arguments)


class Trouble:
    """What fails for some time: told once for each cause, and once when it is over.

    Args:
        subject: what it is about, as the message begins.
        consequence: what that means for the cache.
    """

    def __init__(self, subject: str, consequence: str) -> None:
        self._subject = subject
        self._consequence = consequence
        self._told: dict[str, float] = {}
        self._troubled = False

    def met(self, cause: str, now: float) -> None:
        """It has failed.

        Args:
            cause: the name of a type of errors. Never the text of one, which may hold what must not be in a log.
            now: monotonic, seconds.
        """
        if cause not in self._told and len(self._told) >= _CAUSES:
            cause = _OTHERS
        told = self._told.get(cause)
        # One that is back within the time of quiet, and stays: the last word in the log must not be that all works.
        if told is None or (not self._troubled and now - told >= _QUIET):
            self._told[cause] = now
            self._troubled = True
            warn("%s fails (%s): %s", self._subject, cause, self._consequence)

    def over(self, now: float) -> None:
        """It works again."""
        if self._told:
            told = list(self._told.items())  # in one step, as another thread may meet something meanwhile
            self._told = {cause: at for cause, at in told if now - at < _QUIET}
        if self._troubled:
            self._troubled = False
            warn("%s works again", self._subject)


class Incidents:
    """What fails now and then, without a state that would be over: each cause is told once a minute at most.

    Args:
        what: has happened, as the message begins.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._told: dict[str, tuple[float, int]] = {}

    def met(self, cause: str, now: float) -> None:
        """It has happened. Arguments as those of `Trouble.met`."""
        if cause not in self._told and len(self._told) >= _CAUSES:
            told_lately = [(known, last) for known, last in list(self._told.items()) if now - last[0] < _QUIET]
            self._told = dict(told_lately)
            if len(told_lately) >= _CAUSES:
                cause = _OTHERS
        told, untold = self._told.get(cause, (-math.inf, 0))
        if now - told < _QUIET:
            self._told[cause] = told, untold + 1
            return
        self._told[cause] = now, 0
        if untold:
            warn("%s (%s), also %d times before that were not told", self._what, cause, untold)
        else:
            warn("%s (%s)", self._what, cause)
