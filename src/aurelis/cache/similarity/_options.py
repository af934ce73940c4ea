"""What can be chosen of a `SimilarityCache`, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from aurelis.cache._options import Duration, seconds, whole
from aurelis.cache.exceptions import ConfigurationError, MissingExtraError
from aurelis.cache.typing import Embedder

from ._gate import Gate
from ._verdicts import Judge

Mode = Literal["threshold", "shadow", "verified"]
_MODES: Final = ("threshold", "shadow", "verified")
_GATES: Final = ("wording", "meaning")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Options:
    """The arguments of `SimilarityCache`, which says what they mean.

    Raises:
        ConfigurationError: one is out of range or of the wrong kind.
        MissingExtraError: a package that they need is not installed.
    """

    similarity_threshold: float
    mode: Mode
    embedder: Embedder | None
    gate: Gate | None
    judge: Judge | None
    error_rate: float
    namespace: str | Callable[[], str | None] | None
    index: Literal["exact", "usearch"]
    max_entries: int
    max_bytes: int
    max_prompt: int
    timeout: Duration
    chance: Callable[[], float]

    def __post_init__(self) -> None:
        _check_part("similarity_threshold", self.similarity_threshold, one=True)
        _check_part("error_rate", self.error_rate)
        _check_choice("mode", self.mode, _MODES)
        _check_choice("gate", self.gate, (None, *_GATES))
        _check_choice("index", self.index, ("exact", "usearch"))
        if self.judge is not None and not callable(self.judge):
            raise ConfigurationError("judge must be a function of two answers")
        for name in ("max_entries", "max_bytes", "max_prompt"):
            whole(name, getattr(self, name))
        if self.index == "usearch" and self.embedder is None:
            raise ConfigurationError("index='usearch' is for vectors, so it needs an embedder")
        if not seconds(self.timeout, "timeout"):
            raise ConfigurationError("timeout must be more than 0 seconds")
        _require_packages(letters=self.embedder is None, mode=self.mode, index=self.index)

    def effective_gate(self) -> Gate:
        """The gate, whether it is said or follows from the embedder."""
        return self.gate or ("wording" if self.embedder is None else "meaning")


def _check_part(name: str, value: object, *, one: bool = False) -> None:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1.0
    if not (0 < number < 1 or (one and number == 1)):
        raise ConfigurationError(f"{name} must be above 0 and {'at most' if one else 'below'} 1, not {value!r}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        said = ", ".join(repr(choice) for choice in choices)
        raise ConfigurationError(f"{name} must be one of {said}, not {value!r}")


def _require_packages(*, letters: bool, mode: str, index: str) -> None:
    """Refuse at once what could not work later."""
    try:
        if letters:
            import rapidfuzz.process  # noqa: F401
        if not letters or mode == "verified":
            import numpy  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("similarity", "SimilarityCache") from error
    if index == "usearch":
        try:
            import usearch.index  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtraError("usearch", "index='usearch'") from error
