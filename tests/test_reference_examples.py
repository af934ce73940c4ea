"""The examples of use in the reference interface, run as they are written there."""

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache import CacheInvalidator, UnifiedCacheManager, cached, get_cache_manager, set_cache_manager
from tests import aurelis_models
from tests.managers import configuration, own_counts

Names = dict[str, Any]  # what an example finds and defines


class Page:
    """The reference page."""

    def __init__(self, folder: Path) -> None:
        self._text = (folder / "reference" / "cache-api.md").read_text()

    async def run(self, heading: str, names: Names, *, after: str = "") -> Names:
        """Run the example below a heading, from a line of it on; returns the names that it knows then."""
        section = self._text.partition(f"### {heading}\n")[2]
        (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:1]
        code = code.partition(after)[2] if after else code
        assert code.strip(), heading
        compiled = compile(code, heading, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(compiled, names)
        if inspect.iscoroutine(result):
            await result
        return names


@pytest.fixture
def page(shared_dir: Path) -> Page:
    return Page(shared_dir)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """What the examples take for granted."""
    monkeypatch.setitem(sys.modules, "aurelis.models", aurelis_models)
    with own_counts():
        before = set_cache_manager(UnifiedCacheManager(configuration(types=[aurelis_models.ModelResponse])))
        yield {
            "Any": Any,
            "Dict": dict,
            "json": json,
            "cache_manager": get_cache_manager(),
            "config_manager": aurelis_models.ConfigManager(),
            "ModelConfig": aurelis_models.ModelConfig,
            "ModelRequest": aurelis_models.ModelRequest,
            "ModelResponse": aurelis_models.ModelResponse,
            "search_results": [{"title": "one"}, {"title": "two"}],
        }
        set_cache_manager(before)


async def test_basic_cache_usage(page: Page, names: Names, capsys: pytest.CaptureFixture[str]) -> None:
    await page.run("Basic Cache Usage", names)
    assert capsys.readouterr().out == "{'name': 'John', 'role': 'developer'}\n"
    cache = get_cache_manager()
    assert await cache.get("search_results", "query123", {"limit": 10, "page": 1}) == names["search_results"]
    assert await cache.get("search_results", "query123") is None


async def test_model_response_caching(page: Page, names: Names) -> None:
    await page.run("Model Response Caching", names)
    ask, orchestrator = names["get_cached_model_response"], aurelis_models.ORCHESTRATOR
    orchestrator.asked.clear()
    first = await ask("gpt-4o", "Hello", {"temperature": 0.2})
    assert first == aurelis_models.ModelResponse("answer to Hello")
    assert await ask("gpt-4o", "Hello", {"temperature": 0.2}) == first
    assert len(orchestrator.asked) == 1
    await ask("gpt-4o", "Hello", {"temperature": 0.3})
    await ask("gpt-4o-mini", "Hello", {"temperature": 0.2})
    assert len(orchestrator.asked) == 3


async def test_cache_invalidation(page: Page, names: Names) -> None:
    await page.run("Cache Invalidation", names)
    cache = get_cache_manager()
    for category in ("model_responses", "model_info", "other"):
        await cache.set(category, "gpt-4o", 1)
    await names["update_model_config"]("gpt-4o", {"temperature": 0})
    assert names["config_manager"].changed == [("gpt-4o", {"temperature": 0})]
    found = [await cache.get(category, "gpt-4o") for category in ("model_responses", "model_info", "other")]
    assert found == [None, None, 1]


async def test_performance_monitoring(page: Page, names: Names, capsys: pytest.CaptureFixture[str]) -> None:
    cache = get_cache_manager()
    await cache.set("a", "b", 1)
    for identifier in ("b", "b", "b", "c"):
        await cache.get("a", identifier)
    await page.run("Performance Monitoring", names)
    said = capsys.readouterr().out
    assert said.startswith("Hit rate: 75.00%\nTotal requests: 4\n{")
    assert json.loads(said.partition("4\n")[2])["overall_metrics"]["hits"] == 3


async def test_function_caching(page: Page, names: Names) -> None:
    names["cached"] = cached
    await page.run("Function Caching", names, after="# Usage examples\n")
    assert await names["get_model_response"]("gpt-4o", "Hello") is None
    assert await names["get_user_data"]("7", {"full": True}) is None
    cache = get_cache_manager()
    missing = object()
    assert await cache.get("function", f"user:7:{hash(str({'full': True}))}", default=missing) is None


async def test_class_method_caching(page: Page, names: Names) -> None:
    await page.run("Class Method Caching", names)
    asked: list[str] = []

    async def fetch(self: object, model_type: str) -> dict[str, Any]:
        asked.append(model_type)
        return {"name": model_type}

    async def load(self: object, model_type: str) -> dict[str, Any]:
        asked.append(f"config of {model_type}")
        return {"name": model_type}

    service = type("Service", (names["ModelService"],), {"_fetch_model_info": fetch, "_load_model_config": load})()
    for _ in range(2):
        assert await service.get_model_info("gpt-4o") == {"name": "gpt-4o"}
        assert await service.get_model_config("gpt-4o") == {"name": "gpt-4o"}
    assert asked == ["gpt-4o", "config of gpt-4o"]
    await CacheInvalidator(get_cache_manager()).invalidate_on_event("model_config_updated")
    await service.get_model_info("gpt-4o")
    await service.get_model_config("gpt-4o")
    assert asked == ["gpt-4o", "config of gpt-4o", "config of gpt-4o"]


async def test_invalidation_strategies(page: Page, names: Names) -> None:
    names["CacheInvalidator"] = CacheInvalidator
    cache = get_cache_manager()
    for category, identifier in (("model_responses", "x"), ("model_info", "gpt-4o"), ("model_info", "other")):
        await cache.set(category, identifier, 1)
    await cache.set("user_data", "7", 1)
    await page.run("Invalidation Strategies", names, after="# Usage example\n")
    assert await cache.get("model_responses", "x") is None
    assert await cache.get("model_info", "gpt-4o") is None
    assert await cache.get("model_info", "other") == 1
    await names["invalidator"].invalidate_on_event("user_settings_changed", context={"user_id": "7"})
    assert await cache.get("user_data", "7") is None
