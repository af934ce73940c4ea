"""A call for several things at once, as one call for each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ._items import Batch, take_apart
from ._policy import ModelRequest
from ._profiles import PROFILES, Profile

OF_NO_ITEM: Final = -1
"""Variant of a call under whose key there is what its answer has beside its items, and no answer."""


def apart(
    request: ModelRequest, body: bytes, *, by_user: bool = False
) -> tuple[ModelRequest, Batch, list[ModelRequest]] | None:
    """A call for several items, what it asks for, and the calls that ask for each alone.

    `None`: it is not to be taken apart.

    Args:
        body: of the call.
        by_user: on whose behalf the call is made tells it from others.
    """
    call = request.call
    profile = call.profile
    rules = profile.items
    if rules is None or not call.items:
        return None
    batch = take_apart(rules, call.model, body, profile.body, by_user=by_user)
    if batch is None:
        return None
    url = request.url
    if rules.alone_at is not None:
        profile, url = _alone(profile, url, *rules.alone_at)
    common = replace(call, profile=profile, items=0)
    return (
        replace(request, variant=OF_NO_ITEM),
        batch,
        [replace(request, url=url, call=replace(common, digest=digest), variant=0) for digest in batch.digests],
    )


def _alone(profile: Profile, url: str, operation: str, suffix: str) -> tuple[Profile, str]:
    other = next(one for one in PROFILES if one.name == profile.name and one.operation == operation)
    address, question, query = url.partition("?")
    if profile.path_suffix and address.endswith(profile.path_suffix):
        address = address.removesuffix(profile.path_suffix) + suffix
    return other, f"{address}{question}{query}"
