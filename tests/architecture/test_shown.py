"""What records show of themselves: who logs one, or reports an error with the variables around it, tells no content.

Contents and credentials are in no `repr`: bodies, header fields, addresses with their queries, values, prompts, frames.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import aurelis.cache
import aurelis_asgi
import aurelis_cli
import aurelis_httpx
import aurelis_httpx2

PACKAGES = (aurelis.cache, aurelis_asgi, aurelis_cli, aurelis_httpx, aurelis_httpx2)
CONTENTS = {
    *("body", "bodies", "chunks", "headers", "fields", "payload", "frame", "value", "values", "stale", "failure"),
    *("index", "inputs", "prompt", "prompts", "text", "texts", "words", "tokens", "vector", "response", "document"),
    *("url", "base_url", "uri", "redis_url", "redis_password", "password", "username", "secret", "encryption_key"),
}
SHOWN = {
    # Records that have nothing of it by themselves, or show nothing of it.
    "PackedValues.values",
    "Gathered.frame",
    "Hit.response",
    "StoredPart.response",
    "Batch.document",
    # Without secrets by definition: a cassette is read by people.
    "Asked.url",
    "Asked.headers",
    "Answered.headers",
    # Functions.
    "Ask.frame",
    "ItemRules.inputs",
    "Library.headers",
    "Library.response",
    "Profile.body",
    # What a rule, a target or telemetry declares.
    "Attribute.values",
    "Use.values",
    "CacheRule.headers",
    "_Target.text",
    "Storable.fields",
    "Column.text",
}
"""Fields of such a name that may be shown."""


def shown() -> Iterator[str]:
    """Fields that records show, as `Class.field`."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__") or ".demo." in found.name:
                continue
            for kind in vars(importlib.import_module(found.name)).values():
                if inspect.isclass(kind) and kind.__module__ == found.name:
                    yield from (f"{kind.__name__}.{name}" for name in _shown_by(kind))


def _shown_by(kind: type) -> list[str]:
    if not is_dataclass(kind) or not getattr(kind, "__dataclass_params__").repr:  # noqa: B009  # typeshed lacks it
        return []
    return [each.name for each in fields(kind) if each.repr]


def test_no_record_shows_what_it_carries() -> None:
    found = list(shown())
    assert len(found) > 300
    assert sorted({each for each in found if each.partition(".")[2] in CONTENTS} - SHOWN) == []
    assert set(found) >= SHOWN, "what may be shown is not there any more"
