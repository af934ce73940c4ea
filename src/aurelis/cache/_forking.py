"""What a forked child has to make anew.

A child is a copy of its parent with one thread, the one that forked. What other threads had locked at that moment stays
so for ever, and what they were about to finish stays half done.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """Something that a child cannot go on with as it is."""

    def after_fork(self) -> None:
        """Make it anew, in the child. All else may still be as it was, so it waits for nothing but its own."""
        ...


_SUBJECTS: weakref.WeakSet[Inherited] = weakref.WeakSet()


def renew_in_children(subject: Inherited) -> None:
    """Have its `after_fork` called in each child of this process, as long as it lives."""
    _SUBJECTS.add(subject)


def _after_fork() -> None:
    for subject in list(_SUBJECTS):
        subject.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
