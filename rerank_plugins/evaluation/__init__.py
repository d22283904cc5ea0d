"""Which reranker for my data? Measures, comparisons, tests of significance, reports.

Needs the extra ``evaluation``::

    data = read_question_set("my-questions")
    bm25 = BM25(data.corpus.values())
    print(compare(data, {"BM25": bm25}, ["bundled"], queries=100).table())
"""

from rerank_plugins.evaluation.compare import compare
from rerank_plugins.evaluation.data import (
    LabelledPairs,
    QuestionSet,
    read_pairs,
    read_qrels,
    read_question_set,
    read_run,
    sample_queries,
)
from rerank_plugins.evaluation.measures import Values, evaluate_rankings, parse_measures
from rerank_plugins.evaluation.presets import PRESETS, Preset, preset
from rerank_plugins.evaluation.report import html_report
from rerank_plugins.evaluation.results import Comparison
from rerank_plugins.evaluation.significance import bootstrap_interval, holm, randomization_test
from rerank_plugins.evaluation.systems import Difference, Hurt, ScoredPassages, SystemResult
from rerank_plugins.evaluation.tables import table
from rerank_plugins.evaluation.verdict import Verdict, verdicts

__all__ = [
    "PRESETS",
    "Comparison",
    "Difference",
    "Hurt",
    "LabelledPairs",
    "Preset",
    "QuestionSet",
    "ScoredPassages",
    "SystemResult",
    "Values",
    "Verdict",
    "bootstrap_interval",
    "compare",
    "evaluate_rankings",
    "holm",
    "html_report",
    "parse_measures",
    "preset",
    "randomization_test",
    "read_pairs",
    "read_qrels",
    "read_question_set",
    "read_run",
    "sample_queries",
    "table",
    "verdicts",
]
