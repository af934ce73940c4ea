"""Where answers of models are kept, and the tags that they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .exceptions import ConfigurationError, type_name

CATEGORY: Final = "model_responses"
"""Category of the entries."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to a prompt is kept.

    Attributes:
        apart: what keeps it apart from those of other providers and namespaces; begins the identifier.
        model_key: by `CacheKeyBuilder.build_model_key`.
        tags: those of the model, the provider and the namespace.
        namespace: that counts for this call.
    """

    apart: str
    model_key: str
    tags: tuple[str, ...]
    namespace: str | None

    @property
    def identifier(self) -> str:
        """In `CATEGORY`."""
        return self.apart + self.model_key


def model_tag(model_type: str) -> str:
    """The tag of all answers of a model."""
    return "model:" + checked_name("model_type", model_type)


def provider_tag(provider: str) -> str:
    """The tag of all answers of a provider."""
    return "provider:" + checked_name("provider", provider)


def namespace_tag(namespace: str) -> str:
    """The tag of all answers of a namespace."""
    return "namespace:" + checked_name("namespace", namespace)


def checked_name(argument: str, name: object) -> str:
    """The name, if it is one.

    Raises:
        ConfigurationError: it is empty, or no str.
    """
    # Whoever keeps tenants apart by a name must not share by accident.
    if not isinstance(name, str) or not name:
        found = "an empty one" if name == "" else type_name(type(name))
        raise ConfigurationError(f"{argument} must be a str that is not empty, not {found}")
    return name
