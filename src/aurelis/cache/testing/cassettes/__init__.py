"""Calls of HTTP clients, recorded once and replayed in tests: what a provider once answered, without the provider.

A `Cassette` is a folder of readable files. The transports that use it are `aurelis_httpx2.cassettes` and
`aurelis_httpx.cassettes`, and `aurelis.cache.testing.pytest_plugin` has a fixture.
"""

from ._cassette import Cassette, CassetteError, Mode, UnmatchedCallError
from ._taping import Tape, TapedBody

__all__ = ["Cassette", "CassetteError", "Mode", "Tape", "TapedBody", "UnmatchedCallError"]
