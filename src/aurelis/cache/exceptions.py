"""The errors that can leave `aurelis.cache`.

The tree::

    CacheError(Exception)
    ├── ConfigurationError(ValueError)           an option is wrong, or options contradict each other
    │   └── MissingExtraError(ImportError)       the option needs an extra that is not installed
    ├── UnkeyableError(TypeError)                an argument cannot become part of a key
    ├── UnstorableValueError(TypeError)          a value cannot be stored exactly
    ├── LayerError                               a layer failed (Redis, disk, ...)
    │   ├── LayerTimeout(TimeoutError)           it did not answer before its deadline
    │   └── LayerUnavailableError                it was not asked: its breaker is open
    ├── EmbeddingError                           an embedder gave no vectors that can be used
    ├── RecursiveLoadError(RuntimeError)         a load waits for the result of itself
    ├── LoadTimeoutError(TimeoutError)           a load took longer than its caller wanted to wait
    ├── CacheClosedError(RuntimeError)           the cache was used after it was closed
    ├── JournalFullError(TimeoutError)           a write-behind got no room for a write in time
    └── FrameError(ValueError)                   stored bytes are damaged or not ours

The first four say that the call is wrong, `LayerError` that something outside failed, `FrameError` that
stored data is bad. Each also derives from the built-in in parentheses, so that plain handlers work.

No message contains a key or a value of the user: messages end up in logs, and keys hold user names, tokens
and prompts.
"""

from __future__ import annotations

__all__ = [
    "CacheClosedError",
    "CacheError",
    "ConfigurationError",
    "EmbeddingError",
    "FrameError",
    "JournalFullError",
    "LayerError",
    "LayerTimeout",
    "LayerUnavailableError",
    "LoadTimeoutError",
    "MissingExtraError",
    "RecursiveLoadError",
    "UnkeyableError",
    "UnstorableValueError",
]


class CacheError(Exception):
    """The base of all errors of this library."""


class ConfigurationError(CacheError, ValueError):
    """An option has a value that cannot work, or two options contradict each other."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is needed and is not installed.

    Attributes:
        extra: The name of the extra of `aurelis-cache` that brings it, for example ``"redis"``.
        feature: What needs it, for example ``"redis_url"``; empty if it was not said.
    """

    def __init__(self, extra: str, feature: str = "") -> None:
        self.extra = extra
        self.feature = feature
        subject = feature or f"the {extra!r} feature"
        super().__init__(f'{subject} needs an optional dependency: pip install "aurelis-cache[{extra}]"')

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.extra, self.feature)


class UnkeyableError(CacheError, TypeError):
    """An argument cannot become part of a key.

    Attributes:
        path: Where it is, for example ``"params['x'][0]"``.
        type_name: The type found there, ``"module.QualifiedName"``; built-in types without the module.
        reason: Why, in words; empty if the type itself is the reason.
    """

    def __init__(self, path: str, type_name: str, reason: str = "") -> None:
        self.path = path
        self.type_name = type_name
        self.reason = reason
        super().__init__(
            f"cannot build a key from {path} of type {type_name}: "
            + (reason or "pass plain data (str, int, list, dict, dataclass, ...) that identifies it instead")
        )

    def __reduce__(self) -> tuple[type[UnkeyableError], tuple[str, str, str]]:
        return type(self), (self.path, self.type_name, self.reason)


class UnstorableValueError(CacheError, TypeError):
    """A value cannot be stored so that reading gives back exactly the same.

    Attributes:
        type_name: The type that was refused, ``"module.QualifiedName"``; built-in types without the module.
        path: Where it is inside the value, for example ``"value['rows'][0]"``.
        reason: Why, in words; empty if the type itself is the reason.
    """

    def __init__(self, type_name: str, path: str = "value", reason: str = "") -> None:
        self.type_name = type_name
        self.path = path
        self.reason = reason
        name = type_name.rpartition(".")[2]
        super().__init__(
            f"cannot store {path} of type {type_name}: "
            + (
                reason
                or f"if it is an Enum, dataclass, NamedTuple or pydantic model, register it with "
                f"CacheConfig(types=[{name}]), otherwise convert it to plain data first"
            )
        )

    def __reduce__(self) -> tuple[type[UnstorableValueError], tuple[str, str, str]]:
        return type(self), (self.type_name, self.path, self.reason)


class LayerError(CacheError):
    """A layer failed while it was used.

    The failure itself is the ``__cause__``.

    Attributes:
        layer: The name of the layer, for example ``"L2_redis"``.
        operation: What it was asked to do, for example ``"get"``.
        detail: What went wrong, in words without keys, values or credentials; may be empty.
    """

    _says = "failed during"

    def __init__(self, layer: str, operation: str, detail: str = "") -> None:
        self.layer = layer
        self.operation = operation
        self.detail = detail
        super().__init__(f"cache layer {layer!r} {self._says} {operation!r}" + (f": {detail}" if detail else ""))

    def __reduce__(self) -> tuple[type[LayerError], tuple[str, str, str]]:
        return type(self), (self.layer, self.operation, self.detail)


class LayerTimeout(LayerError, TimeoutError):
    """A layer did not answer before its deadline; whether it did the work is not known."""

    _says = "did not answer in time during"


class LayerUnavailableError(LayerError):
    """A layer was not asked, because it failed repeatedly and its breaker is open."""

    _says = "is not asked while its breaker is open, refused"


class EmbeddingError(CacheError):
    """An embedder gave no vectors, or none that can be compared."""


class RecursiveLoadError(CacheError, RuntimeError):
    """A load asked for the key that it is loading; waiting would never end."""


class LoadTimeoutError(CacheError, TimeoutError):
    """A load took longer than the caller's `hard_timeout`, and there was nothing stale to serve."""


class CacheClosedError(CacheError, RuntimeError):
    """The cache was used after it was closed."""


class JournalFullError(CacheError, TimeoutError):
    """So many writes wait for the data store, or are dead letters, that another one found no room in time.

    It was not acknowledged, and nothing of it is kept.
    """


class FrameError(CacheError, ValueError):
    """Stored bytes are damaged, or were written by somebody else or by another version.

    Attributes:
        reason: A short token for counters: ``"magic"``, ``"version"``, ``"truncated"``, ``"check"``,
            ``"key"``, ``"header"``, ``"codec"``, ``"unencrypted"``, ``"unknown_key"``, ``"tampered"``,
            ``"compression"``, ``"too_large"`` or ``"payload"``.
        detail: More about it, without any stored data; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"stored bytes are not usable ({reason})" + (f": {detail}" if detail else ""))

    def __reduce__(self) -> tuple[type[FrameError], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


def type_name(kind: type) -> str:
    """Return the name of a class as messages show it: ``"module.QualifiedName"``, built-in types bare."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
