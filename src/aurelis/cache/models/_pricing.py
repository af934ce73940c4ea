"""Chooses whose prices count: the list of genai-prices, or a function of the app's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

from aurelis.cache._trouble import warn
from aurelis.cache.exceptions import ConfigurationError, type_name
from aurelis.cache.telemetry._bounded import is_type
from aurelis.cache.telemetry.names import OTHER

from ._cost import GENAI_PRICES, BilledCall, Cost, Price


def pricing(cost: Cost) -> Callable[[BilledCall], float | None] | None:
    """The function that gives US dollars, or `None` where the price is not known. It never raises.

    Raises:
        ConfigurationError: it is nothing that gives prices.
        MissingExtraError: the price list is not installed.
    """
    if cost is None:
        return None
    if cost == GENAI_PRICES:
        from ._genai_prices import price  # imported here, because nobody else is to need it

        return _contained(price)
    given: object = cost
    if isinstance(given, str) or not callable(given) or inspect.iscoroutinefunction(given):
        found = repr(given) if isinstance(given, str) else type_name(type(given))
        raise ConfigurationError(f"cost must be {GENAI_PRICES!r} or a function that is no coroutine, not {found}")
    return _contained(cost)


def _contained(price: Price) -> Callable[[BilledCall], float | None]:
    failed = False

    def contained(call: BilledCall) -> float | None:
        nonlocal failed
        try:
            given = price(call)
            amount = None if given is None else float(given)
        except Exception as error:  # noqa: BLE001  # an answer is stored whatever it has cost
            if not failed:
                failed = True
                # The type only: the text may carry what must not leave the process.
                kind = type_name(type(error))
                kind = kind if is_type(kind) else OTHER
                warn("cost= raised %s; what it cannot say is counted as unknown", kind)
            return None
        return amount if amount is not None and 0 <= amount < math.inf else None

    return contained
