"""A folder of recordings, and what is done with a call: replayed, recorded, or refused with what comes nearest."""

from __future__ import annotations

import difflib
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from aurelis.cache.exceptions import CacheError, ConfigurationError

from ._recordings import Answered, Asked, NoRecording, dump, load
from ._scrubbing import Scrubber

Mode = Literal["record", "replay", "auto"]
_MODES: Final = ("record", "replay", "auto")
_NAME: Final = re.compile(r"(\d{4,})-[a-z0-9-]+\.json")
_COMPARED: Final = 20_000
"""Characters of requests that are compared to find the nearest."""
_SHOWN: Final = 200
"""Lines of a difference that are shown."""


class CassetteError(CacheError, ValueError):
    """A file in a cassette is no recording."""


class UnmatchedCallError(CacheError, LookupError):
    """A call was to be replayed and nothing like it was recorded. Its text shows what comes nearest."""


@dataclass(slots=True)
class _Kept:
    name: str
    asked: Asked
    answered: Answered


class Cassette:
    """Recorded calls. A file for each, which people can read, change and review; no credentials are in them.

    The same call may be recorded several times: they are replayed in their order, and after that the last one again.

    Args:
        path: the folder, made when there is something to record; only one process at a time may record into it.
        mode: `replay`: the network is never asked, and a call that was not recorded is an error. `record`: it is asked
            for every call, and what was recorded before is replaced. `auto`: it is asked for what was not recorded.
        scrub: regular expressions for what must not be in recordings beside credentials. What they match counts as the
            same in all calls.

    Attributes:
        unmatched: an error for each call that was to be replayed and was not recorded.

    Raises:
        ConfigurationError: the mode is none of these, or a pattern is no regular expression.
    """

    def __init__(
        self, path: str | os.PathLike[str], mode: Mode = "replay", *, scrub: Iterable[str | re.Pattern[str]] = ()
    ) -> None:
        if mode not in _MODES:
            raise ConfigurationError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}")
        self.path = Path(path)
        self.mode = mode
        self.scrubber = Scrubber(scrub)
        self.unmatched: list[UnmatchedCallError] = []
        self._lock = threading.Lock()
        self._kept: dict[str, list[_Kept]] | None = None  # by identity; `None`: not read yet
        self._turns: dict[str, int] = {}
        self._recorded: set[str] = set()  # in this run
        self._next = 1

    def find(self, asked: Asked) -> Answered | None:
        """The response to replay; `None`: the network is to be asked.

        Raises:
            CassetteError: a file is no recording.
            UnmatchedCallError: it is not to be asked.
        """
        if self.mode == "record":
            return None
        identity = asked.identity
        with self._lock:
            kept = self._read()
            # What is recorded in this run goes on being recorded, or a series of answers would end with the first.
            several = [] if identity in self._recorded else kept.get(identity, [])
            if several:
                turn = self._turns.get(identity, 0)
                self._turns[identity] = turn + 1
                return several[min(turn, len(several) - 1)].answered
            if self.mode == "auto":
                return None
            error = UnmatchedCallError(self._nearest(asked, [one for each in kept.values() for one in each]))
            self.unmatched.append(error)
        raise error

    def add(self, asked: Asked, answered: Answered) -> None:
        """Record a call.

        Raises:
            CassetteError: a file is no recording.
            OSError: the file cannot be written.
        """
        identity = asked.identity
        with self._lock:
            kept = self._read()
            if self.mode == "record" and not self._recorded:
                self._remove(kept)
            self._recorded.add(identity)
            self.path.mkdir(parents=True, exist_ok=True)
            name = f"{self._next:04d}-{asked.method.lower()}-{_last_step(asked.url)}.json"
            self._next += 1
            part = self.path / f"{name}.part"
            part.write_text(dump(asked, answered), encoding="utf-8")
            part.replace(self.path / name)  # so that nobody reads half of it
            kept.setdefault(identity, []).append(_Kept(name, asked, answered))

    def _read(self) -> dict[str, list[_Kept]]:
        if self._kept is not None:
            return self._kept
        found: dict[str, list[_Kept]] = {}
        files = [file for file in self.path.iterdir() if _NAME.fullmatch(file.name)] if self.path.is_dir() else []
        for file in sorted(files, key=lambda file: int(file.name.partition("-")[0])):
            self._next = int(file.name.partition("-")[0]) + 1
            if self.mode == "record":  # what is there will be replaced, whatever it is
                found.setdefault("", []).append(_Kept(file.name, _NOTHING, _NO_ANSWER))
                continue
            try:
                asked, answered = load(file.read_text(encoding="utf-8"))
            except (NoRecording, UnicodeDecodeError) as error:
                raise CassetteError(f"{file} is no recording: {error}") from None
            found.setdefault(asked.identity, []).append(_Kept(file.name, asked, answered))
        self._kept = found
        return found

    def _remove(self, kept: dict[str, list[_Kept]]) -> None:
        for several in kept.values():
            for one in several:
                (self.path / one.name).unlink(missing_ok=True)
        kept.clear()
        self._next = 1

    def _nearest(self, asked: Asked, kept: list[_Kept]) -> str:
        how = "to record it, use mode='auto' or mode='record' (in pytest --cassette-mode=auto)"
        lines = asked.lines()
        if not kept:
            return "\n".join((f"nothing is recorded in {self.path}, and this call was made; {how}", *lines[:_SHOWN]))
        text = "\n".join(lines)[:_COMPARED]

        def likeness(one: _Kept) -> tuple[float, float]:
            other = one.asked.lines()
            # Of letters an upper bound alone: to compare them takes the square of the time.
            letters = difflib.SequenceMatcher(None, "\n".join(other)[:_COMPARED], text).quick_ratio()
            return difflib.SequenceMatcher(None, other, lines, autojunk=False).ratio(), letters

        nearest = max(kept, key=likeness)
        before, after = f"{nearest.name}, which is the nearest", "the call"
        shown = list(difflib.unified_diff(nearest.asked.lines(), lines, before, after, lineterm=""))
        if len(shown) > _SHOWN:
            shown = [*shown[:_SHOWN], f"... and {len(shown) - _SHOWN} lines more"]
        return "\n".join((f"no recording in {self.path} matches a call; {how}", *shown))


_NOTHING: Final = Asked("", "", {}, b"")
_NO_ANSWER: Final = Answered(0, (), ())


def _last_step(url: str) -> str:
    """Something of the address to know a file by, with nothing that a caller chooses."""
    path = url.partition("?")[0].partition("://")[2].partition("/")[2]
    step = path.rpartition("/")[2].rpartition(":")[2].lower()
    return step if re.fullmatch(r"[a-z][a-z0-9-]{0,30}", step) else "call"
