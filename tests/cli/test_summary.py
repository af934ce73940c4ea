"""The closing summary: whether everybody who counted came to the same figures."""

import io

from rich.console import Console

from aurelis_cli.demo.metrics import CacheView
from aurelis_cli.demo.summary import Evidence, checks, summarise

WEB = CacheView(results={"hit": 80, "miss": 18, "bypass": 2}, hits={"l1": 80}, coalesced=3)
MODELS = CacheView(results={"hit": 6, "miss": 4}, hits={"l1": 6}, coalesced=1)


def evidence(sent: int = 100, model: int | None = 3, **errors: int) -> Evidence:
    statuses = {"200": sent - 2, "404": 1, "502": 1}
    driver = {"sent": sent, "kinds": {"ask": {"statuses": statuses if errors else {}, "errors": errors}}}
    return Evidence({"web": WEB, "models": MODELS}, driver, {"packages": 7, "ask": 10}, model)


def said(what: Evidence) -> str:
    console = Console(file=io.StringIO(), width=100)
    summarise(console, what, shared=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_side_is_compared_with_what_the_caches_report() -> None:
    found = {check.what: (check.reported, check.counted) for check in checks(evidence())}
    assert found == {
        "requests for web pages": (100, 100),
        "calls of the app": (17, 17),
        "model calls": (10, 10),
        "calls of the model": (3, 3),
    }


def test_agreement_is_shown() -> None:
    text = said(evidence())
    assert text.count("✓") == 4
    assert "≠" not in text


def test_a_difference_is_shown_and_explained() -> None:
    text = said(evidence(sent=99))
    assert "≠ requests for web pages: the cache reports 100, the driver sent 99" in text
    assert "Requests that you sent yourself" in text


def test_failed_requests_are_named() -> None:
    assert "Requests of the driver that failed: 1 × 502, 3 × ReadError" in said(evidence(ReadError=3))
    assert "failed" not in said(evidence())


def test_a_real_model_counts_nothing_for_us() -> None:
    assert "calls of the model" not in {check.what for check in checks(evidence(model=None))}


def test_without_the_drivers_counts_the_rest_is_compared() -> None:
    without = Evidence({"web": WEB, "models": MODELS}, None, {"packages": 7, "ask": 10}, 3)
    assert len(checks(without)) == 3
