"""What became of a request, as whoever sent it can see: from the response alone."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from aurelis.cache.telemetry import names

COLLAPSED: Final = "collapsed"
"""Beside the results: misses that another request's load has brought."""
STOOD_IN: Final = "stood in"
"""Likewise: stale answers for which the origin was asked in vain."""
CONFIRMED: Final = "confirmed"
"""Likewise: answers of which the origin was asked whether they still hold, by this very request."""
RAISED: Final = "raised"
"""Likewise: misses of which nothing says whether another request's load was theirs, as they have no answer."""
_BESIDE: Final = (COLLAPSED, STOOD_IN, CONFIRMED, RAISED)

_PARAMETER = re.compile(r"; ([a-z-]+)(?:=(\"[^\"]*\"|[^;,]+))?")


def result_of(status: int, cache_status: str) -> tuple[str, str]:
    """Returns the result (RFC 9211 says which), and what it is beside that; empty: nothing.

    Args:
        status: of the response.
        cache_status: the member of one cache; empty: the origin has raised, or did not answer in time.
    """
    if not cache_status:
        return names.MISS, RAISED
    said = dict(_PARAMETER.findall(cache_status))
    own = COLLAPSED not in said
    ttl = int(said.get("ttl") or 0)
    if "hit" in said:
        return names.STALE if ttl < 0 else names.HIT, ""
    if said.get("fwd", "bypass") == "bypass":  # without any: nothing but what is stored was wanted
        return names.BYPASS, ""
    answered = int(said.get("fwd-status", 0))
    if answered == 304:
        return names.REVALIDATED, CONFIRMED if own else ""
    if ttl < 0 and answered != status:  # what is stored stands in for the answer
        return names.STALE, STOOD_IN if own else ""
    return names.MISS, "" if own else COLLAPSED


class Seen(Counter[str]):
    """Requests by result, and by what they are beside that."""

    def note(self, status: int, cache_status: str) -> str:
        """Count a response; arguments as of `result_of`. Returns the result."""
        result, beside = result_of(status, cache_status)
        self[result] += 1
        if beside:
            self[beside] += 1
        return result

    def results(self) -> dict[str, int]:
        """Returns the requests by result."""
        return {result: number for result, number in self.items() if result not in _BESIDE and number}
