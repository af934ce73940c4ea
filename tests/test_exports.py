"""What `aurelis.cache` exports, with and without what is optional."""

import pytest

import aurelis.cache
from tests.managers import run_script


def test_every_name_that_is_exported_is_there() -> None:
    assert {name for name in aurelis.cache.__all__ if not hasattr(aurelis.cache, name)} == set()
    assert len(set(aurelis.cache.__all__)) == len(aurelis.cache.__all__)
    assert {"DiskBackend", "RedisBackend"} <= {*aurelis.cache.__all__}


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = aurelis.cache.Nonsense


def test_a_star_brings_all_of_them() -> None:
    shown = run_script("import aurelis.cache; from aurelis.cache import *; print(*{*aurelis.cache.__all__} - {*dir()})")
    assert shown.strip() == ""


@pytest.mark.parametrize(
    ("package", "name", "says"),
    [
        ("redis", "RedisBackend", "aurelis-cache[redis]"),
        ("hiredis", "RedisBackend", "aurelis-cache[redis]"),
        ("_sqlite3", "DiskBackend", "_sqlite3"),
    ],
)
def test_a_star_leaves_out_what_is_not_installed_and_who_names_it_hears_why(package: str, name: str, says: str) -> None:
    source = f"""
        import importlib.abc, sys

        class Missing(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == {package!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Missing())

        from aurelis.cache import *

        print(*{{"DiskBackend", "RedisBackend"}} - {{*dir()}})
        try:
            from aurelis.cache import {name}
        except ImportError as error:
            print(error)
    """
    missing, error = run_script(source).splitlines()
    assert missing == name
    assert says in error
