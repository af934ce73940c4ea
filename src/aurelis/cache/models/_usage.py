"""Token counts as the model reported them; unknown stays unknown."""

from __future__ import annotations

from dataclasses import dataclass

_LIMIT = 2**53  # beyond this a JSON number is no longer exact for every reader: no count of tokens is


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call.

    Attributes:
        input_tokens: ≥ 0; `None`: not reported.
        output_tokens: likewise.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None


UNKNOWN = Usage()


def count(value: object) -> int | None:
    """A count as JSON gives it; `None`: it is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < _LIMIT else None


def total(block: object, *names: str) -> int | None:
    """The sum of the counts of these names; `None`: the first one is not there.

    Protocols that report parts of a count leave out those that are zero, but for the first.
    """
    if not isinstance(block, dict):
        return None
    first = count(block.get(names[0]))
    if first is None:
        return None
    return first + sum(count(block.get(name)) or 0 for name in names[1:])
