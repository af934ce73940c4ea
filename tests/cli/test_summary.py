"""The closing summary: whether everybody who counted came to the same figures."""

import io

from rich.console import Console

from aurelis_cli.demo.metrics import parse
from aurelis_cli.demo.summary import Evidence, checks, similarity, summarise

REPORTED = """\
# TYPE aurelis_cache_requests_total counter
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="hit",aurelis_cache_layer="l1"} 78.0
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="stale",aurelis_cache_layer="l1"} 2.0
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="miss"} 18.0
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="bypass"} 2.0
aurelis_cache_requests_total{aurelis_cache_name="models",aurelis_cache_result="hit",aurelis_cache_layer="l1"} 6.0
aurelis_cache_requests_total{aurelis_cache_name="models",aurelis_cache_result="miss"} 4.0
# TYPE aurelis_cache_coalesced_total counter
aurelis_cache_coalesced_total{aurelis_cache_name="web"} 3.0
aurelis_cache_coalesced_total{aurelis_cache_name="models"} 1.0
# TYPE aurelis_cache_refreshes_total counter
aurelis_cache_refreshes_total{aurelis_cache_name="web",aurelis_cache_refresh_reason="error"} 2.0
# TYPE aurelis_cache_write_behind_accepted_total counter
aurelis_cache_write_behind_accepted_total{aurelis_cache_name="ratings",aurelis_cache_journal="ratings"} 9.0
# TYPE aurelis_cache_write_behind_replayed_total counter
aurelis_cache_write_behind_replayed_total{aurelis_cache_name="ratings",aurelis_cache_journal="ratings"} 1.0
# TYPE aurelis_cache_write_behind_settled_total counter
aurelis_cache_write_behind_settled_total{aurelis_cache_journal="ratings",aurelis_cache_write_result="written"} 5.0
aurelis_cache_write_behind_settled_total{aurelis_cache_journal="ratings",aurelis_cache_write_result="coalesced"} 2.0
aurelis_cache_write_behind_settled_total{aurelis_cache_journal="ratings",aurelis_cache_write_result="dead"} 1.0
# TYPE aurelis_cache_similarity_lookups_total counter
aurelis_cache_similarity_lookups_total{aurelis_cache_name="faq",aurelis_cache_similarity_result="hit"} 4.0
aurelis_cache_similarity_lookups_total{aurelis_cache_name="faq",aurelis_cache_similarity_result="none"} 3.0
# TYPE aurelis_cache_similarity_verdicts_total counter
aurelis_cache_similarity_verdicts_total{aurelis_cache_name="faq",aurelis_cache_similarity_verdict="correct"} 7.0
aurelis_cache_similarity_verdicts_total{aurelis_cache_name="faq",aurelis_cache_similarity_verdict="false_hit"} 1.0
"""
ORIGIN = {"packages": 9, "ask": 10, "ratings": 9}


def evidence(sent: int = 100, model: int | None = 3, **errors: int) -> Evidence:
    statuses = {"200": sent - 2, "404": 1, "502": 1}
    kinds = {
        "ask": {"sent": sent, "statuses": statuses if errors else {}, "errors": errors},
        "ratings": {"sent": 10, "statuses": {"200": 9}, "errors": {}},
    }
    return Evidence(parse(REPORTED), {"kinds": kinds}, ORIGIN, 10, model)


def said(what: Evidence) -> str:
    console = Console(file=io.StringIO(), width=100)
    summarise(console, what, shared=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_side_is_compared_with_what_the_caches_report() -> None:
    found = {check.what: (check.reported, check.counted) for check in checks(evidence())}
    assert found == {
        "requests for web pages": (100, 100),
        "calls of the app": (19, 19),
        "model calls": (10, 10),
        "calls of the model": (3, 3),
        "ratings": (9, 9),
    }


def test_agreement_is_shown() -> None:
    text = said(evidence())
    assert text.count("✓") == 5
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
    without = Evidence(parse(REPORTED), None, ORIGIN, 10, 3)
    assert len(checks(without)) == 3


def test_what_is_beside_the_table_is_said_in_a_line_each() -> None:
    text = said(evidence())
    assert "ratings: 5 written behind the cache, 2 replaced by newer ones, 1 given up and 1 tried again, 2 waiting" in (
        " ".join(text.split())
    )
    compared = "8 compared with the model's answer, 1 of them wrong"
    assert f"frequent questions: 4 answered by a similar one, {compared}" in " ".join(text.split())


def test_where_nobody_asked_a_frequent_question_nothing_is_said_of_them() -> None:
    assert similarity({}) == ""
