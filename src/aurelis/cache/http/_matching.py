"""What the patterns of a rule mean: exact texts, globs and regular expressions, for paths, hosts and field values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import unquote

from aurelis.cache.exceptions import ConfigurationError

Pattern: TypeAlias = str | re.Pattern[str]
"""A text, in which `*` may stand for others, or a compiled regular expression for the whole of what is matched."""

MAX_PATH_LENGTH: Final = 4096
"""Characters: a longer path matches no rule, since a stranger chooses how long a pattern has to search."""

MAX_VALUE_LENGTH: Final = 4096
"""The same for a host or the value of a field."""

_MAX_DECODINGS: Final = 3
"""Of a path that was decoded already: what is encoded more often is meant by nobody."""

_WILDCARD = re.compile(r"((?<=/)\*\*/|\*+|\{[^{}]*\})")
_CROSSING = {"**": (".*", ".*?"), "**/": ("(?:.*/)?", "(?:.*?/)??")}
_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PORT = re.compile(r":[0-9]*\Z")


@dataclass(frozen=True, slots=True)
class PathPattern:
    """Which decoded paths are meant.

    Attributes:
        names: of the parameters, in order.
    """

    _expression: re.Pattern[str]
    _prefix: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, path: object) -> PathPattern:
        """The pattern of a rule's `path`.

        Raises:
            ConfigurationError: it cannot be one.
        """
        if isinstance(path, re.Pattern):
            return cls(_text_expression(path, "path"), "", tuple(path.groupindex))
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigurationError(f"path={path!r}: the pattern of a rule is a string that starts with '/'")
        expression = _glob(path, f"path={path!r}", separator="/")
        return cls(expression, _WILDCARD.split(path)[0], tuple(expression.groupindex))

    def match(self, path: str) -> Mapping[str, str] | None:
        """The parameters of a path, by name; `None`: it is not meant. One with `.` or `..` segments never is.

        What such a path means depends on who resolves it: the app may see another path than the rule. The same is true
        of one that has such segments, or more slashes, when it is decoded once more.
        """
        if not path.startswith(self._prefix) or len(path) > MAX_PATH_LENGTH:
            return None
        if ("/." in path or "%" in path or "\\" in path) and _is_ambiguous(path):
            return None
        found = self._expression.fullmatch(path)
        return None if found is None else {name: value or "" for name, value in found.groupdict().items()}


@dataclass(frozen=True, slots=True)
class ValuePattern:
    """Which values of one field are meant."""

    _expression: re.Pattern[str]

    @classmethod
    def of(cls, pattern: object, where: str) -> ValuePattern:
        """The pattern for the values of a field: `*` is any text.

        Raises:
            ConfigurationError: it cannot be one.
        """
        if isinstance(pattern, re.Pattern):
            return cls(_text_expression(pattern, where))
        if not isinstance(pattern, str) or not pattern:
            raise ConfigurationError(
                f"{where}: {pattern!r} is no pattern; pass a text, perhaps with '*', or re.compile()"
            )
        return cls(_glob(pattern, where, separator=""))

    def matches(self, value: bytes) -> bool:
        """Whether a value is meant."""
        return len(value) <= MAX_VALUE_LENGTH and self._expression.fullmatch(value.decode("latin-1")) is not None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """Which hosts are meant."""

    _expression: re.Pattern[str]

    @classmethod
    def of(cls, pattern: object) -> HostPattern:
        """The pattern for a host: `*` stays within one label, `**` crosses, and case does not count.

        Raises:
            ConfigurationError: it cannot be one.
        """
        if isinstance(pattern, re.Pattern):
            return cls(_text_expression(pattern, "host"))
        if not isinstance(pattern, str) or not pattern or "/" in pattern:
            raise ConfigurationError(
                f"host={pattern!r}: pass the name of a host without scheme and path, perhaps with '*', or re.compile()"
            )
        return cls(_glob(pattern.lower(), f"host={pattern!r}", separator="."))

    def matches(self, authority: str) -> bool:
        """Whether a host is meant, by its name alone or together with its port."""
        if len(authority) > MAX_VALUE_LENGTH:
            return False
        authority = authority.lower()
        if self._expression.fullmatch(authority) is not None:
            return True
        name, ports = _PORT.subn("", authority)
        return bool(ports) and self._expression.fullmatch(name) is not None


def _is_ambiguous(path: str) -> bool:
    """Whether somebody may take a path for another one: by its dot segments, or by decoding it once more.

    Some take `\\` for a slash, and some let parameters follow the dots (`/..;/`).
    """
    for _ in range(_MAX_DECODINGS):
        segments = path.replace("\\", "/").split("/")
        if any(segment.partition(";")[0] in (".", "..") for segment in segments):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        if decoded.count("/") > path.count("/") or decoded.count("\\") > path.count("\\"):
            return True
        path = decoded
    return True


def names_expression(patterns: Iterable[object], where: str) -> re.Pattern[str]:
    """One expression for several names, in each of which `*` is any text.

    Raises:
        ConfigurationError: one of them is no name.
    """
    parts: list[str] = []
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ConfigurationError(f"{where}: {pattern!r} is no name; pass texts, perhaps with '*'")
        parts.append(_glob(pattern, where, separator="").pattern)
    return re.compile("|".join(f"(?:{part})" for part in parts) or r"(?!)", re.DOTALL)


def _text_expression(pattern: re.Pattern[str], where: str) -> re.Pattern[str]:
    if not isinstance(pattern.pattern, str):
        raise ConfigurationError(f"{where}: the regular expression is one for bytes; compile it from a str")
    return pattern


def _glob(text: str, where: str, *, separator: str) -> re.Pattern[str]:
    """A glob as a regular expression that takes at most quadratic time.

    What stands between two wildcards may as well match at the first place where it fits, hence the atomic
    groups: one from each `**` to the next, and in it one for each `*`. Without them every wildcard multiplies
    the time by the length of the text, which a stranger chooses.

    Args:
        separator: what `*` does not cross; empty: there is none. `{name}` and `**/` have a meaning for paths alone.
    """
    literal, *rest = (_WILDCARD if separator == "/" else re.compile(r"(\*+)")).split(text)
    wildcards, literals = rest[::2], rest[1::2]
    if not separator:
        if any(len(wildcard) > 1 for wildcard in wildcards):
            raise ConfigurationError(f"{where}: only '*' is a wildcard here")
        wildcards = ["**"] * len(wildcards)
    if separator == "/":
        _check_parameters(literal, wildcards, literals, where)
    within = f"[^{re.escape(separator)}]"
    last_crossing = max((index for index, wildcard in enumerate(wildcards) if wildcard in _CROSSING), default=-1)
    pattern = re.escape(literal)
    in_group = False
    for index, (wildcard, literal) in enumerate(zip(wildcards, map(re.escape, literals), strict=True)):
        # What ends the text need not be the first place where it fits.
        last = index == len(wildcards) - 1
        if name := _NAME.fullmatch(wildcard):
            pattern += f"(?P<{name[1]}>{within}+){literal}" if last else f"(?>(?P<{name[1]}>{within}+?){literal})"
            continue
        if wildcard == "*":
            pattern += f"{within}*{literal}" if last else f"(?>{within}*?{literal})"
            continue
        if wildcard not in _CROSSING:
            raise ConfigurationError(f"{where}: only '*' and '**' are wildcards")
        greedy, lazy = _CROSSING[wildcard]
        pattern += ")" if in_group else ""
        in_group = index != last_crossing
        pattern += f"(?>{lazy}{literal}" if in_group else f"{greedy}{literal}"
    return re.compile(pattern, re.DOTALL)


def _check_parameters(literal: str, wildcards: list[str], literals: list[str], where: str) -> None:
    if any("{" in part or "}" in part for part in (literal, *literals)):
        raise ConfigurationError(f"{where}: a brace opens or closes a {{name}}; for one of its own use re.compile()")
    names: set[str] = set()
    for index, wildcard in enumerate(wildcards):
        if not wildcard.startswith("{"):
            continue
        name = _NAME.fullmatch(wildcard)
        if name is None:
            raise ConfigurationError(
                f"{where}: {wildcard} is not the name of a parameter; write {{name}} with letters, digits and '_'"
            )
        if name[1] in names:
            raise ConfigurationError(f"{where}: {wildcard} is there twice; give each parameter a name of its own")
        names.add(name[1])
        follows = index > 0 and not literals[index - 1] and wildcards[index - 1] != "**/"
        precedes = index < len(wildcards) - 1 and not literals[index]
        if follows or precedes:
            raise ConfigurationError(f"{where}: nothing stands between {wildcard} and another wildcard")
