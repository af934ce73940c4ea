"""What an app's owner declares for paths: `CacheRule`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Any

from aurelis.cache._decisions import Bypass
from aurelis.cache.exceptions import ConfigurationError

from ._grammar import is_token
from ._messages import RuleEffect

MAX_PATH_LENGTH = 4096
"""Characters: a longer path matches no rule, since a stranger chooses how long a pattern has to search."""

_WILDCARD = re.compile(r"((?<=/)\*\*/|\*+)")
_CROSSING = {"**": (".*", ".*?"), "**/": ("(?:.*/)?", "(?:.*?/)??")}

_NO_PRINCIPAL = Bypass("bypass", "principal")
_AUTHORIZATION = Bypass("bypass", "authorization")


@dataclass(frozen=True, slots=True)
class Admission:
    """A request under a rule, as far as the rule decides about it.

    Attributes:
        effect: what the HTTP rules need of the rule.
        partition_source: what separates this request's entries from those of others, empty where all share.
            It may hold secrets: `HttpRequest.partition` is a keyed hash of it.
    """

    effect: RuleEffect
    partition_source: bytes


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Caching for paths whose responses say nothing about it themselves.

    A rule never overrides what a response says: `no-store`, `private` and any freshness of its own go first.
    A response with Set-Cookie is never stored by a rule.

    Requests with Authorization or Cookie are neither answered from nor stored in shared entries, unless the
    rule says how they are to be kept apart: by `principal`, by `cookies`, or, with `shared=True`, not at all.

    Args:
        path: glob over the whole decoded path, which starts with `/`. `*` is any run of characters within a
            segment, `**` crosses segments, `/**/` also stands for a single `/`; everything else is literal.
        ttl: how long a response is kept, seconds or a `timedelta`, > 0.
        principal: called with the ASGI scope, returns who is asking; each has entries of their own. `None`
            from it: not known, so the request bypasses the cache.
        cookies: names of the cookies that count. Each combination of their values has entries of its own, and
            all other cookies are ignored. Authorization still bypasses.
        shared: one response for everybody; credentials are ignored.

    Raises:
        ConfigurationError: an argument cannot work, or `shared` contradicts another.

    Example:
        >>> rule = CacheRule("/catalog/*", ttl=60)
        >>> rule.matches("/catalog/17"), rule.matches("/catalog/17/reviews")
        (True, False)
    """

    path: str
    _: KW_ONLY
    ttl: float | timedelta
    # `Any`: an ASGI scope holds whatever servers and middleware put there.
    principal: Callable[[Mapping[str, Any]], str | None] | None = None
    cookies: Sequence[str] | None = None
    shared: bool = False
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _prefix: str = field(init=False, repr=False, compare=False)
    _cookie_names: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    _anonymous: Admission = field(init=False, repr=False, compare=False)
    _separated: RuleEffect = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seconds = _seconds(self.ttl)
        if self.principal is not None and not callable(self.principal):
            raise ConfigurationError(f"principal={self.principal!r}: pass a function of the ASGI scope")
        if self.shared and (self.principal is not None or self.cookies is not None):
            raise ConfigurationError(
                "shared=True gives everybody the same response, which contradicts principal= and cookies=: "
                "leave one of them out"
            )
        cookie_names = _cookie_names(self.cookies)
        effect = RuleEffect(ttl=seconds, credentials_allowed=self.shared)
        prepared = {
            "ttl": seconds,
            "cookies": None if self.cookies is None else tuple(self.cookies),
            "_pattern": _compile(self.path),
            "_prefix": self.path.partition("*")[0],
            "_cookie_names": cookie_names,
            "_anonymous": Admission(effect, b""),
            "_separated": RuleEffect(ttl=seconds, credentials_allowed=True),
        }
        for name, value in prepared.items():
            object.__setattr__(self, name, value)

    def matches(self, path: str) -> bool:
        """Whether the rule speaks for a decoded path. One with `.` or `..` segments never matches.

        What such a path means depends on who resolves it: the app may see another path than the rule.
        """
        if not path.startswith(self._prefix) or len(path) > MAX_PATH_LENGTH:
            return False
        if "/." in path and not {".", ".."}.isdisjoint(path.split("/")):
            return False
        return self._pattern.fullmatch(path) is not None

    def admit(self, scope: Mapping[str, Any], fields: Mapping[bytes, bytes]) -> Admission | Bypass:
        """What the rule decides about a request for a path that it matches.

        Args:
            scope: ASGI scope, handed to `principal`.
            fields: of the request, by lower-case name, lines joined.

        Raises:
            TypeError: `principal` returned something else than a string or `None`. Errors of its own pass
            unchanged.
        """
        if self.principal is None:
            if self.cookies is None:
                return self._anonymous
            if b"authorization" in fields:
                return _AUTHORIZATION
            return Admission(self._separated, self._cookie_part(fields))
        who = self.principal(scope)
        if who is None:
            return _NO_PRINCIPAL
        if not isinstance(who, str):
            raise TypeError(
                f"principal of CacheRule({self.path!r}) returned {type(who).__qualname__}: return str or None"
            )
        name = who.encode("utf-8", "surrogatepass")
        return Admission(self._separated, b"principal%d:%b" % (len(name), name) + self._cookie_part(fields))

    def _cookie_part(self, fields: Mapping[bytes, bytes]) -> bytes:
        """The cookies that count, in an injective encoding; empty where the request has none of them."""
        header = fields.get(b"cookie")
        if not header or not self._cookie_names:
            return b""
        part = b""
        for pair in header.split(b";"):
            name, separator, value = pair.partition(b"=")
            name = name.strip(b" \t")
            if separator and name in self._cookie_names:
                # A name given twice counts twice, in order: which of them the app reads is its own affair.
                value = value.strip(b" \t")
                part += b"%d:%b%d:%b" % (len(name), name, len(value), value)
        return part


