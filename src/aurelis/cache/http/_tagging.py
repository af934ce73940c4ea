"""By which names a stored response can be invalidated."""

from __future__ import annotations

from collections.abc import Mapping

from ._messages import HttpRequest


def response_tags(request: HttpRequest, fields: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """The tags of a response, in their internal form, each once.

    Args:
        request: whose rule may give some.
        fields: of the response, by lower-case name.
    """
    return () if request.rule is None else request.rule.tags
