"""Screenshots of what the library shows in a browser: `make pictures`, and test_pictures.

Pages are those of the samples. Chromium is started without any profile and without network
separate services; nothing is fetched.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rerank_plugins import Reranker
from rerank_plugins.display import ranking_html
from rerank_plugins.evaluation import QuestionSet, compare, html_report
from rerank_plugins.first_stage import BM25
from rerank_plugins.samples import load_passages, load_questions

Scheme = Literal["light", "dark"]

WIDTHS = (1200, 420)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
DOCS = Path(__file__).parents[1] / "docs"
_HEIGHT = 2400
_README_WIDTH, _README_HEIGHT = 960, 430
_SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
)


def chromium() -> str | None:
    """Path of the browser; None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def screenshot(page: Path, out: Path, width: int, scheme: Scheme, height: int = _HEIGHT) -> None:
    """A PNG of the page as that wide a window shows it, cut off below ``height``."""
    from PIL import Image

    # The window's own bar takes a part of its height, which stays blank in the picture.
    size = f"--window-size={width},{height + 200}"
    _run(page, f"--screenshot={out}", size, *_scheme(scheme))
    with Image.open(out) as whole:
        whole.crop((0, 0, width, height)).save(out, optimize=True)


def overflow(page: Path, width: int) -> int:
    """Pixels by which the page, or a scrolled part of it, is wider than that wide a window."""
    script = (
        "<script>let most = document.documentElement.scrollWidth - innerWidth;"
        "for (const e of document.querySelectorAll('.wide, .rrk'))"
        " most = Math.max(most, e.scrollWidth - e.clientWidth);"
        "document.title = 'overflow ' + most;</script>"
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "page.html")
        copy.write_text(page.read_text(encoding="utf-8") + script, encoding="utf-8")
        dom = _run(copy, "--dump-dom", f"--window-size={width},{_HEIGHT}")
    found = re.search(r"<title>overflow (-?\d+)</title>", dom)
    assert found, "the page ran no script"
    return int(found[1])


def write_pages(folder: Path, reranker: Reranker) -> dict[str, Mapping[Scheme, Path]]:
    """Pages by name and scheme: rankings in a bare page and in JupyterLab's, and a report."""
    arabic, english = ranking(reranker, "ar"), ranking(reranker, "en")
    pages: dict[str, Mapping[Scheme, Path]] = {}
    for name, piece in (("ranking-ar", arabic), ("ranking-en", english)):
        path = folder / f"{name}.html"
        path.write_text(
            '<!DOCTYPE html><html><head><meta charset="utf-8"><title></title>'
            '<meta name="viewport" content="width=device-width">'
            '<meta name="color-scheme" content="light dark"></head>'
            f'<body style="margin:12px">{piece}</body></html>',
            encoding="utf-8",
        )
        pages[name] = dict.fromkeys(SCHEMES, path)
    pages["notebook"] = {
        scheme: _notebook(folder / f"notebook-{scheme}.html", scheme, arabic, english)
        for scheme in SCHEMES
    }
    pages["report"] = dict.fromkeys(SCHEMES, _report(folder / "report.html", reranker))
    return pages


def ranking(reranker: Reranker, language: str) -> str:
    """The first sample question of a language as HTML."""
    passages, question = load_passages(language), load_questions(language)[0]
    bm25 = BM25([passage.text for passage in passages], language=language)
    return ranking_html(
        reranker.rerank(question.text, bm25.search(question.text, 20), top_n=5),
        labels={key: passage.title for key, passage in enumerate(passages)},
        relevant=[key for key, one in enumerate(passages) if one.id in question.relevant],
        first_stage="BM25",
    )


def _notebook(path: Path, scheme: Scheme, *pieces: str) -> Path:
    """The pieces as outputs of a notebook, in JupyterLab's own stylesheet."""
    import nbformat
    from nbconvert import HTMLExporter

    cells = []
    for piece in pieces:
        cell = nbformat.v4.new_code_cell("ranking")
        data = {"text/html": piece, "text/plain": ""}
        cell.outputs = [nbformat.v4.new_output("execute_result", data=data, execution_count=1)]
        cells.append(cell)
    exporter = HTMLExporter(template_name="lab", theme=scheme)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    html, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    # What the template would fetch, equations and diagrams, is not in the picture.
    html = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)
    path.write_text(html, encoding="utf-8")
    return path


def _report(path: Path, reranker: Reranker) -> Path:
    comparisons = []
    for language in ("ar", "pl"):
        passages, questions = load_passages(language), load_questions(language)
        data = QuestionSet(
            name=f"samples/{language}",
            corpus={passage.id: passage.text for passage in passages},
            queries={question.id: question.text for question in questions},
            qrels={question.id: dict.fromkeys(question.relevant, 1.0) for question in questions},
        )
        texts = list(data.corpus.values())
        stages: dict[str, Any] = {
            "BM25": BM25(texts, language=language),
            "split()": BM25(texts, analyzer=str.split),
        }
        comparisons.append(
            compare(data, stages, {reranker.model: reranker}, candidates=20, alone=["split()"])
        )
    command = "rerank-plugins evaluate --dataset samples/ar samples/pl --report report.html"
    html_report(comparisons, path, command=command)
    return path


def _scheme(scheme: Scheme) -> Iterator[str]:
    if scheme == "dark":
        yield "--blink-settings=preferredColorScheme=0"


def _run(page: Path, *switches: str) -> str:
    browser = chromium()
    assert browser is not None, "Chromium is not installed"
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *_SWITCHES, f"--user-data-dir={profile}", *switches, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def main(folder: Path) -> None:
    """Takes all pictures, and those that the README shows."""
    from PIL import Image

    from rerank_plugins import load_reranker

    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    pages = write_pages(folder, load_reranker())
    for name, by_scheme in pages.items():
        for scheme, page in by_scheme.items():
            for width in WIDTHS:
                out = folder / f"{name}-{width}-{scheme}.png"
                screenshot(page, out, width, scheme)
                sys.stdout.write(f"{out}\n")
    for scheme in SCHEMES:
        out = DOCS / f"ranking-{scheme}.png"
        screenshot(pages["ranking-ar"][scheme], out, _README_WIDTH, scheme, _README_HEIGHT)
        with Image.open(out) as whole:  # few colours: a third of the size
            whole.convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    if chromium() is None:
        sys.exit("Chromium is not installed; on Debian: apt-get install chromium fonts-noto-core")
    main(Path(sys.argv[1]))
