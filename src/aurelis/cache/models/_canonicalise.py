"""Canonical JSON: equal bytes for bodies that ask for the same, different bytes for all others.

SDKs write the same call with other key orders, separators and explicit defaults, so bytes as they were sent
make a poor key. Only what is known to leave the answer alone is taken away; everything else counts, unknown
fields included.

Numbers are read and written by Python. Integers keep every digit. A float is written as the shortest text
that reads back as the same binary64, so two bodies agree only where each receiver that reads binary64
(RFC 8259 §6) sees the same number: `0.70` and `0.7` agree, `1` and `1.0` do not. What has no such text
(`NaN`, `1e400`) has no canonical form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BodyRules:
    """What of a provider's request body has no part in the key.

    Attributes:
        ignored: names of top-level fields that leave the answer alone.
        of_user: those that say on whose behalf the call is made, which leave it alone as well.
        ignored_within: pairs of a top-level field and a field inside it that leaves the answer alone.
        stream_default: what an absent `stream` means; an explicit `stream` of this value counts as absent. `None`: it
            means nothing, and counts like any other field.
    """

    ignored: tuple[str, ...] = ()
    of_user: tuple[str, ...] = ()
    ignored_within: tuple[tuple[str, str], ...] = ()
    stream_default: bool | None = None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):  # RFC 8259 §4: receivers disagree which of two equal names counts
        raise ValueError("a name occurs twice in one JSON object")
    return members


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant).decode
_encode = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    allow_nan=False,  # also refuses 1e400, which was read as infinity
    check_circular=False,  # what was read from JSON has no cycles
).encode


def parse_object(body: bytes) -> dict[str, object] | None:
    """The JSON object in `body`, or `None` if there is none or if receivers could read it differently.

    Never raises: invalid UTF-8 or JSON, a name twice in one object, `NaN` and its like, more digits in an
    integer than the interpreter converts, and nesting beyond its recursion limit are all `None`.
    """
    try:
        document = _decode(str(body, "utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def canonical_body(document: Mapping[str, object], rules: BodyRules, *, by_user: bool = False) -> bytes:
    """Canonical JSON of a parsed body without what the rules ignore: ASCII, sorted names, no white space.

    Args:
        by_user: on whose behalf the call is made does count.

    Raises:
        ValueError: a number is beyond binary64.
        RecursionError: nested beyond the recursion limit.
    """
    kept = dict(document)
    for name in rules.ignored if by_user else (*rules.ignored, *rules.of_user):
        kept.pop(name, None)
    for outer, inner in rules.ignored_within:
        options = kept.get(outer)
        if isinstance(options, dict) and inner in options:
            remaining = {name: value for name, value in options.items() if name != inner}
            if remaining:
                kept[outer] = remaining
            else:
                del kept[outer]
    if rules.stream_default is not None and kept.get("stream") is rules.stream_default:
        del kept["stream"]
    return encode(kept)


def encode(value: object) -> bytes:
    """Canonical JSON of a parsed value.

    Raises:
        ValueError: a number is beyond binary64.
        RecursionError: nested beyond the recursion limit.
    """
    return _encode(value).encode("ascii")
