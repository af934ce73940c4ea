"""`docs/README.md` leads to every page, and links in all pages lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    """What a page says, without its code."""
    return _CODE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[tuple[str, str]]:
    """Text and target of the links to other places here."""
    return [
        (text, target) for text, target in _LINK.findall(text_of(page)) if not re.match(r"[a-z][a-z0-9+.-]*:", target)
    ]


def anchors(page: Path) -> set[str]:
    """What can stand behind `#`: the headings as they are written in addresses."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_index_has_every_page() -> None:
    index = DOCS / "README.md"
    listed = {(DOCS / target.partition("#")[0]).resolve() for _, target in links(index)}
    missing = sorted(str(page.relative_to(DOCS)) for page in PAGES if page != index and page not in listed)
    assert not missing, f"list in docs/README.md: {missing}"


def test_the_index_calls_pages_what_they_are_called() -> None:
    """The names of SDKs are shorter there."""
    for text, target in links(DOCS / "README.md"):
        if target.endswith(".md") and not target.startswith(("sdks/", "..")):
            title = (DOCS / target).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            assert title.lower() == text.lower() or text == "the demo"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for _, target in links(page):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            broken.append(target)
    assert not broken
