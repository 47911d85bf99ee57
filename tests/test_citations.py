"""Every citation of a design page, such as `METHOD 4.2`, names a page and a section that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DESIGN = ROOT / "docs" / "design"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in DESIGN.glob("[A-Z]*.md")}
FOLDERS = ("edgerazor", "tests", "benchmarks", "scripts", "examples", "docs", "recipes")
SUFFIXES = (".py", ".md", ".yaml", ".sh", ".toml")
NAMES = "|".join(PAGES)
NUMBER = r"\d+(?:\.\d+)*"
CITED = re.compile(rf"\b({NAMES})(?:\.md)?`?,? (?:sections? )?({NUMBER})((?:(?:,| and| to) {NUMBER})*)(?![\d%])")
CITED_AFTER = re.compile(rf"\bsections? ({NUMBER})() of `?(?:docs/design/)?({NAMES})\b")
OWN_SECTION = re.compile(rf"(?<!\.md )(?<!\.md` )\bsections? ({NUMBER})((?: and {NUMBER})*)(?! of)")
DIFFERENCES = re.compile(r"METHOD 10, ((?:F\d+(?:, | to | and )?)+)")


def sections(page: str) -> set[str]:
    return set(re.findall(rf"^#+ ({NUMBER})\.? ", PAGES[page], re.MULTILINE))


def texts() -> dict[Path, str]:
    """Texts by path, each a single line, so that a citation may go over the end of one."""
    paths = {*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))}
    kept = [path for path in paths - {Path(__file__)} if path.suffix in SUFFIXES and "fixtures" not in path.parts]
    return {path: re.sub(r"\s*\n[\s#]*", " ", path.read_text(encoding="utf-8")) for path in kept}


TEXTS = texts()


def citations(text: str) -> list[tuple[str, str]]:
    """`(page, section)` of every citation; numbers that follow belong to the same page."""
    found = [
        (page, number) for page, first, more in CITED.findall(text) for number in [first, *re.findall(NUMBER, more)]
    ]
    return found + [(page, number) for number, _, page in CITED_AFTER.findall(text)]


def test_there_are_citations_and_they_exist() -> None:
    cited = {(path, *citation) for path, text in TEXTS.items() for citation in citations(text)}
    assert len(cited) > 60
    missing = [f"{path}: {page} {section}" for path, page, section in cited if section not in sections(page)]
    assert not missing


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_names_sections_of_its_own(page: str) -> None:
    text = CITED_AFTER.sub("", CITED.sub("", TEXTS[DESIGN / f"{page}.md"]))
    named = {number for first, more in OWN_SECTION.findall(text) for number in [first, *re.findall(NUMBER, more)]}
    assert named <= sections(page)


def test_differences_from_the_original_release_have_their_row() -> None:
    rows = set(re.findall(r"\bF\d+\b", PAGES["METHOD"]))
    for path, text in TEXTS.items():
        for named in DIFFERENCES.findall(text):
            assert set(re.findall(r"F\d+", named)) <= rows, path


def test_pages_that_are_named_by_file_exist() -> None:
    for path, text in TEXTS.items():
        for name in re.findall(r"(?<![\w/])docs/((?:guide|design|benchmarks)/[\w/-]+\.md)", text):
            assert (ROOT / "docs" / name).exists(), f"{path}: docs/{name}"


def test_an_unknown_section_would_be_noticed() -> None:
    text = "sums (METHOD 4.1 and 4.77, KERNELS 2.4), ONNX.md section 3, section 99 of `docs/design/GGUF.md`"
    found = {("METHOD", "4.1"), ("METHOD", "4.77"), ("KERNELS", "2.4"), ("ONNX", "3"), ("GGUF", "99")}
    assert set(citations(text)) == found


def test_every_room_and_place_that_is_named_exists() -> None:
    """In CONTRIBUTING and on the page that says where one would change what."""
    questions = (DESIGN / "where.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\| \d+\. .*\| `edgerazor/", questions, re.MULTILINE)) == 20
    named = re.findall(
        r"`((?:edgerazor|tests|docs|scripts)/[\w/.-]+)`", questions + (ROOT / "CONTRIBUTING.md").read_text()
    )
    assert all((ROOT / name).exists() for name in named), [name for name in named if not (ROOT / name).exists()]
    rooms = {path.parent.name for path in (ROOT / "edgerazor").glob("*/__init__.py")}
    assert rooms == {name.split("/")[1] for name in named if name.startswith("edgerazor/") and "." not in name}
