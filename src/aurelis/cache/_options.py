"""Options as callers give them: durations, and how one entry is to be kept and refreshed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from .exceptions import ConfigurationError

Duration = float | timedelta
"""Seconds, or a timedelta."""


def seconds(value: Duration, name: str = "ttl") -> float:
    """The duration in seconds, ≥ 0, perhaps infinite.

    Raises:
        ValueError: it is negative or not a number.
        TypeError: it is neither a number nor a timedelta.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond what a float can count
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number) or number < 0:
        raise ValueError(f"{name} must be 0 or more seconds (math.inf: never expires), not {value!r}")
    return number


def whole(name: str, value: object) -> None:
    """Refuse what is not a whole number of 1 or more.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {value!r}")


def yes_or_no(name: str, value: object) -> None:
    """Refuse what is neither `True` nor `False`: any text would count as true.

    Raises:
        ConfigurationError: it is something else.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryOptions:
    """How `get_or_compute` keeps and refreshes one entry. All durations are seconds or timedeltas.

    Attributes:
        ttl: how long a value is fresh; `None`: the layers' own. An argument `ttl=` beside the options wins.
        memory_ttl: how long at most memory keeps it, where a shared layer is below; `None`: the layer's own.
        jitter: the ttl is shortened by up to this much, at random, so that what was loaded together does not expire
            together.
        early_refresh: part of the ttl, between 0 and 1, after which a hit starts a refresh in the background.
        early_beta: > 0: a hit starts a refresh with a probability that grows towards the end of the ttl, the earlier
            the longer the load took (XFetch, Vattani et al. 2015; 1 is optimal). Drawn once for each process and
            entry. The earlier of both ways counts.
        stale_while_revalidate: how long after its ttl a value is still served while it is refreshed in the background.
        stale_if_error: how long after its ttl a value is still served when it cannot be loaded anew.
        throttle: after a refresh failed, for how long the stale value is served without trying again.
        soft_timeout: with a stale value at hand, how long callers wait for the load before they get that.
        hard_timeout: how long callers wait for the load at most; then they get a stale value or `LoadTimeoutError`.
        background_completion: a load that nobody waits for any more because of a timeout goes on and is stored.
        negative_ttl: for how long a failure is raised again in this process without loading.
        lease_wait: how long to wait for another process that loads the key, before loading it here as well; `None`: as
            long as that process is alive.

    Raises:
        ConfigurationError: a value is out of range, or two contradict each other.
    """

    ttl: Duration | None = None
    memory_ttl: Duration | None = None
    jitter: Duration = 0.0
    early_refresh: float | None = None
    early_beta: float | None = None
    stale_while_revalidate: Duration = 0.0
    stale_if_error: Duration = 0.0
    throttle: Duration = 30.0
    soft_timeout: Duration | None = None
    hard_timeout: Duration | None = None
    background_completion: bool = True
    negative_ttl: Duration = 0.0
    lease_wait: Duration | None = None

    def __post_init__(self) -> None:
        for name in _DURATIONS:
            value = getattr(self, name)
            if value is None:
                continue
            try:
                object.__setattr__(self, name, seconds(value, name))
            except (ValueError, TypeError) as error:
                raise ConfigurationError(f"EntryOptions: {error}") from None
        for name in ("soft_timeout", "hard_timeout", "memory_ttl"):
            if getattr(self, name) == 0:
                raise ConfigurationError(f"EntryOptions: {name} must be more than 0 seconds")
        yes_or_no("EntryOptions: background_completion", self.background_completion)
        if self.early_refresh is not None and not 0 < _number(self.early_refresh) < 1:
            raise ConfigurationError("EntryOptions: early_refresh is a part of the ttl, between 0 and 1")
        if self.early_beta is not None and not 0 < _number(self.early_beta) < math.inf:
            raise ConfigurationError("EntryOptions: early_beta must be more than 0 and finite; 1 is a good choice")
        self._check_combinations()

    def _check_combinations(self) -> None:
        problem = ""
        if self.soft_timeout is not None and not self.stale_for:
            problem = "soft_timeout serves a stale value, so it needs stale_if_error or stale_while_revalidate"
        elif self.soft_timeout is not None and _or_ever(self.soft_timeout) >= _or_ever(self.hard_timeout):
            problem = "soft_timeout must be shorter than hard_timeout"
        elif self.ttl == 0 and (self.stale_for or self.early_refresh or self.early_beta):
            problem = "with ttl=0 nothing is kept, so nothing can be served stale or refreshed early"
        elif self.jitter and seconds(self.jitter) >= _or_ever(self.ttl):
            problem = "jitter must be shorter than ttl"
        if problem:
            raise ConfigurationError(f"EntryOptions: {problem}")

    @property
    def stale_for(self) -> float:
        """Seconds after its ttl for which a value is kept."""
        return max(seconds(self.stale_while_revalidate), seconds(self.stale_if_error))


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _or_ever(value: Duration | None) -> float:
    return math.inf if value is None else seconds(value)


_DURATIONS = (
    "ttl",
    "memory_ttl",
    "jitter",
    "stale_while_revalidate",
    "stale_if_error",
    "throttle",
    "soft_timeout",
    "hard_timeout",
    "negative_ttl",
    "lease_wait",
)
