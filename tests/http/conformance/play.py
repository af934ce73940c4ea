"""The client of the cases: plays a conversation and says how it went."""

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.http.conformance.cases import Case
from tests.http.conformance.origin import DATES, UNCONDITIONAL, Script, date, joined

Outcome = Literal["success", "setup", "retry", "assertion", "error"]

PAUSE = 3.0
"""Seconds that `pause_after` means."""


@dataclass
class Answer:
    """A response. `interim`: status and fields of the 1xx responses before it."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes
    interim: list[tuple[int, dict[str, str]]] = field(default_factory=list)


Ask = Callable[[str, str, list[tuple[str, str]], bytes], Awaitable[Answer]]
"""Sends method, target, fields and body."""


@dataclass
class Result:
    """How a run went. `detail`: for people."""

    outcome: Outcome
    detail: str = ""


class _Failed(Exception):
    def __init__(self, check: str, detail: str, *, setup: bool = False) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.setup = setup


class _Retried(Exception):
    pass


async def play(
    case: Case,
    register: Callable[[str, Script], None],
    ask: Ask,
    pause: Callable[[float], Awaitable[None]],
) -> Result:
    """One run of a case.

    Args:
        register: makes the origin ready for the run.
        ask: sends a request through the cache.
        pause: lets seconds pass.
    """
    token = str(uuid.uuid4())
    script = Script(case)
    register(token, script)
    answers: list[Answer] = []
    number = 0
    try:
        for number, request in enumerate(case.requests, start=1):
            answer = await ask(*_request(case, script, token, number, request, answers))
            answers.append(answer)
            _check_answer(request, number, answer, token)
            if request.get("pause_after"):
                await pause(PAUSE)
        _check_origin(case, script, answers)
    except _Failed as failed:
        return Result("setup" if failed.setup else "assertion", f"request {number}: {failed}")
    except _Retried:
        return Result("retry")
    except Exception as error:  # noqa: BLE001  # a result like any other, shown with the others
        return Result("error", f"{type(error).__name__}: {error}")
    return Result("success")


def _request(
    case: Case, script: Script, token: str, number: int, request: Mapping[str, Any], answers: list[Answer]
) -> tuple[str, str, list[tuple[str, str]], bytes]:
    target = f"/test/{token}"
    if "filename" in request:
        target += f"/{request['filename']}"
    if "query_arg" in request:
        target += f"?{request['query_arg']}"
    now = time.time()
    if request.get("magic_ims") and answers:
        now = int(joined(answers[-1].lines).get("server-now", now * 1000)) / 1000
    fields = [("Pragma", "foo"), ("Cache-Control", "nothing-to-see-here")]
    for index, line in enumerate(request.get("request_headers", ())):
        # Space around a value is no part of it, and clients do not send it.
        fields.append((line[0], script.value(number, "request", index, line, now, request).strip(" \t")))
    fields += [("Test-Name", case.id), ("Test-ID", case.id), ("Req-Num", str(number))]
    return request.get("request_method", "GET"), target, fields, request.get("request_body", "").encode()


def _check_answer(request: Mapping[str, Any], number: int, answer: Answer, token: str) -> None:
    def require(check: str, truth: bool, detail: str, *, always_setup: bool = False) -> None:
        if not truth:
            setup = always_setup or bool(request.get("setup")) or check in request.get("setup_tests", ())
            raise _Failed(check, detail, setup=setup)

    fields = joined(answer.lines)
    numbers = fields.get("request-numbers", "").split()
    if len(set(numbers)) < len(numbers):
        raise _Retried
    text = fields.get("server-request-count", "")
    count = int(text) if text.isdigit() else None
    expected = request.get("expected_type")
    if expected == "cached":
        cached = count < number if count is not None else answer.status == 304
        require("expected_type", cached, f"not cached, count {count}")
    elif expected == "not_cached":
        require("expected_type", count == number, f"cached, count {count}")
    if "expected_status" in request:
        status = request["expected_status"]
        require("expected_status", status is None or answer.status == status, f"status {answer.status}")
    elif "response_status" in request:
        status = request["response_status"][0]
        require("response_status", answer.status == status, f"status {answer.status}", always_setup=True)
    elif answer.status == UNCONDITIONAL:
        require("expected_type", False, "the request was not conditional")
    else:
        require("status", answer.status == 200, f"status {answer.status}", always_setup=True)
    for item in request.get("expected_response_headers", ()):
        require("expected_response_headers", *_has_field(item, fields))
    for item in request.get("expected_response_headers_missing", ()):
        if isinstance(item, str):
            require("expected_response_headers_missing", item.lower() not in fields, f"{item} is there")
    if (interim := request.get("expected_interim_responses")) is not None:
        good = len(interim) == len(answer.interim) and all(
            code[0] == got[0] and all(name.lower() in got[1] for name, *_ in (code[1] if len(code) > 1 else ()))
            for code, got in zip(interim, answer.interim, strict=True)
        )
        require("expected_interim_responses", good, f"interim responses {answer.interim}")
    _check_body(request, answer, token, require)


def _has_field(item: Any, fields: Mapping[str, str]) -> tuple[bool, str]:
    if isinstance(item, str):
        return item.lower() in fields, f"{item} is missing"
    name = item[0].lower()
    value = fields.get(name)
    if len(item) == 2:
        wanted = item[1]
        if isinstance(wanted, int) and name in DATES:
            wanted = date(int(fields.get("server-now", "0")) / 1000 + wanted)
        return value == str(wanted), f"{name} is {value!r}, not {wanted!r}"
    if item[1] == "=":
        return value is not None and value == fields.get(item[2].lower()), f"{name} differs from {item[2]}"
    digits = (value or "").split(",")[0].strip()
    return digits.isdigit() and int(digits) > item[2], f"{name} is {value!r}"


def _check_body(request: Mapping[str, Any], answer: Answer, token: str, require: Callable[..., None]) -> None:
    if request.get("check_body") is False:
        return
    body = answer.body.decode("utf-8", "replace")
    if "expected_response_text" in request:
        wanted = request["expected_response_text"]
        require("expected_response_text", wanted is None or body == wanted, f"body {body[:60]!r}")
    elif request.get("response_body") is not None:
        require("response_body", body == request["response_body"], f"body {body[:60]!r}", always_setup=True)
    elif answer.status not in (204, 304) and request.get("request_method") != "HEAD":
        require("body", body == token, f"body {body[:60]!r}", always_setup=True)


def _check_origin(case: Case, script: Script, answers: list[Answer]) -> None:
    position = 0
    for number, request in enumerate(case.requests, start=1):

        def require(
            check: str, truth: bool, detail: str, *, always_setup: bool = False, request: Mapping[str, Any] = request
        ) -> None:
            if not truth:
                setup = always_setup or bool(request.get("setup")) or check in request.get("setup_tests", ())
                raise _Failed(check, f"at the origin: {detail}", setup=setup)

        expected = request.get("expected_type")
        if expected == "cached":
            continue
        seen = script.seen[position] if position < len(script.seen) else None
        position += 1
        if expected == "not_cached":
            require("expected_type", seen is not None and seen.number == str(number), "it was not asked")
        if expected in ("etag_validated", "lm_validated"):
            name = "if-none-match" if expected == "etag_validated" else "if-modified-since"
            require("expected_type", seen is not None and name in seen.fields, f"no {name}")
        fields = seen.fields if seen is not None else {}
        for item in request.get("expected_request_headers", ()):
            name, value = (item, None) if isinstance(item, str) else item
            got = fields.get(name.lower())
            require("expected_request_headers", got is not None and value in (None, got), f"{name} is {got!r}")
        for item in request.get("expected_request_headers_missing", ()):
            name, value = (item, None) if isinstance(item, str) else item
            got = fields.get(name.lower())
            require("expected_request_headers_missing", got is None or value not in (None, got), f"{name} is {got!r}")
        received = joined(answers[number - 1].lines)
        for name, value in joined(seen.checked if seen is not None else []).items():
            if name != "date":
                got = received.get(name)
                require("response_headers", got == value, f"{name} {value!r} became {got!r}", always_setup=True)
        if "expected_method" in request:
            method = seen.method if seen is not None else None
            require("expected_method", method == request["expected_method"], f"method {method}")
