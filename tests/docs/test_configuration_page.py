"""The page on configuration has a row for each option, with what the class says of it."""

import dataclasses

import pytest

from scripts import options_table


def test_the_tables_are_those_of_the_classes() -> None:
    page = options_table.PAGE.read_text()
    assert page == options_table.written(page), "run: python -m scripts.options_table"


@pytest.mark.parametrize("kind", options_table.TABLES)
def test_every_option_is_documented_in_its_order(kind: type) -> None:
    assert list(options_table.meanings(kind)) == [each.name for each in dataclasses.fields(kind)]


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the options of CacheConfig"):
        options_table.written("# A page\n")
