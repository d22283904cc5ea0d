"""How well the first stage finds passages for real questions, where the data is available."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_arabic_analysis_reaches_its_mark_on_arcd() -> None:
    """MRR@10 on ARCD is at least .765, and far above what splitting at spaces gives."""
    data = Path(os.environ.get("RERANK_PLUGINS_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "arcd-ar").is_dir():
        pytest.skip(f"no ARCD in {data}; set RERANK_PLUGINS_DATA to the folder that has arcd-ar/")
    pytest.importorskip("ir_measures")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import first_stage_quality as quality
    finally:
        sys.path.pop(0)
    language, splits = quality.SETS["ARCD"]
    questions = quality.Questions.read(data, splits)
    assert len(questions.queries) > 1000
    before = quality.split_by_spaces(questions)
    assert before < 0.56
    assert quality.analysed(questions, language) >= 0.765
    assert quality.analysed(questions, "auto", "bm25s") >= 0.765
