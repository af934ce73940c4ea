"""Each SDK that is tested has a page, with examples that run somewhere."""

import re

import pytest

from tests.compat.__main__ import HERE, SDKS
from tests.conftest import ROOT
from tests.docs.blocks import blocks, files, page_of


@pytest.mark.parametrize("sdk", SDKS)
def test_an_sdk_has_a_page_that_is_found_and_run(sdk: str) -> None:
    page = page_of(sdk)
    assert len(blocks(page)) > len(files(page))
    assert f"](sdks/{sdk}.md)" in (ROOT / "docs" / "models.md").read_text()
    assert f'sdk = "{sdk}"' in (HERE / f"test_{sdk.replace('-', '_')}.py").read_text()


def test_there_are_no_other_pages() -> None:
    assert {path.stem for path in (ROOT / "docs" / "sdks").iterdir()} == {*SDKS}


@pytest.mark.parametrize("sdk", SDKS)
def test_what_a_page_links_to_is_there(sdk: str) -> None:
    page = page_of(sdk)
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert "../models.md" in targets
    assert [target for target in targets if not (page.parent / target).is_file()] == []
