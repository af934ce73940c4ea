"""The Cache-Status field (RFC 9211)."""

import pytest

from aurelis.cache.http import CacheStatus, append_status

STATUS = CacheStatus("aurelis")


@pytest.mark.parametrize(
    ("member", "text"),
    [
        pytest.param(STATUS.hit(), b"aurelis; hit", id="2.1-hit"),
        pytest.param(STATUS.hit(ttl=30.9), b"aurelis; hit; ttl=30", id="2.4-ttl"),
        pytest.param(STATUS.hit(ttl=-0.5), b"aurelis; hit; ttl=-1", id="2.4-ttl-of-a-stale-answer"),
        pytest.param(STATUS.hit(detail="L1"), b"aurelis; hit; detail=L1", id="2.8-detail-token"),
        pytest.param(STATUS.hit(detail="in memory"), b'aurelis; hit; detail="in memory"', id="2.8-detail-string"),
        *(
            pytest.param(STATUS.forwarded(reason), b"aurelis; fwd=" + reason.encode(), id=f"2.2-{reason}")
            for reason in ("bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial")
        ),
        pytest.param(STATUS.forwarded("x\r\ny"), b"aurelis; fwd=miss", id="2.2-other"),
        pytest.param(
            STATUS.forwarded("stale", status=200, ttl=60.5, stored=True, collapsed=True, detail="d"),
            b"aurelis; fwd=stale; fwd-status=200; ttl=60; stored; collapsed; detail=d",
            id="2-all",
        ),
        pytest.param(STATUS.refused(), b"aurelis; detail=only-if-cached", id="refused"),
        pytest.param(CacheStatus("*a:/b").hit(), b"*a:/b; hit", id="8941-3.3.4-token"),
        pytest.param(CacheStatus("my cache").hit(), b'"my cache"; hit', id="8941-3.3.3-string"),
        pytest.param(CacheStatus("1").hit(), b'"1"; hit', id="8941-3.3.4-digit-first"),
        pytest.param(CacheStatus("").hit(), b'""; hit', id="8941-3.3.3-empty"),
        pytest.param(CacheStatus('a"\\b').hit(), b'"a\\"\\\\b"; hit', id="8941-3.3.3-escapes"),
        pytest.param(CacheStatus("ä\r\n").hit(), b'"???"; hit', id="8941-3.3.3-not-ascii"),
    ],
)
def test_members(member: bytes, text: bytes) -> None:
    assert member == text


def test_a_cache_comes_after_those_nearer_to_the_origin() -> None:
    """RFC 9211 §2."""
    assert append_status(None, b"b; hit") == b"b; hit"
    assert append_status(b"", b"b; hit") == b"b; hit"
    assert append_status(b"a; fwd=miss", b"b; hit") == b"a; fwd=miss, b; hit"
