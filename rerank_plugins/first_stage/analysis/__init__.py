"""From text to search terms, for Arabic, French, Polish, English, and corpora that mix them.

`analyzers` is the road that a text takes; each step is a file: `pieces` (the cut at white
space), `normalization` (one spelling for what Unicode writes in several), `identifiers` (the cut
into words, numbers, identifiers and symbols), `arabic`, `latin` (French, Polish, English) with
`snowball`, `polish` and `irregular`, `queries` with `stop_words`, `detection` (of a language). A
change of what any step gives raises `VERSION`.
"""

from rerank_plugins.first_stage.analysis.analyzers import (
    LANGUAGES,
    VERSION,
    Analyzer,
    LanguageAnalyzer,
    MixedAnalyzer,
    analyzer_for,
)
from rerank_plugins.first_stage.analysis.detection import detect_language
from rerank_plugins.first_stage.analysis.spans import word_spans

__all__ = [
    "LANGUAGES",
    "VERSION",
    "Analyzer",
    "LanguageAnalyzer",
    "MixedAnalyzer",
    "analyzer_for",
    "detect_language",
    "word_spans",
]
