"""Which parts of a request select its entry, beside those of HTTP: parameters of the query, cookies, fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

TRACKING_PARAMETERS: Final = (
    "utm_*",
    "gclid",
    "gclsrc",
    "dclid",
    "gbraid",
    "wbraid",
    "fbclid",
    "msclkid",
    "ttclid",
    "twclid",
    "yclid",
    "igshid",
    "mc_cid",
    "mc_eid",
    "_ga",
    "_gl",
)
"""Names of parameters by which advertising follows its readers, and which change no page."""


@dataclass(frozen=True, slots=True)
class QueryPart:
    """Which parameters of the query count.

    Parameters are what stands between two `&`, and nothing else separates them: what another reading would find inside
    of one (`a=1;b=2`) is kept or left out together with it.

    Attributes:
        kept: those that count by their decoded names; `None`: all.
        ignored: those that do not.
        in_order: of their names, where the order in which they came does not count. Several of one name stay in order:
            which of them the app reads is its own affair.
    """

    kept: re.Pattern[str] | None
    ignored: re.Pattern[str] | None
    in_order: bool

    def of(self, query: bytes) -> bytes:
        """The query with what counts alone, each parameter spelt as it came."""
        pairs = [pair for pair in query.split(b"&") if pair and self._counts(_name(pair))]
        if self.in_order:
            pairs.sort(key=_name)
        return b"&".join(pairs)

    def _counts(self, name: str) -> bool:
        if self.kept is not None and self.kept.fullmatch(name) is None:
            return False
        return self.ignored is None or self.ignored.fullmatch(name) is None


def cookie_part(names: Sequence[bytes], fields: Mapping[bytes, bytes]) -> bytes:
    """The cookies that count, in an injective encoding; empty where the request has none of them."""
    header = fields.get(b"cookie")
    if not header or not names:
        return b""
    part = b""
    for pair in header.split(b";"):
        name, separator, value = pair.partition(b"=")
        name = name.strip(b" \t")
        if separator and name in names:
            # A name given twice counts twice, in order: which of them the app reads is its own affair.
            value = value.strip(b" \t")
            part += b"%d:%b%d:%b" % (len(name), name, len(value), value)
    return part


def field_part(names: Sequence[bytes], fields: Mapping[bytes, bytes]) -> bytes:
    """The values of the fields that count, in an injective encoding for these names; an absent one is not empty."""
    part = b""
    for name in names:
        value = fields.get(name)
        part += b"-" if value is None else b"+%d:%b" % (len(value), value)
    return part


def _name(pair: bytes) -> str:
    return unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" ")).decode("utf-8", "surrogateescape")
