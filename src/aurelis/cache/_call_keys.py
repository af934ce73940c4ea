"""The keys of a function's calls, by its arguments."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Final

from cachetools import LRUCache

from ._identities import Identities
from ._keys import CacheKeyBuilder
from .codecs import is_immutable
from .exceptions import ConfigurationError, UnkeyableError

_MEMOISED_KEYS: Final = 1024
_MEMOISED_LENGTH: Final = 1024
"""Characters and bytes in all arguments of a call: a memo must not keep a thousand long prompts alive."""
_MEMOISABLE: Final = frozenset({str, bytes, int, bool, type(None)})
"""Types of arguments whose keys are remembered. Equal arguments of one of these types, and of the same type, always
have the same key; a float is left out because 0.0 and -0.0 are equal and have different ones."""
_CLOSURE: Final = "<closure>"
"""Stands beside the names of parameters, and can be none."""
_INNER: Final = "<wrapped>"
"""Stands beside the names of variables, and can be none."""
_ARGUMENT: Final = re.compile(r"params\['(\w+)'\](.*)", re.DOTALL)
_PLAIN_ARGUMENT: Final = "pass plain data that identifies it, or name it in ignore=[...], or give key_func"
_PLAIN_IDENTITY: Final = "it must be plain data"
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class CallKeys:
    """Makes and remembers the keys of one function's calls.

    Args:
        key_func: makes the identifier from all arguments, in place of what follows.
        ignored: names of parameters that make no difference.
        identities: say what stands for the first argument; `None`: it is one like the others.

    Attributes:
        key: the full key of a call. Raises `TypeError` for arguments that do not fit the function, and for one that
            cannot be part of a key `UnkeyableError`, which names it. Chosen once, as a hit feels each question.

    Raises:
        ConfigurationError: a name in `ignored` is no parameter's, or the function has no first parameter.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        key_func: Callable[..., str] | None,
        category: str,
        *,
        ignored: Iterable[str] = (),
        identities: Identities | None = None,
    ) -> None:
        self._key_func = key_func
        self._category = category
        self._known: LRUCache[object, str] = LRUCache(_MEMOISED_KEYS)
        self._ignored = frozenset(ignored)
        self._identities = identities
        self.key: Callable[[CacheKeyBuilder, tuple[Any, ...], dict[str, Any]], str] = self._by_all
        if key_func is not None:
            self.key = self._by_function
            return
        if self._ignored or identities is not None:
            self.key = self._by_some
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._signature = inspect.signature(function)  # before the next, as it refuses what is wrapped in itself
        self._closure = _closure_of(function)
        parameters = list(self._signature.parameters.values())
        self._owner = ""
        if identities is not None:
            if not parameters or parameters[0].kind not in _POSITIONAL:
                raise ConfigurationError(f"@cached_method: {self._name} has no parameter for the instance")
            self._owner = parameters.pop(0).name
        names = [parameter.name for parameter in parameters]
        if unknown := self._ignored.difference(names):
            raise ConfigurationError(
                f"ignore={sorted(unknown)!r}: {self._name} has no such parameter; it has {', '.join(names) or 'none'}"
            )
        self._find_ignored(list(self._signature.parameters.values()))

    def _find_ignored(self, parameters: list[inspect.Parameter]) -> None:
        self._skipped: set[int] = set()
        self._end: int | None = None
        for position, parameter in enumerate(parameters):
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL and parameter.name in self._ignored:
                self._end = position
            elif parameter.kind in _POSITIONAL and parameter.name in self._ignored:
                self._skipped.add(position)

    def _by_function(self, builder: CacheKeyBuilder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        assert self._key_func is not None
        return builder.build_key(self._category, self._key_func(*args, **kwargs))

    def _by_all(self, builder: CacheKeyBuilder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        types = tuple(map(type, args))
        if kwargs or not _MEMOISABLE.issuperset(types):
            return self._build(builder, args, kwargs, None)
        call = (builder.namespace, args, types)
        try:
            return self._known[call]
        except KeyError:
            return self._remember(call, args, self._build(builder, args, kwargs, None))

    def _by_some(self, builder: CacheKeyBuilder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        told = args
        if self._ignored:
            told = tuple(each for position, each in enumerate(args[: self._end]) if position not in self._skipped)
        who = None
        if self._identities is not None and args:
            who = self._identities.of(args[0])
            told = who + told[1:]
        types = tuple(map(type, told))
        if kwargs or not _MEMOISABLE.issuperset(types):
            return self._build(builder, args, kwargs, who)
        call = (builder.namespace, told, types, len(args))  # of which some are not told
        try:
            return self._known[call]
        except KeyError:
            return self._remember(call, told, self._build(builder, args, kwargs, who))

    def _remember(self, call: object, told: tuple[Any, ...], key: str) -> str:
        if sum(len(part) for part in told if isinstance(part, (str, bytes))) <= _MEMOISED_LENGTH:
            # Two threads may both store: the same key, and an LRU's worst is to forget one.
            try:
                self._known[call] = key
            except (KeyError, RuntimeError):
                self._known = LRUCache(_MEMOISED_KEYS)
        return key

    def _build(
        self, builder: CacheKeyBuilder, args: tuple[Any, ...], kwargs: dict[str, Any], who: tuple[str, object] | None
    ) -> str:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        params: dict[str, object] = {
            name: argument for name, argument in bound.arguments.items() if name not in self._ignored
        }
        if self._identities is not None:
            params[self._owner] = who or self._identities.of(params[self._owner])
        if self._closure:
            params[_CLOSURE] = self._closure
        try:
            return builder.build_key(self._category, self._name, params)
        except UnkeyableError as error:
            raise self._named(error) from None

    def _named(self, error: UnkeyableError) -> UnkeyableError:
        """The error in the words of whoever has written the function."""
        found = _ARGUMENT.match(error.path)
        if found is None:
            return error
        name, rest = found.groups()
        reason = error.reason
        if name == self._owner:
            name, rest, reason = f"the identity of {name}", rest.removeprefix("[1]"), reason or _PLAIN_IDENTITY
        elif name in ("self", "cls") and not rest:
            reason = reason or "methods are cached by @cached_method"
        return UnkeyableError(name + rest, error.type_name, reason or _PLAIN_ARGUMENT)


def _closure_of(function: object) -> dict[str, object]:
    """What the function closes over that sets its results apart from those of others with the same name.

    That of a function around another one, whose name it has, is what both close over.
    """
    found: dict[str, object] = {}
    if isinstance(function, FunctionType):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # assigned later, as the function's own name is
                if is_immutable(cell.cell_contents):
                    found[name] = cell.cell_contents
    if (inner := getattr(function, "__wrapped__", None)) is not None and (below := _closure_of(inner)):
        found[_INNER] = below
    return found
