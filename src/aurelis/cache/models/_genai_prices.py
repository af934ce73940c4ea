"""The price list of genai-prices. No other module imports it.

It holds the list prices of providers, and takes half a second to be loaded: when a transport is made, not when the
first answer is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from aurelis.cache.exceptions import MissingExtraError

try:
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import PriceCalculation
except ModuleNotFoundError as error:
    raise MissingExtraError("cost", 'cost="genai-prices"') from error

from ._cost import BilledCall
from ._usage import Usage

get_snapshot()

# Whose list counts at an address that belongs to no provider: a gateway, or a proxy of one's own.
_BY_PROTOCOL: Final = {
    "anthropic": ("anthropic",),
    "cohere": ("cohere",),
    "gemini": ("google",),
    # Only those whose models nobody else can run. What is run at home has no price that anybody could know.
    "openai": ("openai", "anthropic", "google"),
}
_OPEN_MODELS: Final = ("gpt-oss", "gemma")
_USUAL: Final = frozenset({"auto", "default", "on_demand", "standard"})
"""Terms under which the standard price counts."""
_BILLED_INPUT: Final = "billed_input_tokens"
_BILLED_OUTPUT: Final = "billed_output_tokens"


def price(call: BilledCall) -> float | None:
    """US dollars for a call; `None`: the list does not say it."""
    usage = _usage(call.usage)
    if usage is None:
        return None
    terms = dict(call.usage.terms)
    for model in dict.fromkeys(filter(None, (call.answered_by, call.model))):
        for provider in _providers(call, model):
            try:
                found = genai_prices.calc_price(usage, model, provider_id=provider, price_context=terms)
            except LookupError:  # no such model there
                continue
            except ValueError:  # the counts contradict each other, or don't tell apart what is priced apart
                return None
            return float(found.total_price) if _is_listed(found, terms) and _is_covered(found, usage) else None
    return None


def _usage(usage: Usage) -> genai_prices.Usage | None:
    """What was used, in the words of the list; `None`: it is not known."""
    details = dict(usage.details)
    read, written = usage.input_tokens, usage.output_tokens
    if _BILLED_INPUT in details or _BILLED_OUTPUT in details:
        # Of what is billed no parts are known.
        return genai_prices.Usage(
            input_tokens=details.get(_BILLED_INPUT, 0), output_tokens=details.get(_BILLED_OUTPUT, 0)
        )
    if read is None or written is None:
        return None
    return genai_prices.Usage(**{"input_tokens": read, "output_tokens": written, **details})


def _providers(call: BilledCall, model: str) -> Iterator[str]:
    known = _provider_at(call.url.partition("?")[0])
    if known is not None:
        yield known
    elif not any(name in model.lower() for name in _OPEN_MODELS):
        yield from _BY_PROTOCOL.get(call.protocol, ())


@lru_cache(256)
def _provider_at(url: str) -> str | None:
    """The provider that an address belongs to."""
    try:
        return get_snapshot().find_provider(None, None, url).id
    except LookupError:
        return None


def _is_listed(found: PriceCalculation, terms: dict[str, str]) -> bool:
    """Whether the price is one for these terms, and not the standard price in its place."""
    own = any(found.model is model for model in found.provider.models)
    return all(
        value in _USUAL
        or (own and any(variant.when.get(name) == value for variant in found.model.price_variants or ()))
        for name, value in terms.items()
    )


def _is_covered(found: PriceCalculation, usage: genai_prices.Usage) -> bool:
    """Whether the list has a price for what was read, and for what was written: without one, nothing is charged."""
    if found.model.id.endswith(":free"):
        return True
    listed = [name for name, amount in vars(found.model_price).items() if amount is not None]
    return all(
        not usage.reported_value(f"{side}_tokens") or any(name.startswith(side) for name in listed)
        for side in ("input", "output")
    )
