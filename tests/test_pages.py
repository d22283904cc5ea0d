"""README and documentation keep their word: blocks run, commands parse, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pages
import pytest

from rerank_plugins.cli import parser

ALL = [page for page in (pages.README, *pages.PAGES) if page.is_file()]

pytestmark = pytest.mark.skipif(
    not ALL, reason="the pages are not beside the tests (installed package only)"
)


def name(page: Path) -> str:
    """Path within the repository."""
    return page.relative_to(pages.ROOT).as_posix()


def some(language: str) -> list[Path]:
    """Pages that have blocks of that language."""
    return [page for page in ALL if pages.blocks(page, language)]


@pytest.mark.parametrize("page", some("python"), ids=name)
def test_python_blocks_run_and_print_what_the_page_shows(page, monkeypatch, tmp_path):
    """In an empty folder, with no network. ``make outputs`` brings the page up to date."""
    monkeypatch.chdir(tmp_path)
    for block, printed in pages.outputs(page):
        if block.output is not None:
            assert printed == block.output.code, f"{name(page)}, line {block.line}"


@pytest.mark.parametrize("page", ALL, ids=name)
def test_tables_are_those_of_the_package(page):
    """Whole in the page, since the code host shows it as it is; ``make outputs`` writes them."""
    text = page.read_text(encoding="utf-8")
    assert pages.with_tables(text) == text
    assert re.search(r"%[A-Z]+%", text) is None


def test_the_right_passage_comes_first_in_each_example_of_the_readme(monkeypatch, tmp_path):
    """A page that shows a wrong ranking sells nothing."""
    monkeypatch.chdir(tmp_path)
    rankings = [block.output.code for block in pages.blocks(pages.README, "python") if block.output]
    assert len(rankings) >= 3
    assert all(shown.splitlines()[0].split()[0] == "hours" for shown in rankings), rankings


def test_the_readme_shows_both_frameworks_and_none():
    """LangChain, LlamaIndex, plain."""
    code = "\n".join(block.code for block in pages.blocks(pages.README, "python"))
    for module in ("rerank_plugins.langchain", "rerank_plugins.llama_index", "load_reranker"):
        assert module in code


@pytest.mark.parametrize("page", some("bash"), ids=name)
def test_commands_exist(page):
    """``rerank-plugins`` lines parse, and make targets are in the Makefile."""
    makefile = (pages.ROOT / "Makefile").read_text(encoding="utf-8")
    for block in pages.blocks(page, "bash"):
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line.split(" > ")[0].split(" < ")[0].split(" | ")[0], comments=True)
            if words[:1] == ["rerank-plugins"]:
                parser().parse_args(words[1:])
            elif words[:1] == ["make"]:
                target = re.escape(words[1])
                assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), line


REPOSITORY = "https://github.com/rerank-plugins/rerank-plugins/"


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_within_the_repository_lead_somewhere(page):
    """Relative ones, and absolute ones to files of the main branch."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    for target in (unquote(one or other) for one, other in targets):
        path, _, _ = target.partition("#")
        in_repository = re.match(
            rf"(?:{REPOSITORY}(?:blob|raw|tree)|https://raw.githubusercontent.com/"
            r"rerank-plugins/rerank-plugins)/main/(.*)",
            path,
        )
        if in_repository:
            assert (pages.ROOT / in_repository[1]).exists(), target
        elif path and "://" not in path and not path.startswith("mailto:"):
            assert (page.parent / path).exists(), target


def test_the_package_index_shows_a_readme_whose_links_work():
    """There, a relative link leads nowhere."""
    text = pages.README.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    assert [one or other for one, other in targets if "://" not in (one or other)] == []
