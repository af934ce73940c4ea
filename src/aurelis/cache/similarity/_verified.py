"""Whether an answer may be given to a similar prompt, such that errors stay below a bound. Pure.

This is the policy of vCache (L. G. Schroeder et al., "vCache: Verified Semantic Prompt Caching", 2025,
arXiv:2502.03771). Each entry learns by itself from what was seen of it: at which similarity was its answer right for
another prompt, and at which was it not. The chance that it is right at a similarity s is taken as a logistic function
L(s; t, γ) = 1 / (1 + exp(-γ (s - t))) with a threshold t and a steepness γ of the entry's own. For a request,

* with confidence 1 - ε the chance is no less than L(s; t'(ε), γ), where t'(ε) is the threshold's upper bound,
* so it is α = (1 - ε) L(s; t'(ε), γ) at least, for whichever ε makes that the largest,
* and the model must be asked with a probability of τ = 1 - δ / (1 - α) or more: a request that asks it is right, so
  that then τ + (1 - τ) α ≥ 1 - δ.

Two things are done otherwise than there. The estimate of (t, γ) is a posterior on a grid, rather than a fit with an
asymptotic variance, which does not exist when right and wrong are cleanly separated, as they mostly are. And there is a
third parameter λ, the part of requests for which the answer is wrong however similar they are: (1 - λ) L(s; t, γ).
Without it a prompt that a number tells apart would look like one that is all the safer the more similar it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Floats = NDArray[np.float64]

MIN_OBSERVATIONS: Final = 6
"""Observations of an entry before its answer is given to anybody."""
MAX_OBSERVATIONS: Final = 256
"""The latest ones that are kept of an entry."""
_STEPS: Final = 100
"""Similarities are told apart by hundredths."""
_LAPSES: Final = (0.0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8)
_STEEPNESS: Final = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

Observation = tuple[float, bool]
"""How similar another prompt was, in [0, 1], and whether the entry's answer was right for it."""


def exploration(observations: Iterable[Observation], similarity: float, error_rate: float) -> float:
    """The probability τ with which the model must be asked, although there is an answer to a similar prompt.

    Args:
        observations: of the entry; the order does not count.
        similarity: of the prompt to that of the entry, in [0, 1].
        error_rate: δ, in (0, 1): of all requests for which there is a similar entry, so many at most may get a wrong
            answer. Of those who get the answer of another prompt, it may be a larger part.

    Returns:
        In [0, 1]. 1 as long as there are fewer than `MIN_OBSERVATIONS`.

    Raises:
        ModuleNotFoundError: numpy is not installed.
    """
    right, wrong = [0] * (_STEPS + 1), [0] * (_STEPS + 1)
    for seen, correct in observations:
        (right if correct else wrong)[_step(seen)] += 1
    if sum(right) + sum(wrong) < MIN_OBSERVATIONS:
        return 1.0
    bound = _lower_bound(tuple(right), tuple(wrong), _step(similarity))
    return max(0.0, 1.0 - error_rate / (1.0 - bound)) if bound < 1.0 else 0.0


def _step(similarity: float) -> int:
    # Downwards: less similar is less sure.
    return min(max(int(similarity * _STEPS + 1e-9), 0), _STEPS)


def _lower_bound(right: tuple[int, ...], wrong: tuple[int, ...], step: int) -> float:
    """α: what the chance of being right is at least."""
    import numpy as np

    chances, log_right, log_wrong = _grid()
    likelihood = np.asarray(right, float) @ log_right + np.asarray(wrong, float) @ log_wrong
    weights = np.exp(likelihood - likelihood.max())
    weights /= weights.sum()
    chance = chances[step]
    order = np.argsort(chance)
    # Of all that lies below a chance, ε is the weight. So above it there is 1 - ε, and (1 - ε) times it is a bound.
    below = np.cumsum(weights[order]) - weights[order]
    return float(np.max((1.0 - below) * chance[order]))


@lru_cache(1)
def _grid() -> tuple[_Floats, _Floats, _Floats]:
    """The chance of being right at each step (rows), for each (t, γ, λ) (columns), and the logarithms.

    All are equally likely beforehand, thresholds also above 1, where nothing is ever right.
    """
    import numpy as np

    thresholds = np.linspace(0.5, 1.2, 71)
    t, steepness, lapse = (axis.ravel() for axis in np.meshgrid(thresholds, _STEEPNESS, _LAPSES, indexing="ij"))
    similarity = np.linspace(0.0, 1.0, _STEPS + 1)[:, None]
    chances = (1.0 - lapse) / (1.0 + np.exp(-np.clip(steepness * (similarity - t), -60.0, 60.0)))
    return chances, np.log(np.maximum(chances, 1e-12)), np.log(np.maximum(1.0 - chances, 1e-12))
