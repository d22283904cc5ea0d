"""Probabilities and thresholds fitted on judgements."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from texts import ALL_PASSAGES, QUESTIONS

from rerank_plugins import Reranker
from rerank_plugins.cli import main
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.calibration import CalibratedScorer, Calibration, calibrate
from rerank_plugins.models.loading import load_reranker, load_scorer
from rerank_plugins.scoring.agreement import LabelledList
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.testing import ScorerConformance

SCALE, OFFSET = 2.0, -1.0


class Overconfident:
    """Gives logits of which only ``SCALE * x + OFFSET`` are true ones."""

    name = "overconfident"
    first_stage_weight = 0.0

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """The passage is the logit."""
        logits = np.asarray([float(passage) for _, passage in pairs])
        return PairScores(logits, np.zeros(len(pairs), np.bool_))

    def describe(self) -> dict[str, str]:
        """Nothing but the name."""
        return {"model": self.name}


def judged(queries: int, passages: int = 12) -> list[LabelledList]:
    """Relevance drawn with the true probability of each logit."""
    random = np.random.default_rng(3)
    lists = []
    for number in range(queries):
        logits = random.normal(0.0, 1.5, passages)
        true = 1 / (1 + np.exp(-(SCALE * logits + OFFSET)))
        grades = (random.random(passages) < true).astype(float)
        lists.append(LabelledList(f"q{number}", [repr(float(x)) for x in logits], grades.tolist()))
    return lists


def test_the_true_scale_and_offset_are_found_and_probabilities_become_true() -> None:
    """By maximum likelihood, on thousands of pairs."""
    report = calibrate(Overconfident(), judged(1200), precision=0.8)
    assert report.calibration.scale == pytest.approx(SCALE, rel=0.1)
    assert report.calibration.offset == pytest.approx(OFFSET, abs=0.15)
    assert report.after.calibration_error < 0.03 < report.before.calibration_error
    assert report.after.log_loss < report.before.log_loss
    assert report.after.brier < report.before.brier


def test_the_threshold_keeps_the_precision_on_queries_it_has_not_seen() -> None:
    """Within its interval."""
    report = calibrate(Overconfident(), judged(1200), precision=0.8)
    low, high = report.interval
    assert low <= 0.8 <= high + 0.03
    assert 0 < report.answered < 1
    assert report.refused > 0.5


def test_a_calibrated_ranking_has_the_same_order_and_other_probabilities() -> None:
    """The logit moves, nothing else."""
    scorer = Overconfident()
    calibration = Calibration("overconfident", SCALE, OFFSET)
    passages = ["0.5", "-1.5", "2.0"]
    plain = Reranker(scorer).rerank("q", passages)
    found = Reranker(CalibratedScorer(scorer, calibration)).rerank("q", passages)
    assert found.texts == plain.texts
    assert [item.logit for item in found] == pytest.approx([3.0, 0.0, -4.0])
    assert found.scores == pytest.approx([0.9526, 0.5, 0.018], abs=1e-3)


class TestCalibratedScorer(ScorerConformance):
    """What every scorer promises."""

    @pytest.fixture
    def scorer(self, tiny_checkpoints: Mapping[str, Path]) -> CalibratedScorer:
        """Of a tiny checkpoint."""
        scorer = load_scorer(tiny_checkpoints["rstar"])
        return CalibratedScorer(scorer, Calibration(scorer.name, 0.5, 1.0))


def test_a_calibration_is_kept_beside_the_model_and_used_by_name(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file or its folder; another model's is told."""
    folder = tiny_checkpoints["rstar"]
    file = Calibration(str(folder), 0.5, 1.0).save(tmp_path)
    assert file.name == "calibration.json"
    plain = load_reranker(folder).rerank(QUESTIONS["ar"], ALL_PASSAGES)
    for calibration in (file, tmp_path, Calibration.load(file)):
        with caplog.at_level(logging.WARNING):
            found = load_reranker(folder, calibration=calibration).rerank(
                QUESTIONS["ar"], ALL_PASSAGES
            )
        assert found.keys == plain.keys
        assert found[0].logit == pytest.approx(0.5 * plain[0].logit + 1.0)
    assert "calibration" not in caplog.text
    load_reranker(tiny_checkpoints["bge"], calibration=file)
    assert "calibration of" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"model": "x", "scale": "wide", "offset": 0}',
        '{"model": 1, "scale": -1, "offset": 0}',
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path: Path, content: str) -> None:
    """Before any model is loaded."""
    file = tmp_path / "calibration.json"
    file.write_text(content)
    with pytest.raises(InvalidInputError):
        load_reranker(calibration=file)
    with pytest.raises(InvalidInputError, match="calibration must be"):
        load_reranker(calibration=3)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_reranker(calibration=tmp_path / "none.json")


@pytest.mark.parametrize(
    ("lists", "precision", "said"),
    [
        (judged(6), 1.5, "between 0 and 1"),
        ([], 0.9, "at least 4 queries"),
        ([LabelledList("q", ["1", "2"], [1.0, 1.0])] * 8, 0.9, "at least 4 queries"),
        ([LabelledList("q", ["1", "2"], [1.0, 0.0])] * 8, 0.9, "higher than others"),
    ],
)
def test_judgements_that_fit_nothing_are_named(
    lists: list[LabelledList], precision: float, said: str
) -> None:
    """Instead of a calibration that turns the order round."""
    with pytest.raises(InvalidInputError, match=said):
        calibrate(Overconfident(), lists, precision=precision)


def test_the_command_fits_keeps_and_tells(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in BEIR's layout in, a file out that load_reranker takes."""
    data = tmp_path / "data"
    (data / "qrels").mkdir(parents=True)
    corpus = [{"_id": str(n), "text": text} for n, text in enumerate(ALL_PASSAGES)]
    (data / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    scorer = load_scorer(tiny_checkpoints["bge"])
    queries, qrels = [], ["query-id\tcorpus-id\tscore"]
    for number, text in enumerate(ALL_PASSAGES):
        # What the tiny model likes is called relevant, so that a scale above 0 fits.
        logits = scorer.score([(text, other) for other in ALL_PASSAGES], ScoreOptions()).logits
        queries.append({"_id": f"q{number}", "text": text})
        qrels += [f"q{number}\t{place}\t1" for place in np.argsort(-logits)[:4]]
    (data / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (data / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n")
    out = tmp_path / "kept.json"
    arguments = ["calibrate", "--dataset", str(data), "--model", str(tiny_checkpoints["bge"])]
    assert main([*arguments, "--precision", "0.5", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "calibration error" in told
    assert "score_threshold=" in told
    assert Calibration.load(out).scale > 0
    assert main([*arguments, "--out", str(tmp_path / "none" / "x.json")]) == 2
