"""Whose method is called: instances and classes as parts of keys, by what they are and never by where they are."""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from secrets import token_hex

from ._forking import renew_in_children
from .exceptions import UnkeyableError, type_name

Identity = str | Callable[..., object]
"""Name of an attribute that tells instances apart, or a function of the instance."""


class Identities:
    """What stands for the owners of one method in keys.

    A class is known by its name, where it can be found under it. An instance is known by what was declared, together
    with its class; without that each has a token of its own, which no other process knows.

    Args:
        declared: how instances are told apart; `None`: each is another one.
    """

    def __init__(self, declared: Identity | None) -> None:
        self._declared = declared
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """What a child does with its copies is no concern of the parent's."""
        self._lock = threading.Lock()
        self._process = token_hex(16)
        self._numbers = itertools.count()
        # By address, but only while it is alive: a dictionary with weak keys would take equal instances for the same.
        self._known: dict[int, tuple[weakref.ref[object], str]] = {}

    def of(self, owner: object) -> tuple[str, object]:
        """The name of the owner's class and what tells the owner apart.

        Raises:
            UnkeyableError: nothing was declared and there can be no weak reference to the instance.
        """
        if isinstance(owner, type):
            return self._token(owner), None
        declared = self._declared
        if declared is None:
            return "", self._token(owner)
        identity = getattr(owner, declared) if isinstance(declared, str) else declared(owner)
        return _name(type(owner)), identity

    def _token(self, owner: object) -> str:
        known = self._known.get(id(owner))
        if known is not None and known[0]() is owner:
            return known[1]
        with self._lock:
            known = self._known.get(id(owner))
            if known is not None and known[0]() is owner:
                return known[1]
            try:
                reference = weakref.ref(owner, partial(self._forget, id(owner)))
            except TypeError:
                raise UnkeyableError(
                    "self",
                    type_name(type(owner)),
                    "there can be no weak reference to it; declare what tells instances apart: identity='name'",
                ) from None
            if isinstance(owner, type) and _can_be_found(owner):
                token = _name(owner)
            else:
                token = f"{self._process}:{next(self._numbers)}"
            self._known[id(owner)] = reference, token
            return token

    def _forget(self, address: int, reference: weakref.ref[object]) -> None:
        # Takes no lock: a garbage collector calls this.
        known = self._known.get(address)
        if known is not None and known[0] is reference:
            self._known.pop(address, None)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _can_be_found(kind: type) -> bool:
    """Whether the name of the class leads to it, and so to the same one in every process."""
    found: object = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind
