"""Prompts that are asked, and the partition in which others are compared with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aurelis.cache._canonical import digest

from ._embedded import Embedded


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked, and in which partition.

    Attributes:
        partition: the digest of all that must be equal.
        prompt: that is asked.
        namespace: that counts for this call.
        key_of: gives the key of the answer to a prompt of this partition.
    """

    partition: str
    prompt: str = field(repr=False)
    namespace: str | None
    key_of: Callable[[str], str]


def partition_of(
    model_type: str,
    parameters: Mapping[str, object],
    provider: str | None,
    namespace: str | None,
    embedded: Embedded | None,
) -> str:
    """What must be equal, as a digest. `embedded`: gives vectors, of which those of two models cannot be compared."""
    embedder = "" if embedded is None else embedded.name
    return digest((model_type, provider, namespace, dict(parameters), embedder))
