"""What tokens of a model cost: as the settings say, else as the price list says that comes with pydantic-ai (no download)."""

from __future__ import annotations

from collections.abc import Callable

from headwater.llm.provider import Provider

Price = Callable[[int, int], float]  # of tokens of prompt and of answer, in US dollars
_LISTED = ("openai", "anthropic", "azure")


def price_of(provider: Provider) -> Price | None:
    """The price of a model; None where none is known. Takes half a second the first time."""
    given = provider.prices
    if given is not None:
        return lambda input, output: (input * given[0] + output * given[1]) / 1e6
    if provider.free:
        return lambda input, output: 0.0
    return _listed(provider.provider, provider.model) if provider.provider in _LISTED else None


def _listed(kind: str, model: str) -> Price | None:
    try:
        from genai_prices import Usage, calc_price

        calc_price(Usage(input_tokens=1, output_tokens=1), model_ref=model, provider_id=kind)
    except (ImportError, LookupError):
        return None

    def price(input: int, output: int) -> float:
        return float(calc_price(Usage(input_tokens=input, output_tokens=output), model_ref=model, provider_id=kind).total_price)

    return price
