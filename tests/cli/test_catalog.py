"""The catalogue of installed distributions, built from real and from made-up metadata."""

import importlib.metadata
from pathlib import Path

import pytest

from aurelis_cli.demo.catalog import PAGE_SIZE, Catalog, build, normalised


def distribution(folder: Path, name: str, *headers: str, record: str | None = None) -> importlib.metadata.Distribution:
    """A distribution as an installer leaves it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *headers]
    (info / "METADATA").write_text("\n".join(lines) + "\n\nThe long description.\n")
    if record is not None:
        (info / "RECORD").write_text(record)
    return importlib.metadata.Distribution.at(info)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Four packages: a base, what needs it, what needs that, and one whose extra needs the base."""
    installed = [
        distribution(
            tmp_path,
            "Base_Lib",
            "Summary: Does 100% of it.",
            "Classifier: Topic :: Internet",
            record="base_lib/__init__.py,sha256=x,120\nbase_lib/big.py,sha256=y,9000\nbase_lib/RECORD,,\n",
        ),
        distribution(tmp_path, "middle", "Requires-Dist: base-lib (>=1)"),
        distribution(tmp_path, "top", "Requires-Dist: middle"),
        distribution(tmp_path, "apart", 'Requires-Dist: base.lib>=1; extra == "more"', "Summary: stands alone"),
    ]
    path = tmp_path / "catalog.sqlite"
    assert build(path, installed) == 4
    return Catalog(path)


def test_the_list_begins_with_what_is_required_most(catalog: Catalog) -> None:
    page = catalog.page(1)
    assert (page.number, page.pages, page.total) == (1, 1, 4)
    assert [row["name"] for row in page.packages] == ["Base_Lib", "middle", "apart", "top"]
    assert page.packages[0]["dependents"] == 1
    assert (page.packages[0]["files"], page.packages[0]["bytes"]) == (3, 9120)


def test_beyond_the_last_page_there_is_nothing(catalog: Catalog) -> None:
    assert catalog.page(2).packages == []


def test_details_name_all_that_depend_on_a_package_also_through_others(catalog: Catalog) -> None:
    found = catalog.detail("base-lib")
    assert found is not None
    assert found["dependents"] == ["middle", "top"]
    assert found["summary"] == "Does 100% of it"
    assert found["classifiers"] == ["Topic :: Internet"]
    assert found["largest_files"][0] == {"path": "base_lib/big.py", "bytes": 9000}
    assert found["description"].strip() == "The long description."


def test_what_only_an_extra_requires_is_told_apart(catalog: Catalog) -> None:
    found = catalog.detail("apart")
    assert found is not None
    assert (found["requires"], found["optional"]) == ([], ['base.lib>=1; extra == "more"'])


@pytest.mark.parametrize("name", ["base-lib", "BASE.LIB", "Base__Lib"])
def test_names_are_compared_as_package_indexes_do(catalog: Catalog, name: str) -> None:
    found = catalog.detail(name)
    assert found is not None
    assert found["name"] == "Base_Lib"


def test_an_unknown_package_has_no_details(catalog: Catalog) -> None:
    assert catalog.detail("nothing") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("apart", ["apart"]),
        ("ALONE", ["apart"]),
        ("big.py", ["Base_Lib"]),
        ("internet", ["Base_Lib"]),
        ("100%", ["Base_Lib"]),
        ("1%0", []),
        ("b_g", []),
        ("\\", []),
        ("absent", []),
    ],
)
def test_search_looks_everywhere_and_takes_the_text_literally(catalog: Catalog, text: str, expected: list[str]) -> None:
    assert [row["name"] for row in catalog.search(text)] == expected


def test_facts_are_about_the_packages_that_a_question_names(catalog: Catalog) -> None:
    assert catalog.facts("What is base-lib for?") == ["Base_Lib 1.0: Does 100% of it. Required by middle, top."]
    assert catalog.facts("And what else?") == []


def test_a_leftover_folder_without_metadata_is_no_package(tmp_path: Path) -> None:
    leftover = tmp_path / "gone-1.0.dist-info"
    leftover.mkdir()
    path = tmp_path / "catalog.sqlite"
    assert build(path, [importlib.metadata.Distribution.at(leftover)]) == 0
    assert Catalog(path).names() == []


def test_of_two_versions_the_first_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    installed = [
        distribution(tmp_path / "a", "twice", "Summary: first"),
        distribution(tmp_path / "b", "Twice", "Summary: second"),
    ]
    path = tmp_path / "catalog.sqlite"
    assert build(path, installed) == 1
    assert [row["summary"] for row in Catalog(path).page(1).packages] == ["first"]


def test_the_catalogue_of_this_interpreter_holds_what_is_installed(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    count = build(path)
    names = Catalog(path).names()
    assert len(names) == count > PAGE_SIZE
    assert "starlette" in {normalised(name) for name in names}
    starlette = Catalog(path).detail("starlette")
    assert starlette is not None
    assert starlette["version"] == importlib.metadata.version("starlette")
    assert "fastapi" in {normalised(name) for name in starlette["dependents"]}
