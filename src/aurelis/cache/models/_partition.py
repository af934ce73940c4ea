"""What of a request besides its body sets its answer apart: fields, address, credentials.

Fields of the request count by an allow-list: SDKs add names that vary between identical calls (retry
counters, versions, `accept-encoding`), and new ones with every release. Credentials count by a keyed hash,
never as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import unquote_plus

# No specification lists the fields that carry credentials, and each service invents its own. To take another field for
# one costs a hit; to overlook one gives a caller the answer that was meant for another.
_CREDENTIAL_FIELD = re.compile(
    rb"auth|token|secret|credential|signature|passw|jwt|principal|apikey$|(?<!idempotency-)(?<!cache-)\bkey$"
)
_SESSION_FIELD = re.compile(rb"cookie$|session")
# By exact names: what only sounds like one may select the answer.
_CREDENTIAL_PARAMETERS = frozenset(
    {
        *("key", "api_key", "api-key", "apikey", "x-api-key", "subscription-key", "client_secret", "secret"),
        *("token", "access_token", "access-token", "auth_token", "id_token", "refresh_token", "private_token"),
        *("api_token", "oauth_token", "access_key", "accesskey", "jwt", "auth", "authorization"),
        *("password", "passwd", "pwd", "session", "session_id", "sessionid"),
        # Signed addresses: Azure, Amazon, Google.
        *("sig", "signature", "awsaccesskeyid", "x-amz-credential", "x-amz-security-token", "x-amz-signature"),
        *("googleaccessid", "x-goog-credential", "x-goog-signature", "x-goog-api-key"),
    }
)

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_NEUTRAL_RANGES = frozenset({b"*/*", b"application/*", b"application/json", b"text/*", b"text/event-stream"})
"""Media ranges of `Accept` that leave a model's answer as `stream` in the body asks for it."""


def selecting_fields(fields: Mapping[bytes, bytes], names: Iterable[bytes]) -> tuple[bytes, ...]:
    """Names and values of the fields that are part of the key, one after the other.

    `fields` are the request's by lower-case name, `names` those of the profile's allow-list. `accept` is
    added where it asks for a media type that the protocol does not give by itself. Names of beta features
    count in any order.
    """
    selected: list[bytes] = []
    for name in names:
        value = fields.get(name)
        if value is not None:
            selected += (name, _sorted_members(value) if name.endswith(b"-beta") else value)
    accept = fields.get(b"accept", b"*/*")
    if accept not in _NEUTRAL_RANGES and not all(
        media_range.strip().lower() in _NEUTRAL_RANGES for media_range in accept.split(b",")
    ):
        selected += (b"accept", accept)
    return tuple(selected)


def _sorted_members(value: bytes) -> bytes:
    return b",".join(sorted({member.strip() for member in value.split(b",")}))


def clean_url(url: str) -> str:
    """The address without what identifies the caller: no user information, no credentials in the query.

    Scheme and host are in lower case, a default port and the fragment are dropped. Query parameters are
    sorted by name; those of equal name keep their order. `url` is absolute; the path stays as it is.
    """
    scheme, _, rest = url.partition("#")[0].partition("://")
    scheme = scheme.lower()
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    host = authority.rpartition("@")[2].lower().removesuffix(_DEFAULT_PORTS.get(scheme, ""))
    address = f"{scheme}://{host}/{path}"
    if not query:
        return address
    kept = [part for part in query.split("&") if part and not _is_credential(part)]
    kept.sort(key=_parameter_name)
    return f"{address}?{'&'.join(kept)}" if kept else address


def without_credentials(url: str) -> str:
    """The address as it may be in a name that others read: as it is, or as `clean_url` gives it."""
    _, separator, rest = url.partition("#")[0].partition("://")
    authority = rest.partition("?")[0].partition("/")[0]
    query = rest.partition("?")[2]
    if not separator or ("@" not in authority and not any(map(_is_credential, query.split("&")))):
        return url
    return clean_url(url)


