"""What must not be in a recording: credentials, wherever they stand, and what the tests name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.models import identifies_caller

MARK: Final = b"[scrubbed]"

_SHORTEST: Final = 8
"""Characters of a credential that is looked for elsewhere: `test` stands everywhere."""
# Keys as their makers write them, and signed tokens. What comes before and after keeps them apart from other text, such
# as numbers in base64.
_ALONE = rb"(?<![A-Za-z0-9_+/=-])%b(?![A-Za-z0-9_+/=-])"
_DIGIT = rb"(?=[A-Za-z_-]*[0-9])"  # words with hyphens have none
_USUAL: Final = tuple(
    re.compile(_ALONE % shape)
    for shape in (
        rb"(?:sk|gsk|xai)[-_]" + _DIGIT + rb"[A-Za-z0-9_-]{16,}",  # OpenAI, Anthropic, Groq, xAI and many more
        rb"hf_[A-Za-z0-9]{16,}",  # Hugging Face
        rb"(?:ghp|gho|ghs|ghu|github_pat)_[A-Za-z0-9_]{16,}",
        rb"AIza[A-Za-z0-9_-]{35}",  # Google
        rb"ya29\.[A-Za-z0-9_-]{16,}",
        rb"(?:AKIA|ASIA)[A-Z0-9]{16}",  # Amazon
        rb"xox[abprs]-" + _DIGIT + rb"[A-Za-z0-9-]{10,}",  # Slack
        rb"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",  # JSON web tokens
        rb"(?<=[Bb]earer )" + _DIGIT + rb"[A-Za-z0-9._~+/=-]{20,}",
    )
)

_NAMES = (
    rb"(?:(?:access|auth|id|refresh|security|session)[_-]?token|client[_-]?(?:secret|assertion)"
    rb"|(?:api|private|secret|secret[_-]?access)[_-]?key|passw(?:or)?d)"
)
# What is given away when somebody signs in, by its name, in JSON, in a form and in an address.
_NAMED: Final = (
    re.compile(rb'"%b"\s*:\s*"((?:[^"\\]|\\.)*)"' % _NAMES, re.IGNORECASE | re.DOTALL),
    re.compile(rb"(?:\A|[?&#])%b=([^&#\s]*)" % _NAMES, re.IGNORECASE),
)

# They say who called, or which call it was, and nothing of the answer.
_UNWANTED: Final = frozenset(
    {
        *(b"set-cookie2", b"openai-organization", b"openai-project", b"anthropic-organization-id"),
        *(b"cf-ray", b"request-id", b"x-request-id"),
    }
)


def is_wanted(name: bytes) -> bool:
    """Whether a field of responses may be recorded. `name` is in lower case."""
    # Limits of tokens are none of a credential.
    return name not in _UNWANTED and (b"ratelimit" in name or not identifies_caller(name))


class Scrubber:
    """Takes out what must not be recorded.

    Args:
        patterns: what beside credentials: regular expressions, as text or compiled from text.

    Raises:
        ConfigurationError: one is no regular expression, or matches nothing at all.
    """

    def __init__(self, patterns: Iterable[str | re.Pattern[str]] = ()) -> None:
        if isinstance(patterns, str):
            raise ConfigurationError("scrub must be several patterns; put the one into [...]")
        own = []
        for pattern in patterns:
            text = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
            flags = pattern.flags & ~re.UNICODE if isinstance(pattern, re.Pattern) else 0
            try:
                compiled = re.compile(text.encode(), flags)
            except (AttributeError, TypeError, ValueError, re.error):
                raise ConfigurationError("scrub: a pattern is no regular expression of text") from None
            if compiled.match(b""):
                raise ConfigurationError("scrub: a pattern matches nothing at all, and so everywhere")
            own.append(compiled)
        self._patterns = (*_USUAL, *own)

    def text(self, data: bytes, credentials: Sequence[bytes] = ()) -> bytes:
        """The bytes without secrets.

        Args:
            credentials: values that are secret wherever they stand.
        """
        return b"".join(self.chunks((data,), credentials))

    def chunks(self, chunks: Sequence[bytes], credentials: Sequence[bytes] = ()) -> tuple[bytes, ...]:
        """The same for a body in chunks, which a secret may be spread over. There are as many as before."""
        joined = b"".join(chunks)
        spans = self._spans(joined, credentials)
        if not spans:
            return tuple(chunks)
        scrubbed = []
        begin = 0
        for chunk in chunks:
            end = begin + len(chunk)
            scrubbed.append(_without(joined, begin, end, spans))
            begin = end
        return tuple(scrubbed)

    def _spans(self, data: bytes, credentials: Sequence[bytes]) -> list[tuple[int, int]]:
        """Where secrets are, in order, none touching another."""
        literal = [re.compile(re.escape(value)) for value in credentials if len(value) >= _SHORTEST]
        found = [match.span() for pattern in (*literal, *self._patterns) for match in pattern.finditer(data)]
        found += [match.span(1) for pattern in _NAMED for match in pattern.finditer(data)]
        spans: list[tuple[int, int]] = []
        for begin, end in sorted(found):
            if begin == end:  # a place, and no text
                continue
            if spans and begin <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((begin, end))
        return spans


def _without(data: bytes, begin: int, end: int, spans: Sequence[tuple[int, int]]) -> bytes:
    """A part of the data without the spans; a mark is where one begins."""
    parts = []
    at = begin
    for first, last in spans:
        if last <= begin or first >= end:
            continue
        parts.append(data[at : max(first, at)])
        if first >= begin:
            parts.append(MARK)
        at = min(last, end)
    parts.append(data[at:end])
    return b"".join(parts)
