"""What the evaluation tests share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerank_plugins.evaluation import QuestionSet
from rerank_plugins.samples import LANGUAGES, load_passages, load_questions


@pytest.fixture(scope="session")
def samples() -> QuestionSet:
    """The package's sample corpus in four languages as a question set."""
    return QuestionSet(
        name="samples",
        corpus={p.id: p.text for language in LANGUAGES for p in load_passages(language)},
        queries={q.id: q.text for language in LANGUAGES for q in load_questions(language)},
        qrels={
            q.id: dict.fromkeys(q.relevant, 1.0)
            for language in LANGUAGES
            for q in load_questions(language)
        },
    )


@pytest.fixture
def folder(samples: QuestionSet, tmp_path: Path) -> Path:
    """The same in BEIR's layout."""
    out = tmp_path / "samples" / "all"
    out.mkdir(parents=True)
    for name, texts in (("corpus", samples.corpus), ("queries", samples.queries)):
        lines = [json.dumps({"id": key, "text": text}) for key, text in texts.items()]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [f"{query}\t{p}\t{int(g)}" for query, of in samples.qrels.items() for p, g in of.items()]
    text = "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"
    (out / "qrels.tsv").write_text(text, encoding="utf-8")
    return out
