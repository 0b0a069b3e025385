"""The pages hang together: the index has every page, links lead somewhere, and code that is named is there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.code_citations import ROOT, citations, fault

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
CITING = [DOCS / "architecture.md", DOCS / "glossary.md"]
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_INVARIANT = re.compile(r"\bI(?:[1-9]|1[0-9])\b")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The names that GitHub gives the headings of a page."""
    headings = _HEADING.findall(without_code(page.read_text()))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in _LINK.findall(index)}
    assert [name_of(page) for page in PAGES if page.resolve() not in linked and page != DOCS / "README.md"] == []


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(without_code(page.read_text())):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", CITING, ids=name_of)
def test_all_code_that_a_page_names_is_there(page: Path) -> None:
    named = citations(page.read_text())
    assert len(named) > 20
    assert [text for path, symbol in named if (text := fault(path, symbol))] == []


def test_every_invariant_that_is_cited_is_in_the_list() -> None:
    listed = set(re.findall(r"^\| (I\d+) \|", (DOCS / "architecture.md").read_text(), re.MULTILINE))
    assert listed == {f"I{number}" for number in range(1, 12)}
    code = [
        file
        for folder in ("nimbusd", "stages", "renderers", "transport", "supervisor", "tests")
        for file in (ROOT / folder).rglob("*.py")
    ]
    cited = {name for file in [*code, *PAGES] for name in _INVARIANT.findall(file.read_text())}
    assert cited <= listed


def test_every_room_that_the_map_names_is_there() -> None:
    text = (DOCS / "architecture.md").read_text().partition("## The rooms")[2].partition("## First walk")[0]
    rows = re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
    rooms = [room for row in rows for room in re.findall(r"`([\w/]+/)`", row)]
    assert len(rooms) > 10
    assert [room for room in rooms if not (ROOT / room).is_dir()] == []


def test_the_glossary_has_each_word_once() -> None:
    words = [
        word
        for row in re.findall(r"^\| ([^|]+) \|", (DOCS / "glossary.md").read_text(), re.MULTILINE)
        for word in row.split(", ")
    ]
    words = [word for word in words if word not in ("word", "---")]
    assert len(words) > 40
    assert sorted(words) == sorted(set(words))
