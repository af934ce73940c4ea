"""How long answers of models are kept, by what they say of themselves."""

from __future__ import annotations

from enum import Enum
from typing import Final

from ._options import Duration, seconds
from .exceptions import type_name
from .typing import ModelResponse

SUCCESS_TTL: Final = 3600.0
"""Seconds that an answer lives whose status is `success`, if the caller does not say."""
OTHER_TTL: Final = 300.0
"""Likewise with any other status."""


def life_of(response: ModelResponse, ttl: Duration | None, usual: float | None) -> float | None:
    """Seconds for which an answer is kept; `None`: it is not.

    Args:
        ttl: what the call says; `None`: nothing.
        usual: what the category says; `None`: nothing.

    Raises:
        TypeError: it has no status.
        ValueError: the ttl is negative or not a number.
    """
    life = None if ttl is None else seconds(ttl)
    status = status_of(response)
    if status == "error":
        return None
    if life is not None:
        return life
    success = SUCCESS_TTL if usual is None else usual
    return success if status == "success" else min(success, OTHER_TTL)


def status_of(response: object) -> str:
    """The status of an answer, in lower case.

    Raises:
        TypeError: it has none, or one that is no text.
    """
    status = _status(response)
    if not isinstance(status, str):
        raise TypeError(
            f"a model response needs a status that is a str, such as 'success' or 'error'; "
            f"{type_name(type(response))} has {'none' if status is None else 'one of type ' + type_name(type(status))}"
        )
    return status.lower()


def is_error(response: object) -> bool:
    """Whether something says that it is an answer that must not be kept."""
    status = _status(response)
    return isinstance(status, str) and status.lower() == "error"


def _status(response: object) -> object:
    status: object = getattr(response, "status", None)
    return status.value if isinstance(status, Enum) else status
