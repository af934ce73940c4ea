"""What an app's owner declares for paths: `CacheRule`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, Literal

from aurelis.cache._decisions import Bypass
from aurelis.cache._options import yes_or_no
from aurelis.cache._tags import tag
from aurelis.cache.exceptions import ConfigurationError

from . import _rule_arguments as arguments
from ._key_parts import QueryPart, cookie_part, field_part
from ._matching import HostPattern, PathPattern, Pattern, ValuePattern, names_expression
from ._messages import RuleEffect
from ._tagging import RuleTags, TagTemplates

_NO_PRINCIPAL = Bypass("bypass", "principal")
_AUTHORIZATION = Bypass("bypass", "authorization")
_RULE = Bypass("bypass", "rule")
_TAGS = Bypass("bypass", "tags")
_ALWAYS_SHOWN = frozenset({"path", "ttl", "principal", "cookies", "shared"})


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

    A rule never overrides what a response says: `no-store`, `private` and any freshness of its own go first, unless
    `override` names what does not. A response with Set-Cookie is never stored by a rule.

    Requests with Authorization or Cookie are neither answered from nor stored in shared entries, unless the
    rule says how they are to be kept apart: by `principal`, by `cookies`, or, with `shared=True`, not at all.

    Args:
        path: glob over the whole decoded path, which starts with `/`. `*` is any run of characters within a
            segment, `**` crosses segments, `/**/` also stands for a single `/`, `{name}` is `*` for one character or
            more and gives them a name; everything else is literal. Or a compiled regular expression for the whole path.
        ttl: how long a response is kept, seconds or a `timedelta`, > 0. `None`: as long as it says itself.
        principal: called with the ASGI scope, returns who is asking; each has entries of their own. `None`
            from it: not known, so the request bypasses the cache.
        cookies: names of the cookies that count. Each combination of their values has entries of its own, and
            all other cookies are ignored. Authorization still bypasses.
        shared: one response for everybody; credentials are ignored.
        method: `GET`, `HEAD` or both.
        host: one or several patterns for the host, with or without its port: `*` stays within one label, `**` crosses.
        headers: patterns for fields that a request must have, by name; in them `*` is any text. Requests that match
            have entries of their own.
        statuses: those that are kept; 404 for ten seconds at most.
        stale_while_revalidate: seconds after the ttl in which a stale response is served while it is loaded anew.
        stale_if_error: seconds after the ttl in which it stands in when that fails.
        vary: fields of requests by which responses differ, as if they named them in `Vary`.
        tags: by which responses can be invalidated, beside those they give themselves. `{name}` stands for a parameter
            of the path, escaped as in URLs. Or a function of the parameters by name, unescaped.
        query: names of the parameters that count, `*` in them is any text; `None`: all. The app is not given others.
        ignore_query: names of parameters that do not count, likewise, such as `TRACKING_PARAMETERS`.
        sort_query: parameters of different names count in any order; the app gets them sorted.
        key_headers: fields of requests that count as parts of the key. No other cache hears of it, unlike `vary`.
        bypass: what matches goes to the app, as if there were no cache.
        override: directives of responses that are set aside: `no-store`, `private`, `no-cache`. Needs a ttl, which then
            counts alone.
        cache_status: whether responses say what the cache did: `True`, `False`, or `"debug"` for more; `None`: as the
            middleware does.
        max_body_bytes: larger bodies are not stored; `None`: as in the middleware.

    Raises:
        ConfigurationError: an argument cannot work, or some contradict each other.

    Example:
        >>> rule = CacheRule("/catalog/*", ttl=60)
        >>> rule.matches("/catalog/17"), rule.matches("/catalog/17/reviews")
        (True, False)
    """

    path: Pattern
    _: KW_ONLY
    ttl: float | timedelta | None = None
    # `Any`: an ASGI scope holds whatever servers and middleware put there.
    principal: Callable[[Mapping[str, Any]], str | None] | None = None
    cookies: Sequence[str] | None = None
    shared: bool = False
    method: str | Sequence[str] = ("GET", "HEAD")
    host: Pattern | Collection[Pattern] | None = None
    headers: Mapping[str, Pattern] | Sequence[tuple[str, Pattern]] = ()
    statuses: Collection[int] = tuple(sorted(arguments.STATUSES))
    stale_while_revalidate: float | timedelta | None = None
    stale_if_error: float | timedelta | None = None
    vary: Sequence[str] = ()
    tags: RuleTags = ()
    query: Sequence[str] | None = None
    ignore_query: Sequence[str] = ()
    sort_query: bool = False
    key_headers: Sequence[str] = ()
    bypass: bool = False
    override: Collection[str] = frozenset()
    cache_status: bool | Literal["debug"] | None = None
    max_body_bytes: int | None = None
    _pattern: PathPattern = field(init=False, repr=False, compare=False)
    _hosts: tuple[HostPattern, ...] = field(init=False, repr=False, compare=False)
    _conditions: tuple[tuple[bytes, ValuePattern], ...] = field(init=False, repr=False, compare=False)
    _condition_part: bytes = field(init=False, repr=False, compare=False)
    _cookie_names: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    _field_names: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    _query_part: QueryPart | None = field(init=False, repr=False, compare=False)
    _tag_templates: TagTemplates = field(init=False, repr=False, compare=False)
    _effect: RuleEffect = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pattern = PathPattern.of(self.path)
        if self.principal is not None and not callable(self.principal):
            raise ConfigurationError(f"principal={self.principal!r}: pass a function of the ASGI scope")
        for name in ("shared", "sort_query", "bypass"):
            yes_or_no(name, getattr(self, name))
        templates = TagTemplates.of(self.tags, pattern.names)
        hosts, host_patterns = arguments.hosts(self.host)
        headers, conditions = arguments.conditions(self.headers)
        cookie_names = arguments.cookies(self.cookies)
        settled: dict[str, object] = {
            "ttl": None if self.ttl is None else arguments.lifetime(self.ttl),
            "cookies": None if self.cookies is None else tuple(self.cookies),
            "method": arguments.methods(self.method),
            "host": hosts or None,
            "headers": headers,
            "statuses": arguments.statuses(self.statuses),
            "stale_while_revalidate": arguments.window("stale_while_revalidate", self.stale_while_revalidate),
            "stale_if_error": arguments.window("stale_if_error", self.stale_if_error),
            "vary": arguments.fields("vary", self.vary),
            "tags": templates.source,
            "query": None if self.query is None else arguments.parameters("query", self.query),
            "ignore_query": arguments.parameters("ignore_query", self.ignore_query),
            "key_headers": arguments.fields("key_headers", self.key_headers),
            "override": arguments.overridden(self.override),
            "max_body_bytes": arguments.body_limit(self.max_body_bytes),
            "_pattern": pattern,
            "_hosts": host_patterns,
            "_conditions": conditions,
            "_condition_part": b"headers%r" % (headers,) if headers else b"",
            "_cookie_names": cookie_names,
            "_tag_templates": templates,
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        self._refuse_contradictions()
        prepared: dict[str, object] = {
            "_field_names": tuple(name.encode() for name in self.key_headers),
            "_query_part": self._make_query_part(),
            "_effect": self._make_effect(),
        }
        for name, value in prepared.items():
            object.__setattr__(self, name, value)

    def _refuse_contradictions(self) -> None:
        if self.shared and (self.principal is not None or self.cookies is not None):
            raise ConfigurationError(
                "shared=True gives everybody the same response, which contradicts principal= and cookies=: "
                "leave one of them out"
            )
        if self.query is not None and self.ignore_query:
            raise ConfigurationError("query= names what counts and ignore_query= what does not: leave one of them out")
        if self.override and self.ttl is None:
            raise ConfigurationError("override= sets aside what a response says, so say how long it is kept: ttl=60")
        if self.cache_status not in (None, "debug") and not isinstance(self.cache_status, bool):
            raise ConfigurationError(f"cache_status={self.cache_status!r}: pass True, False, 'debug' or None")
        said = {each.name for each in fields(self) if each.init and getattr(self, each.name) != each.default}
        said -= {"path", "method", "host", "headers", "bypass"}
        if self.bypass and (said := said - {"cache_status"}):
            raise ConfigurationError(f"bypass=True leaves everything to the app: leave out {', '.join(sorted(said))}")
        if not self.bypass and not said:
            raise ConfigurationError("the rule says nothing: pass ttl= in seconds or a timedelta, or bypass=True")

    def _make_query_part(self) -> QueryPart | None:
        if self.query is None and not self.ignore_query and not self.sort_query:
            return None
        return QueryPart(
            None if self.query is None else names_expression(self.query, "query"),
            names_expression(self.ignore_query, "ignore_query") if self.ignore_query else None,
            self.sort_query,
        )

    def _make_effect(self) -> RuleEffect:
        assert not isinstance(self.ttl, timedelta)
        assert not isinstance(self.stale_while_revalidate, timedelta)
        assert not isinstance(self.stale_if_error, timedelta)
        return RuleEffect(
            ttl=self.ttl,
            credentials_allowed=self.shared or self.principal is not None or self.cookies is not None,
            statuses=frozenset(self.statuses),
            stale_while_revalidate=self.stale_while_revalidate,
            stale_if_error=self.stale_if_error,
            override=frozenset(self.override),
            max_body_bytes=self.max_body_bytes,
            vary=tuple(self.vary),
        )

    def __repr__(self) -> str:
        shown = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)
            if each.init and (each.name in _ALWAYS_SHOWN or getattr(self, each.name) != each.default)
        ]
        return f"CacheRule({', '.join(shown)})"

    @property
    def is_conditional(self) -> bool:
        """Whether it depends on more of a request than its target."""
        return bool(self._conditions) or len(self.method) < len(arguments.METHODS)

    @property
    def separates(self) -> bool:
        """Whether something of a request, beside its target, decides about its key."""
        return bool(self.principal is not None or self.cookies is not None or self._field_names or self._condition_part)

    def matches(self, path: str, host: str | None = None) -> bool:
        """Whether the rule speaks for a decoded path. One with `.` or `..` segments never matches.

        What such a path means depends on who resolves it: the app may see another path than the rule. That is also so
        if it gets such segments, or more slashes, by being decoded once more.

        Args:
            host: of the request, with or without a port; `None`: not looked at.
        """
        return self._pattern.match(path) is not None and (host is None or self._speaks_for(host))

    def applies(self, method: str, fields: Mapping[bytes, bytes]) -> bool:
        """Whether the rule speaks for a request to a target that it matches. `fields`: by lower-case name, joined."""
        return method in self.method and all(
            (value := fields.get(name)) is not None and pattern.matches(value) for name, pattern in self._conditions
        )

    def on_target(self, path: str, host: str, query: bytes) -> TargetRule | None:
        """What the rule says about a target; `None`: nothing.

        Args:
            path: decoded, below the root path of the app.
            host: with or without a port.
            query: as the client sent it.
        """
        parameters = self._pattern.match(path)
        if parameters is None or not self._speaks_for(host):
            return None
        tags = self._tag_templates.fill(parameters)
        refusal = _RULE if self.bypass else _TAGS if tags is None else None
        counts = None if self._query_part is None else self._query_part.of(query)
        effect = self._effect
        if tags or counts is not None:
            effect = replace(effect, tags=tuple(map(tag, tags or ())), query=counts)
        return TargetRule(self, effect, query if counts is None else counts, refusal)

    def admit(self, scope: Mapping[str, Any], fields: Mapping[bytes, bytes]) -> Admission | Bypass:
        """What the rule decides about a request for a target that it matches.

        Args:
            scope: ASGI scope, handed to `principal`.
            fields: of the request, by lower-case name, lines joined.

        Raises:
            TypeError: `principal` returned something else than a string or `None`. Errors of its own pass
            unchanged.
        """
        part = self._condition_part
        if self.principal is not None:
            who = self.principal(scope)
            if who is None:
                return _NO_PRINCIPAL
            if not isinstance(who, str):
                raise TypeError(
                    f"principal of CacheRule({self.path!r}) returned {type(who).__qualname__}: return str or None"
                )
            name = who.encode("utf-8", "surrogatepass")
            part += b"principal%d:%b" % (len(name), name)
        elif self.cookies is not None and b"authorization" in fields:
            return _AUTHORIZATION
        if self._field_names:
            part += b"fields" + field_part(self._field_names, fields)
        return Admission(self._effect, part + cookie_part(self._cookie_names, fields))

    def _speaks_for(self, host: str) -> bool:
        return not self._hosts or any(pattern.matches(host) for pattern in self._hosts)


@dataclass(frozen=True, slots=True)
class TargetRule:
    """What a rule says about a target, whoever asks.

    Attributes:
        rule: that says it.
        effect: what the HTTP rules need of it.
        query: what of the query counts.
        refusal: why the cache has nothing to do with it; `None`: it has.
    """

    rule: CacheRule
    effect: RuleEffect
    query: bytes
    refusal: Bypass | None


def rules_for(rules: Sequence[CacheRule], path: str, host: str, query: bytes) -> tuple[TargetRule, ...]:
    """What the rules that may count for a target say, in order, up to the first that counts for every request.

    Args:
        rules: in order.
        path: decoded, below the root path of the app.
        host: with or without a port.
        query: as the client sent it.
    """
    found: list[TargetRule] = []
    for rule in rules:
        said = rule.on_target(path, host, query)
        if said is not None:
            found.append(said)
            if not rule.is_conditional:
                break
    return tuple(found)


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
