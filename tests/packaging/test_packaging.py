"""The wheel holds what it should, and each extra alone brings what it promises."""

import importlib.metadata
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("aurelis/cache", "aurelis_asgi", "aurelis_cli", "aurelis_httpx", "aurelis_httpx2")

# What works with an extra and nothing else; the empty name is the installation without extras.
PROMISES: Mapping[str, str] = {
    "": """
        import importlib, os, sys
        from aurelis.cache import CacheConfig, CacheManager, CacheMonitor, cached, get_cache_manager
        from aurelis.cache.models import ModelPolicy

        def with_variable():
            os.environ["AURELIS_CACHE_MAX_SIZE"] = "5"
            get_cache_manager()

        def says_what_is_missing(extra, attempt, *arguments, **options):
            try:
                attempt(*arguments, **options)
            except ImportError as error:
                assert f'pip install "aurelis-cache[{extra}]"' in str(error), error
            else:
                raise AssertionError(extra)

        says_what_is_missing("settings", with_variable)
        says_what_is_missing("otel", CacheMonitor, CacheManager())
        from aurelis.cache import SimilarityCache

        says_what_is_missing("similarity", SimilarityCache)
        says_what_is_missing("redis", CacheConfig, redis_url="redis://127.0.0.1:6379/0")
        says_what_is_missing("crypto", CacheConfig, encryption_key=bytes(range(32)))
        if sys.version_info < (3, 14):
            says_what_is_missing("zstd", CacheConfig, compression="zstd")
        says_what_is_missing("cost", ModelPolicy, keys=str, cost="genai-prices")
        says_what_is_missing("instrument", importlib.import_module, "aurelis.cache.telemetry.instrumentor")
        for extra in ("asgi", "httpx", "httpx2"):
            says_what_is_missing(extra, importlib.import_module, f"aurelis_{extra}")
    """,
    "redis": """
        from aurelis.cache import CacheConfig, RedisBackend
        RedisBackend(CacheConfig(redis_url="redis://127.0.0.1:6379/0"))
    """,
    "settings": """
        import os
        from aurelis.cache import get_cache_manager
        os.environ["AURELIS_CACHE_MAX_SIZE"] = "5"
        assert get_cache_manager().manager.config.max_size == 5
    """,
    "asgi": "from aurelis_asgi import CacheMiddleware, CacheRule",
    "cost": "from aurelis.cache.models import ModelPolicy; ModelPolicy(keys=str, cost='genai-prices')",
    "httpx2": "from aurelis_httpx2 import AsyncCacheTransport, CacheTransport",
    "httpx": "from aurelis_httpx import AsyncCacheTransport, CacheTransport",
    "instrument": """
        from importlib.metadata import entry_points
        from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
        (found,) = entry_points(group="opentelemetry_instrumentor")
        assert found.name == "aurelis_cache"
        instrumentor = found.load()()
        assert isinstance(instrumentor, BaseInstrumentor)
        instrumentor.instrument()
        instrumentor.uninstrument()
    """,
    "similarity": """
        from aurelis.cache import SimilarityCache
        SimilarityCache(mode="verified")
    """,
    "usearch": """
        from aurelis.cache import SimilarityCache

        class Embedder:
            name = "e"

            async def embed(self, texts):
                return [[1.0] for _ in texts]

        SimilarityCache(embedder=Embedder(), index="usearch")
    """,
    "zstd": """
        from aurelis.cache import CacheConfig
        CacheConfig(compression="zstd")
    """,
    "crypto": """
        from aurelis.cache import CacheConfig
        CacheConfig(encryption_key=bytes(range(32)))
    """,
    "otel": """
        from aurelis.cache import CacheManager, CacheMonitor
        CacheMonitor(CacheManager())
        import opentelemetry.sdk.metrics
        import opentelemetry.exporter.prometheus
        import opentelemetry.exporter.otlp.proto.http.metric_exporter
    """,
    "server": """
        import subprocess, sys
        import aurelis_cli.main
        command = sys.prefix + "/bin/aurelis-cache"
        for arguments in (["--help"], ["demo", "--help"], ["warm", "--help"]):
            subprocess.run([command, *arguments], check=True)
    """,
    "all": "import aurelis.cache, aurelis_asgi, aurelis_cli.main, aurelis_httpx, aurelis_httpx2",
}

