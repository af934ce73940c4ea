"""What a forked child has to make anew.

A child is a copy of its parent with one thread, the one that forked. What other threads had locked at that moment stays
so for ever, and what they were about to finish stays half done.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol, runtime_checkable


class Inherited(Protocol):
    """Something that a child cannot go on with as it is."""

    def after_fork(self) -> None:
        """Make it anew, in the child. All else may still be as it was, so it waits for nothing but its own."""
        ...


@runtime_checkable
class Paused(Inherited, Protocol):
    """Something that must not be in use at the moment of a fork."""

    def before_fork(self) -> None:
        """Come to rest, in the parent, and stay so."""
        ...

    def after_fork_in_parent(self) -> None:
        """Go on."""
        ...


_SUBJECTS: weakref.WeakSet[Inherited] = weakref.WeakSet()


def renew_in_children(subject: Inherited) -> None:
    """Have its `after_fork` called in each child of this process, as long as it lives; see also `Paused`."""
    _SUBJECTS.add(subject)


def _before_fork() -> None:
    for subject in list(_SUBJECTS):
        if isinstance(subject, Paused):
            subject.before_fork()


def _after_fork_in_parent() -> None:
    for subject in list(_SUBJECTS):
        if isinstance(subject, Paused):
            subject.after_fork_in_parent()


def _after_fork() -> None:
    for subject in list(_SUBJECTS):
        subject.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
