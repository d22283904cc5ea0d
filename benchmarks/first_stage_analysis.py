"""What analysis brings together, how fast it is, and how large the index gets.

Meeting rates: of the nouns of SaudiNewsNet that stand there with the article and without, how
many have one term; likewise behind و ل ب ك ف س, where the bare word is common; of the accented
words of FQuAD and PoQuAD, how many have the term that they have without accents. Speed: process
CPU time of analysis and vocabulary. Size: a saved index less the texts.

Usage: python benchmarks/first_stage_analysis.py --data DIR [--articles 24124]

With another checkout first on PYTHONPATH it measures that one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
import unicodedata
from collections import Counter
from pathlib import Path

import regex

from rerank_plugins.first_stage import BM25, analyzer_for

_WORD = regex.compile(r"[\p{L}\p{M}]+")
_MARKS = regex.compile("[\u0640\u064b-\u065f\u0670]")
_PLAIN = str.maketrans({"ł": "l", "Ł": "L", "œ": "oe", "Œ": "Oe", "æ": "ae", "ø": "o"})
_SETS = {
    "ar": "saudinewsnet-ar/train",
    "fr": "piaf-fr/all",
    "pl": "poquad-pl/dev",
    "en": "squadshifts-amazon-en/all",
}


def read(data: Path, split: str, most: int | None = None) -> list[str]:
    """The passages of a set."""
    with gzip.open(data / split / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines][:most]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--articles", type=int, default=None)
    options = parser.parse_args()
    news = read(options.data, _SETS["ar"], options.articles)
    arabic_meeting(news)
    for language, split in (("fr", "fquad-fr/valid"), ("pl", "poquad-pl/dev")):
        accents(language, read(options.data, split))
    for language, split in _SETS.items():
        speed_and_size(language, news if language == "ar" else read(options.data, split))


def arabic_meeting(news: list[str]) -> None:
    """Pairs of a word and the same behind an article or a clitic."""
    counts = Counter(word for text in news for word in _WORD.findall(_MARKS.sub("", text)))
    analyzer = analyzer_for("ar")
    for prefix in ("ال", "و", "ل", "ب", "ف", "ك", "س"):
        least, common = {"ال": (2, 1), "س": (4, 20)}.get(prefix, (3, 20))
        pairs = [
            (word, prefix + word)
            for word, count in counts.items()
            if len(word) >= least
            and count >= common
            and prefix + word in counts
            and not word.startswith(("له", "ال"))
            and (prefix != "س" or word[0] in "يتنأا")
        ]
        # A query asks for all its terms: the stem, and that of a second reading.
        met = sum(not set(analyzer.query(one)).isdisjoint(analyzer(other)) for one, other in pairs)
        print(
            f"behind {prefix}: {len(pairs)} pairs, {met / max(len(pairs), 1):.2%} meet", flush=True
        )


def accents(language: str, texts: list[str]) -> None:
    """Words and the same without accents."""
    analyzer = analyzer_for(language)
    words = {word for text in texts for word in _WORD.findall(unicodedata.normalize("NFC", text))}
    bare = {word: _bare(word) for word in words}
    accented = [word for word in words if bare[word] != word]
    met = sum(set(analyzer(word)) == set(analyzer(bare[word])) for word in accented)
    print(f"{language}: {len(accented)} accented words, {met / len(accented):.2%} meet", flush=True)


def _bare(word: str) -> str:
    marks = regex.sub(r"\p{Mn}", "", unicodedata.normalize("NFD", word.translate(_PLAIN)))
    return unicodedata.normalize("NFC", marks)


def speed_and_size(language: str, texts: list[str]) -> None:
    """Characters a second of a new process, and bytes of the index for each character."""
    analyzer = analyzer_for(language)
    if hasattr(analyzer, "_memo"):
        analyzer._memo.clear()  # noqa: SLF001  (as in a new process)
    analyzer("warm up")
    vocabulary: dict[str, int] = {}
    start = time.process_time()
    words = 0
    for text in texts:
        words += len([vocabulary.setdefault(term, len(vocabulary)) for term in analyzer(text)])
    seconds = time.process_time() - start
    characters = sum(map(len, texts))
    with tempfile.TemporaryDirectory() as folder:
        BM25(texts, language=language).save(f"{folder}/index")
        size = sum(
            file.stat().st_size
            for file in Path(folder).rglob("*")
            if file.is_file() and file.name != "texts.jsonl"
        )
    print(
        f"{language}: {characters / 1e6:.2f} million characters, {characters / seconds / 1e6:.2f} "
        f"million a second; {words} terms, {len(vocabulary)} distinct, index {size / 1e6:.2f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
