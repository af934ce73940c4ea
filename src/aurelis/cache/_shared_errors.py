"""Errors that several callers get, each time as they were, with nothing of one caller for the next.

Python notes in an error what its thread or task was handling when it was raised (`__context__`), and where it has
passed (`__traceback__`), and a caller may add notes. All that is the caller's own affair, and would be in the log of
whoever gets the same error next.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self


@dataclass(frozen=True, slots=True)
class SharedError:
    """An error, and what it had when it came from where it was raised first.

    Attributes:
        traceback: `None`: none.
        context: what was being handled there; `None`: nothing.
        notes: what was noted there.
    """

    error: BaseException
    traceback: TracebackType | None
    context: BaseException | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, error: BaseException, *, traceback: bool = True) -> Self:
        """An error as it is now, without its traceback if that is not wanted."""
        notes = tuple(getattr(error, "__notes__", ()))
        return cls(error, error.__traceback__ if traceback else None, error.__context__, notes)

    def again(self) -> NoReturn:
        """Raise it for one more caller.

        Raises:
            BaseException: the error.
        """
        try:
            raise self.error.with_traceback(self.traceback)
        except BaseException:
            self.error.__context__ = self.context
            with contextlib.suppress(AttributeError):  # nobody has noted anything
                del self.error.__notes__
            for note in self.notes:
                self.error.add_note(note)
            raise


def is_timeout(error: BaseException) -> bool:
    """Whether something took longer than the caller would wait, in whatever library."""
    return isinstance(error, TimeoutError) or any(kind.__name__ == "TimeoutException" for kind in type(error).__mro__)


def detach(error: BaseException, handled: BaseException | None) -> None:
    """Take from an error what its thread was handling before the work began in which it was raised.

    Args:
        handled: that; `None`: nothing.
    """
    if handled is None or handled is error:
        return
    seen = {id(error)}
    while (context := error.__context__) is not None and id(context) not in seen:
        if context is handled:
            error.__context__ = None
            return
        seen.add(id(context))
        error = context