def pattern_without_credentials(pattern: str) -> str:
    """A pattern of addresses, `*` being any text, for names that hold no credentials: it means all that it has meant.

    What it says of credentials is left out. Any text in their place may have been that of other parameters, too.
    """
    address, _, query = pattern.partition("?")
    parts = query.split("&")
    removed = [part for part in parts if _is_credential(part)]
    if not removed:
        return pattern
    kept = sorted((part for part in parts if part and not _is_credential(part)), key=_parameter_name)
    anything = "*" if any("*" in part for part in removed) else ""
    return f"{address}?{anything}{'&'.join(kept)}{anything}" if kept else f"{address}{anything}"


def partition(fields: Mapping[bytes, bytes], query: str, secret: bytes) -> str:
    """Token of the credentials of a model call, 32 hexadecimal digits; empty without credentials.

    Args:
        fields: header fields of the request by lower-case name.
        query: query of its URL without `?`, as it stands there.
        secret: key of the hash, not empty; the same in all processes that share entries.

    Raises:
        ValueError: `secret` is empty.
    """
    found = _present(fields, _is_credential_field)
    if query:
        parameters = [part for part in query.split("&") if _is_credential(part)]
        found += [b"?" + part.encode("utf-8", "surrogatepass") for part in sorted(parameters)]
    return _token(found, secret)


def credential_partition(fields: Mapping[bytes, bytes], secret: bytes) -> str:
    """Token of the credentials of an ordinary HTTP request: `Authorization`, `Cookie`, API keys, tokens, sessions.

    As `partition`, but cookies and sessions count too, since any origin may answer by them; the query is part of the
    URL.

    Raises:
        ValueError: `secret` is empty.
    """
    return _token(_present(fields, identifies_caller), secret)


@lru_cache(1024)
def _is_credential_field(name: bytes) -> bool:
    return _CREDENTIAL_FIELD.search(name) is not None


# A model's answer does not depend on cookies and sessions: clients send back the cookie of the provider's proxy
# (`__cf_bm`), and the sessions of gateways group calls for people who read logs.
@lru_cache(1024)
def identifies_caller(name: bytes) -> bool:
    """Whether a field of this name, in lower case, carries a credential or a session."""
    return _is_credential_field(name) or _SESSION_FIELD.search(name) is not None


def _present(fields: Mapping[bytes, bytes], counts: Callable[[bytes], bool]) -> list[bytes]:
    return [name + b":" + fields[name] for name in sorted(filter(counts, fields))]


def credentials(fields: Mapping[bytes, bytes], query: str) -> tuple[bytes, ...]:
    """Values of all fields and parameters of a request that carry credentials or sessions, as they stand there.

    Args:
        fields: header fields by lower-case name.
        query: of its URL without `?`.
    """
    values = [fields[name] for name in sorted(filter(identifies_caller, fields))]
    for part in query.split("&"):
        if part and _is_credential(part):
            value = part.partition("=")[2]
            values += [value.encode("utf-8", "surrogatepass"), unquote_plus(value).encode("utf-8", "surrogatepass")]
    return tuple(value for value in values if value)


def _token(credentials: list[bytes], secret: bytes) -> str:
    if not secret:
        raise ValueError("the partition secret must not be empty: anybody could test guessed credentials by their hash")
    if not credentials:
        return ""
    if len(secret) > blake2b.MAX_KEY_SIZE:
        secret = blake2b(secret).digest()
    # ascii() of the list tells its items apart whatever they contain
    return blake2b(ascii(credentials).encode("ascii"), digest_size=16, key=secret).hexdigest()


def _parameter_name(part: str) -> str:
    return part.partition("=")[0]


def _is_credential(part: str) -> bool:
    name = _parameter_name(part)
    if "%" in name or "+" in name:  # `%6Bey` is `key` to the server
        name = unquote_plus(name)
    return name.lower() in _CREDENTIAL_PARAMETERS