NOT_IMPORTED = (
    "backports.zstd",
    "cryptography",
    "fastapi",
    "genai_prices",
    "hiredis",
    "httpx",
    "httpx2",
    "numpy",
    "openai",
    "opentelemetry.instrumentation",
    "opentelemetry.sdk",
    "pydantic",
    "rapidfuzz",
    "redis",
    "rich",
    "starlette",
    "usearch",
)


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Runs a command that must succeed; returns what it printed."""
    words = [str(word) for word in command]
    completed = subprocess.run(words, check=False, cwd=cwd, capture_output=True, text=True)
    assert completed.returncode == 0, f"{' '.join(words)}\n{completed.stdout}{completed.stderr}"
    return completed.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without isolation: the test environment has the build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheelhouse(wheel: Path) -> Path:
    """A folder with the wheel and all that its extras need, so that no environment asks an index again."""
    run(sys.executable, "-m", "pip", "download", "-qq", "--dest", wheel.parent, f"{wheel}[all]")
    return wheel.parent


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> importlib.metadata.PackageMetadata:
    """The metadata inside the wheel."""
    (info,) = [path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info")]
    return importlib.metadata.PathDistribution(info).metadata


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    roots = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert roots == {package.split("/")[0] for package in PACKAGES}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {f"{package}/__init__.py" for package in PACKAGES} <= set(names)


def test_aurelis_is_a_namespace_in_the_wheel(wheel: Path) -> None:
    """PEP 420: other distributions may add to `aurelis`."""
    with zipfile.ZipFile(wheel) as archive:
        below = [name for name in archive.namelist() if name.startswith("aurelis/")]
    assert below
    assert [name for name in below if not name.startswith("aurelis/cache/")] == []


def test_metadata_names_license_python_and_extras(metadata: importlib.metadata.PackageMetadata) -> None:
    assert metadata["Name"] == "aurelis-cache"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra") or ()) == set(PROMISES) - {""}


def test_hard_dependencies_are_three_and_bounded(metadata: importlib.metadata.PackageMetadata) -> None:
    hard = [line for line in metadata.get_all("Requires-Dist") or () if "extra ==" not in line]
    names = {line.split("<")[0].split(">")[0] for line in hard}
    assert names == {"cachetools", "msgpack", "opentelemetry-api"}
    assert all(">=" in line and "<" in line for line in hard)


@pytest.mark.parametrize("extra", PROMISES, ids=lambda extra: extra or "none")
def test_an_extra_alone_brings_what_it_promises(extra: str, wheelhouse: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "virtualenv", "--quiet", "--no-seed", environment)
    interpreter = environment / "bin" / "python"
    wanted = f"aurelis-cache[{extra}]" if extra else "aurelis-cache"
    pip = (sys.executable, "-m", "pip", "--python", interpreter, "install", "-qq")
    run(*pip, "--no-compile", "--no-index", "--find-links", wheelhouse, wanted)
    # Not from the repository, or its sources could hide what the wheel lacks; -I keeps PYTHONPATH out.
    run(interpreter, "-I", "-c", textwrap.dedent(PROMISES[extra]), cwd=tmp_path)
    present = run(interpreter, "-I", "-c", "from aurelis.cache import *; print(*dir())", cwd=tmp_path).split()
    assert "CacheManager" in present
    assert ("RedisBackend" in present) == (extra in {"redis", "server", "all"})


def test_importing_the_core_imports_no_optional_part() -> None:
    """All of them are installed here, so that only the import itself decides."""
    source = "import sys; from aurelis.cache import CacheManager; print(*sys.modules)"
    modules = run(sys.executable, "-I", "-c", source).split()
    assert [name for name in NOT_IMPORTED if name in modules] == []