def match_rule(rules: Sequence[CacheRule], path: str) -> CacheRule | None:
    """The first rule that matches a decoded path, or `None`.

    Args:
        rules: in order.
        path: decoded, below the root path of the app.
    """
    for rule in rules:
        if rule.matches(path):
            return rule
    return None


def _seconds(ttl: object) -> float:
    if isinstance(ttl, timedelta):
        seconds = ttl.total_seconds()
    elif isinstance(ttl, (int, float)) and not isinstance(ttl, bool):
        seconds = float(ttl)
    else:
        raise ConfigurationError(f"ttl={ttl!r}: pass seconds or a timedelta")
    if not seconds > 0:  # also NaN
        raise ConfigurationError(f"ttl={ttl!r}: a rule keeps responses for more than 0 seconds")
    return seconds


def _cookie_names(cookies: Sequence[object] | None) -> tuple[bytes, ...]:
    if cookies is None:
        return ()
    if isinstance(cookies, (str, bytes)):
        raise ConfigurationError(f"cookies={cookies!r}: pass a tuple of names, for instance ({cookies!r},)")
    names: list[bytes] = []
    for cookie in cookies:
        name = cookie.encode("utf-8", "replace") if isinstance(cookie, str) else b""
        if not is_token(name):
            raise ConfigurationError(f"cookies: {cookie!r} is not the name of a cookie")
        names.append(name)
    return tuple(names)


def _compile(path: object) -> re.Pattern[str]:
    """A glob as a regular expression that takes at most quadratic time.

    What stands between two wildcards may as well match at the first place where it fits, hence the atomic
    groups: one from each `**` to the next, and in it one for each `*`. Without them every wildcard multiplies
    the time by the length of the path, which a stranger chooses.
    """
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigurationError(f"path={path!r}: the pattern of a rule is a string that starts with '/'")
    literal, *rest = _WILDCARD.split(path)
    wildcards, literals = rest[::2], [re.escape(part) for part in rest[1::2]]
    last_crossing = max((index for index, wildcard in enumerate(wildcards) if wildcard != "*"), default=-1)
    pattern = re.escape(literal)
    in_group = False
    for index, (wildcard, literal) in enumerate(zip(wildcards, literals, strict=True)):
        if wildcard == "*":
            # What ends the path need not be the first place where it fits.
            last = index == len(wildcards) - 1
            pattern += f"[^/]*{literal}" if last else f"(?>[^/]*?{literal})"
            continue
        if wildcard not in _CROSSING:
            raise ConfigurationError(f"path={path!r}: only '*' and '**' are wildcards")
        greedy, lazy = _CROSSING[wildcard]
        pattern += ")" if in_group else ""
        in_group = index != last_crossing
        pattern += f"(?>{lazy}{literal}" if in_group else f"{greedy}{literal}"
    return re.compile(pattern, re.DOTALL)
