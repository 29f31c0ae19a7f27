"""The rules that every notebook keeps: nbval compares its outputs, this file looks at its form."""

import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import attnmask
from attnmask import conventions
from attnmask.conventions import as_markdown
from write_cheat_sheet import COLUMNS

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "book").glob("*/*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if path.stem[:2].isdigit()]  # the others are for practice
PAGES = [*NOTEBOOKS, *sorted((ROOT / "book").rglob("*.md")), ROOT / "README.md", ROOT / "companion" / "README.md"]
# Every cell whose run is not compared as usual, by the tag that says so. A cell that nbval skips would be named here.
TAGGED = {"raises-exception": {"03-03"}}
HARMLESS_TAGS = {"full-width", "table-of-libraries"}
# What a reader can take in: words of prose in a chapter, lines of code in a cell. Cells that need more are named here.
WORDS, LINES = 2400, 20
LONGER_CELLS: set[str] = set()
PATH_OF_A_MACHINE = re.compile(r"(?<![\w.:/])/(work|tmp|root|opt|home|Users)/|[A-Z]:\\|site-packages")


def cells(path, kind=None):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


def prose(path):
    return "\n\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))


def title_of(path):
    return "".join(cells(path)[0]["source"]).splitlines()[0].removeprefix("# ")


def draws(cell):
    return any("image/png" in output.get("data", {}) for output in cell["outputs"])


every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_every_notebook_is_in_the_table_of_contents_and_the_other_way_round():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    pages = NOTEBOOKS + sorted((ROOT / "book" / "reference").glob("*.md"))
    assert listed == [str(path.relative_to(ROOT).with_suffix("")) for path in pages]


@every_notebook
def test_every_code_cell_has_run_in_order_and_kept_its_count(path):
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_every_picture_has_alt_text_a_caption_and_a_name_of_its_own(path):
    for cell in cells(path, "code"):
        described = cell["metadata"].get("mystnb", {})
        assert draws(cell) == ("image" in described), cell["id"]
        if draws(cell):
            # A result beside the picture would be shown as `<Axes …>`, under the picture's name.
            assert "execute_result" not in {output["output_type"] for output in cell["outputs"]}, cell["id"]
            assert len(described["image"]["alt"]) >= 60, cell["id"]
            assert described["figure"]["caption"].endswith("."), cell["id"]
            assert described["figure"]["name"].startswith("fig-"), cell["id"]


def test_picture_names_are_unique():
    names = [
        cell["metadata"]["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in cells(path, "code")
        if draws(cell)
    ]
    assert len(names) == len(set(names)) >= 15


@every_notebook
def test_headings_come_in_order(path):
    without_code = re.sub(r"```.*?```", "", prose(path), flags=re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", without_code, flags=re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@every_notebook
def test_a_sentence_stands_before_every_cell(path):
    kinds = [cell["cell_type"] for cell in cells(path)]
    assert kinds[0] == "markdown"
    assert ("code", "code") not in set(pairwise(kinds))


@every_notebook
def test_a_chapter_is_read_in_a_quarter_of_an_hour(path):
    assert len(prose(path).split()) <= WORDS
    longer = {cell["id"] for cell in cells(path, "code") if len("".join(cell["source"]).splitlines()) > LINES}
    assert longer == {name for name in LONGER_CELLS if name.startswith(path.stem[:2])}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_to_a_chapter_bears_its_title_or_its_number(page):
    """The number alone in the cheat-sheet and as "chapter 13", number and title on the landing page, else the title."""
    text = prose(page) if page.suffix == ".ipynb" else page.read_text(encoding="utf-8")
    assert not re.search(r"\b[Cc]hapters? \d", re.sub(r"\[[^]]*\]\([^)]*\)", "", text)), "a chapter that is not linked"
    for words, target in re.findall(r"\[([^]]*)\]\(([^)\s]*\.ipynb)\)", text):
        path = (page.parent / target).resolve()
        assert path in NOTEBOOKS, target
        names = {title_of(path)}
        if path in CHAPTERS:
            number = path.stem[:2]
            names |= {number, f"{number} {title_of(path)}", f"chapter {int(number)}"}
        assert " ".join(words.split()) in names, words


def test_the_readme_links_every_chapter():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"[{title_of(path)}]({path.relative_to(ROOT)})" in readme for path in NOTEBOOKS)


@every_chapter
def test_a_chapter_has_its_four_parts(path):
    text = prose(path)
    opening = text.split("## ")[0]
    for promise in ("**What you will do:**", "**What you need:**", "**Runs in:**"):
        assert promise in opening, promise
    assert "{admonition} Predict" in text
    in_one_breath = re.search(r"## In one breath\n(.*?)\n## ", text, flags=re.DOTALL)[1]
    assert len(re.findall(r"[.?](?:\s|$)", in_one_breath.strip())) == 3
    check_yourself = text.split("## Check yourself")[1]
    assert re.findall(r"^\*\*(\d)\.\*\*", check_yourself, flags=re.MULTILINE) == ["1", "2", "3"]
    assert check_yourself.count(":::{dropdown} Answer") == 3


@every_chapter
def test_every_answer_is_backed_by_a_cell(path):
    all_cells = cells(path)
    answers = [i for i, cell in enumerate(all_cells) if "{dropdown} Answer" in "".join(cell["source"])]
    assert len(answers) == 3
    assert all(all_cells[i + 1]["cell_type"] == "code" for i in answers)


def test_tags_are_counted_and_known():
    found = {}
    for path in NOTEBOOKS:
        for cell in cells(path):
            for tag in cell["metadata"].get("tags", []):
                found.setdefault(tag, set()).add(cell["id"])
    assert {tag: where for tag, where in found.items() if tag not in HARMLESS_TAGS} == TAGGED


@every_notebook
def test_no_output_holds_a_path_of_a_machine(path):
    outputs = json.dumps([cell["outputs"] for cell in cells(path, "code")])
    outputs = re.sub(r'"image/png": "[^"]*"', "", outputs)
    assert not PATH_OF_A_MACHINE.search(outputs)


@every_notebook
def test_a_notebook_is_light(path):
    assert path.stat().st_size < 500_000


@every_notebook
def test_a_notebook_says_nothing_of_the_machine_it_ran_on(path):
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert set(metadata) == {"kernelspec", "language_info"}
    assert "version" not in metadata["language_info"]


def test_no_tracked_text_holds_a_path_of_a_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    names = [name for name in tracked if Path(name).suffix != ".png" and name != "tests/test_book.py"]
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in names}
    for name, text in texts.items():
        assert name.endswith(".ipynb") or not PATH_OF_A_MACHINE.search(text), name
        # The companion is on no package index: a name there would be a stranger's.
        assert not re.search(r"pip install [^`\n]*\battnmask", text), name


def test_the_landing_page_names_every_chapter_and_describes_its_picture():
    landing = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        number = f"{path.stem[:2]} " if path in CHAPTERS else ""
        assert f"[{number}{title_of(path)}]({path.relative_to(ROOT / 'book')})" in landing
    assert landing.count("```{figure}") == len(re.findall(r"^:alt: .{60,}$", landing, flags=re.MULTILINE)) > 0


def test_the_cheat_sheet_shows_the_table_of_conventions_as_it_is():
    sheet = (ROOT / "book" / "reference" / "cheat-sheet.md").read_text(encoding="utf-8")
    assert as_markdown(COLUMNS) in sheet


def test_the_cheat_sheet_names_functions_that_there_are():
    sheet = (ROOT / "book" / "reference" / "cheat-sheet.md").read_text(encoding="utf-8")
    symptoms = sheet.split("## What every library means")[0]
    called = set(re.findall(r"`(\w+)\(", symptoms))
    assert len(called) >= 8
    assert all(hasattr(attnmask, name) or hasattr(conventions, name) for name in called)
