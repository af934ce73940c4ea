"""Invalidation by what happens: rules say what an event puts out of date."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Final, Literal
from uuid import UUID

from . import _patterns, _tags
from ._keys import escape
from .exceptions import ConfigurationError, LayerError
from .manager import AnyManager, UnifiedCacheManager, get_cache_manager, manager_of

Kind = Literal["pattern", "category", "tag", "key"]
_KINDS: Final[tuple[Kind, ...]] = ("pattern", "category", "tag")


class CacheInvalidator:
    """Puts out of date what depends on something, when that changes.

    An event is a tag: whatever names it in `invalidate_on` or has it among its `tags` is out of date after it, in every
    process that shares the cache. Rules add other targets. They belong to this object, so whoever triggers an event has
    registered them; what they name is out of date in every process.

    A target is `pattern:...`, `category:...`, `tag:...`, or else a full key. `{name}` in it is replaced by a value from
    the context of the event, as that value is written in keys; `{{` and `}}` are braces.

    Args:
        cache: manager; `None` means the process's, found at each event.

    Example:
        >>> import asyncio
        >>> from aurelis.cache import UnifiedCacheManager
        >>> async def main() -> list[object]:
        ...     async with UnifiedCacheManager() as cache:
        ...         invalidator = CacheInvalidator(cache)
        ...         invalidator.register_invalidation_rule("user_changed", ["pattern:user_data:{user_id}"])
        ...         await cache.set("user_data", "7", "Ada")
        ...         await cache.set("user_data", "77", "Grace")
        ...         await invalidator.invalidate_on_event("user_changed", {"user_id": 7})
        ...         return [await cache.get("user_data", "7"), await cache.get("user_data", "77")]
        >>> asyncio.run(main())
        [None, 'Grace']
    """

    def __init__(self, cache: AnyManager | None = None) -> None:
        if cache is None or isinstance(cache, UnifiedCacheManager):
            self._given = cache
        else:
            self._given = UnifiedCacheManager(manager_of(cache))
        self._rules: dict[str, tuple[_Target, ...]] = {}

    @property
    def cache(self) -> UnifiedCacheManager:
        """What is invalidated."""
        return self._given or get_cache_manager()

    @property
    def invalidation_rules(self) -> dict[str, list[str]]:
        """The targets by trigger, as they were registered; a copy."""
        return {trigger: [target.text for target in targets] for trigger, targets in self._rules.items()}

    def register_invalidation_rule(self, trigger: str, targets: Iterable[str]) -> None:
        """Say what an event puts out of date. A rule of the same trigger is replaced.

        Args:
            trigger: name of the event, not empty.
            targets: `pattern:...` as for `CacheManager.invalidate_pattern`, `category:NAME`, `tag:NAME`, or full keys.

        Raises:
            ConfigurationError: a target is empty, has braces that are no placeholder, or is a pattern that begins with
                `*`.
            TypeError: a trigger or target is no string, or there is one string in place of several targets.
        """
        _require_event(trigger)
        if isinstance(targets, str):
            raise TypeError(f"targets must be a sequence of str; write targets=[{targets!r}]")
        self._rules[trigger] = tuple(map(_Target.parse, targets))

    async def invalidate_on_event(self, event: str, context: Mapping[str, Any] | None = None) -> None:
        """Put out of date whatever names the event, and the targets of its rule.

        A shared layer that does not answer does not fail the caller: this process is right at once, and others are told
        when the layer answers again. Where a pattern cannot be looked for, its whole category is out of date, or if it
        is about several categories, everything.

        Args:
            event: name; it needs no rule.
            context: values for the placeholders: text, whole numbers or UUIDs. More than the rule needs is fine.

        Raises:
            ConfigurationError: the context has no value for a placeholder, or one of another type; nothing has been
                invalidated then.
            TypeError: the event is no string.
        """
        _require_event(event)
        values = context or {}
        targets = [(target, target.filled(values)) for target in self._rules.get(event, ())]
        manager = self.cache.manager
        tags = dict.fromkeys([_tags.tag(event)])
        keys: dict[str, None] = {}
        patterns: dict[str, None] = {}
        for target, text in targets:
            match target.kind:
                case "category":
                    tags[_tags.category(text)] = None
                case "tag":
                    tags[_tags.tag(text)] = None
                case "pattern":
                    patterns[text] = None
                case "key":
                    keys[text] = None
        with contextlib.suppress(LayerError):  # it is done here, and told later
            await manager._engine.invalidate(tuple(tags), soft=False)
        for key in keys:
            with contextlib.suppress(LayerError):
                await manager.delete(key)
        for pattern in patterns:
            try:
                await manager.invalidate_pattern(pattern)
            except LayerError:
                category = _patterns.category_of(pattern)
                wider = _tags.EVERYTHING if category is None else _tags.category(category)
                with contextlib.suppress(LayerError):
                    await manager._engine.invalidate((wider,), soft=False)


@dataclass(frozen=True, slots=True)
class _Target:
    """One target of a rule.

    Attributes:
        text: as it was registered.
        kind: what it names; `key` is a full key.
        parts: literal text, each time with the name of the placeholder that follows it; `None`: none does.
    """

    text: str
    kind: Kind
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> _Target:
        if not isinstance(text, str):
            raise TypeError(f"a target must be a str, not {type(text).__name__}")
        prefix, colon, rest = text.partition(":")
        kind: Kind = next((kind for kind in _KINDS if colon and kind == prefix), "key")
        named = text if kind == "key" else rest
        if not named:
            raise ConfigurationError("a target must not be empty; to forget everything use clear()")
        target = cls(text, kind, tuple(_parts(named)))
        if kind == "pattern":
            _check_pattern("".join(literal + ("x" if name else "") for literal, name in target.parts))
        return target

    def filled(self, values: Mapping[str, Any]) -> str:
        """What is meant, with the values in place of the placeholders."""
        written: Callable[[str], str] = escape if self.kind in ("pattern", "key") else str
        found = [literal + ("" if name is None else written(_value(name, values))) for literal, name in self.parts]
        if not (text := "".join(found)):
            raise ConfigurationError(f"the context leaves the target {self.text!r} empty")
        if self.kind == "pattern":
            _check_pattern(text)
        return text


def _parts(text: str) -> Iterable[tuple[str, str | None]]:
    try:
        found = list(Formatter().parse(text))
    except ValueError:
        raise ConfigurationError(f"{text!r} has a brace without another one; write {{{{ or }}}} for a brace") from None
    for literal, name, spec, conversion in found:
        if name is not None and (not name.isidentifier() or spec or conversion):
            raise ConfigurationError(f"{text!r}: a placeholder is a name in braces, such as {{user_id}}, and no more")
        yield literal, name


def _value(name: str, values: Mapping[str, Any]) -> str:
    if name not in values:
        raise ConfigurationError(f"the context has no value for the placeholder {{{name}}}")
    value = values[name]
    if isinstance(value, str):
        return str.__str__(value)  # of an enum, too
    if isinstance(value, bool) or not isinstance(value, (int, UUID)):
        raise ConfigurationError(f"the placeholder {{{name}}} takes str, int or UUID, not {type(value).__name__}")
    return str(int(value)) if isinstance(value, int) else str(value)


def _check_pattern(pattern: str) -> None:
    if pattern.startswith("*"):
        raise ConfigurationError("a pattern that begins with '*' looks at every key; name a category or a tag")


def _require_event(event: object) -> None:
    if not isinstance(event, str):
        raise TypeError(f"an event must be a str, not {type(event).__name__}")
    if not event:
        raise ConfigurationError("an event must not be empty")
