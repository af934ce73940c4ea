"""Words for what runs in a simulated event loop: the same in each run, so without addresses and counters of asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from types import FrameType
from typing import Any


def label(thing: Any) -> str:  # `Any`: a handle, task or callable, of C or of Python
    """Returns the name of a task's coroutine, or of a callback."""
    if isinstance(thing, asyncio.Handle):
        thing = getattr(thing, "_callback", None)
    task = getattr(thing, "__self__", thing)
    if isinstance(task, asyncio.Task):
        coroutine = task.get_coro()
        return str(getattr(coroutine, "__qualname__", type(coroutine).__name__))
    while isinstance(thing, functools.partial):
        thing = thing.func
    return str(getattr(thing, "__qualname__", type(thing).__name__))


def where(thing: Any) -> str:  # `Any`: a task, coroutine, generator or another awaitable
    """Returns the name, and the innermost line where it is suspended."""
    awaited = thing.get_coro() if isinstance(thing, asyncio.Task) else thing
    frame: FrameType | None = None
    while awaited is not None:
        # The four kinds of suspended things have the same attributes under prefixes of their own.
        prefix = next((prefix for prefix in ("cr", "ag", "gi") if hasattr(awaited, f"{prefix}_frame")), None)
        if prefix is None:
            break
        frame = getattr(awaited, f"{prefix}_frame") or frame
        awaited = getattr(awaited, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")
    place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame else "not begun"
    return f"{label(thing)} at {place}"


def describe(context: Mapping[str, Any]) -> str:
    """Returns what an event loop gives to its exception handler, in one line."""
    error, owner = context.get("exception"), context.get("task") or context.get("future") or context.get("handle")
    parts = [str(context.get("message")), repr(error) if error else "", f"in {label(owner)}" if owner else ""]
    return "; ".join(part for part in parts if part)
