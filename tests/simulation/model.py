"""What a cache may answer: every value is known by a number, and every answer is held against all that happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aurelis.cache import _tags

PREFIX = "sim:"


class Violation(AssertionError):
    """A property does not hold."""


class LoadFailed(Exception):
    """A load that was meant to fail."""


@dataclass(slots=True)
class Moment:
    """An instant: its place in the order of everything, and the time."""

    order: int
    time: float


@dataclass(slots=True)
class Made:
    """A value: who made it, and when.

    Attributes:
        kind: `load` or `set`.
        begin: before it was asked for, or the call began.
        end: when it was there, or the call had returned; `None`: that is not known.
        tags: all, also those that follow from the key.
        ttl: seconds.
        stale_for: seconds after that.
    """

    number: int
    key: str
    node: str
    kind: str
    begin: Moment
    tags: frozenset[str]
    ttl: float
    stale_for: float = 0.0
    end: Moment | None = None

    @property
    def value(self) -> object:
        """What is cached: some values are shared between readers, others are copied."""
        return self.number if self.number % 2 else [self.number]


@dataclass(slots=True)
class Change:
    """Something that makes earlier values out of date.

    Attributes:
        what: for people.
        keys: those that it is about.
        tags: likewise.
        soft: they are stale, not gone.
        end: when it was acknowledged; `None`: not yet.
        acknowledged: by all layers; otherwise by its own node only.
        made: the value that it puts there; `None`: none.
    """

    what: str
    node: str
    begin: Moment
    keys: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    soft: bool = False
    end: Moment | None = None
    acknowledged: bool = False
    made: int | None = None

    def overtakes(self, made: Made) -> bool:
        """Whether the value surely is older than this."""
        if made.number == self.made or (made.key not in self.keys and made.tags.isdisjoint(self.tags)):
            return False
        if made.kind == "load":
            return made.begin.order < self.begin.order
        return made.end is not None and made.end.order < self.begin.order


@dataclass
class Model:
    """All that happened.

    Args:
        bound: seconds after which an acknowledged change counts on the other nodes, too.
        slack: seconds by which a value may be older than its time, for the way to the shared layer and back.
    """

    bound: float
    slack: float
    made: dict[int, Made] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    checked: int = 0
    _order: int = 0

    def now(self, time: float) -> Moment:
        """The next moment."""
        self._order += 1
        return Moment(self._order, time)

    def make(
        self, key: str, node: str, kind: str, time: float, *, tags: Iterable[str], ttl: float, stale_for: float = 0.0
    ) -> Made:
        """A new value."""
        every = frozenset((*_tags.tags(tuple(tags)), *_tags.implied(key, PREFIX)))
        made = Made(len(self.made) + 1, key, node, kind, self.now(time), every, ttl, stale_for)
        self.made[made.number] = made
        return made

    def change(self, change: Change) -> Change:
        """Note that it begins."""
        self.changes.append(change)
        return change

    def tell(self, time: float, text: str) -> None:
        """Write it down for whoever looks for a fault."""
        self.story.append(f"{time:10.4f} {text}")

    def check(self, node: str, key: str, value: object, begin: Moment, end: float, *, stale: bool, call: str) -> None:
        """Whether a call that began then may give this value.

        Args:
            stale: what was made stale or has outlived its ttl may be served.

        Raises:
            Violation: it may not.
        """
        self.checked += 1
        number = value[0] if isinstance(value, list) else value
        assert isinstance(number, int), value
        made = self.made[number]
        what = f"{call} of {key} on {node}, begun at {begin.time:.4f}, gave {number}"
        if made.key != key:
            raise Violation(f"{what}, which belongs to {made.key}")
        for change in self.changes:
            if change.end is None or not change.overtakes(made) or (change.soft and stale):
                continue
            why = f"{change.what} on {change.node}, {change.begin.time:.4f} to {change.end.time:.4f}"
            why = f"{why}; {made.kind} on {made.node} began at {made.begin.time:.4f}"
            if change.node == node and change.end.order < begin.order:
                raise Violation(f"P3: {what}, older than its own {why}")
            if change.acknowledged and begin.time > change.end.time + self.bound:
                raise Violation(f"P3: {what}, older than {why}, for {begin.time - change.end.time:.3f} s")
        if made.end is not None:
            life = made.ttl + (made.stale_for if stale else 0.0)
            if begin.time > made.end.time + life + self.slack:
                age = begin.time - made.end.time
                raise Violation(f"P4: {what}, {age:.3f} s after it was made, for {life} s")
