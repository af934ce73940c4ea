"""What the price of a call depends on, and who says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

from ._usage import Usage

GENAI_PRICES: Final = "genai-prices"


@dataclass(frozen=True, slots=True)
class BilledCall:
    """A call whose answer is being stored, as a price depends on it.

    Attributes:
        protocol: that it was made in: `openai`, also for the many that speak like it.
        operation: what it asked for: `chat`.
        url: its address, without credentials.
        model: name as the call gave it; empty where it gave none.
        answered_by: name as the answer gives it; empty where it gives none.
        usage: what the answer says that was used; counts that are not known are `None`.
    """

    protocol: str
    operation: str
    url: str = field(repr=False)
    model: str
    answered_by: str
    usage: Usage


Price = Callable[[BilledCall], Decimal | float | None]
"""Gives US dollars, ≥ 0; `None`: not known. Called once for each answer that is stored, where all else waits for it."""
Cost = Literal["genai-prices"] | Price | None
"""Whose prices count; `None`: none are asked for."""
