"""int8: calibrated on real pairs, its agreement with fp32 measured, kept and told."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import PAIRS, PASSAGES, QUESTIONS

from rerank_plugins import load_reranker
from rerank_plugins.cli import EXIT_BAD_INPUT, main
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.calibration import Calibration
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.samples import load_questions
from rerank_plugins.scoring import (
    converted,
    engines,
    nncf_quantization,
    quantization,
    quantization_data,
)
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.scoring.engines import EngineName
from rerank_plugins.scoring.local import LocalScorer
from rerank_plugins.scoring.quantization import LabelledList, agreement, quantize
from rerank_plugins.scoring.torch_engine import TorchEngine

if find_spec("nncf") is None:  # not imported: that is the library's part, with care
    pytest.skip("needs the extra openvino", allow_module_level=True)

LABELLED = [
    LabelledList(QUESTIONS[language], PASSAGES[language], [1.0, 0.0, 0.0, 0.0, 0.0])
    for language in QUESTIONS
]


class Told:
    """A scorer whose logits are given by text."""

    def __init__(self, logits: Mapping[str, float]) -> None:
        self.logits = logits

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """One per pair, whatever the query."""
        values = np.array([self.logits[passage] for _, passage in pairs])
        return PairScores(values, np.zeros(len(pairs), dtype=bool))


@pytest.fixture(scope="module")
def quantized(
    tiny_checkpoints: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object]]:
    """A checkpoint with an int8 model beside it, and the report."""
    folder = tmp_path_factory.mktemp("int8") / "model"
    shutil.copytree(tiny_checkpoints["rstar"], folder)
    return folder, quantize(
        load_scorer(folder, engine="openvino"), pairs=PAIRS[:12], labelled=LABELLED
    )


def test_int8_is_another_model_beside_the_fp32_one(
    quantized: tuple[Path, dict[str, object]],
) -> None:
    """Coarser logits of the same pairs, kept apart; how coarse, random weights do not tell."""
    folder, report = quantized
    fp32, int8 = (load_scorer(folder, engine="openvino", precision=p) for p in ("fp32", "int8"))
    one, other = (scorer.score(PAIRS, ScoreOptions()).logits for scorer in (fp32, int8))
    assert np.abs(one - other).max() > 1e-4, "nothing was quantized"
    assert -1.0 <= report["kendall_tau"] < 1.0
    told = int8.describe()
    assert (told["engine"], told["precision"]) == ("openvino", "int8")
    exact = load_scorer(folder, device="cpu", engine="torch", precision="fp32")
    expected = exact.score(PAIRS, ScoreOptions()).logits
    np.testing.assert_allclose(one, expected, atol=1e-4)


def test_the_report_is_what_can_be_measured_again_and_is_kept(
    quantized: tuple[Path, dict[str, object]],
) -> None:
    """In ``describe()``, as JSON, and equal to a measurement of the two scorers."""
    folder, report = quantized
    reranker = load_reranker(folder, engine="openvino", precision="int8")
    assert json.loads(json.dumps(reranker.describe()))["agreement"] == report
    assert report["measured_on"] == "labelled lists"
    assert report["calibrated_on"] == "own pairs"
    assert report["calibration_pairs"] == 12
    assert (report["queries"], report["pairs"]) == (4, 20)
    fp32 = load_scorer(folder, engine="openvino", precision="fp32")
    found = agreement(fp32, load_scorer(folder, engine="openvino", precision="int8"), LABELLED)
    for name, value in found.items():
        assert report[name] == pytest.approx(value, abs=1e-5), name


def test_a_new_quantization_replaces_the_kept_one(
    quantized: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    """One int8 model a checkpoint: the last one that was asked for."""
    folder = shutil.copytree(quantized[0], tmp_path / "copy")
    before = sorted((folder / converted.FOLDER).iterdir())
    report = quantize(load_scorer(folder, engine="openvino"), pairs=PAIRS[:6])
    assert report["measured_on"] == "the calibration pairs"
    assert report["ndcg_at_10"] is None
    assert sorted((folder / converted.FOLDER).iterdir()) == before
    assert (
        load_scorer(folder, engine="openvino", precision="int8").describe()["agreement"] == report
    )


def test_a_calibration_written_into_the_folder_keeps_the_int8_model(
    quantized: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    """It changes no logit: what was made of the checkpoint stays its own."""
    folder = shutil.copytree(quantized[0], tmp_path / "model")
    before = load_scorer(folder).fingerprint()
    Calibration(str(folder), 1.5, 0.25).save(folder)
    assert load_scorer(folder).fingerprint() == before
    kept = load_scorer(folder, engine="openvino", precision="int8")
    assert kept.describe()["agreement"] == quantized[1]


def test_int8_without_a_kept_model_is_calibrated_on_four_languages(
    tiny_checkpoints: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By itself, at the first use; nothing of it on standard output, no logger class changed."""
    folder = shutil.copytree(tiny_checkpoints["camembert"], tmp_path / "model")
    monkeypatch.setattr(quantization_data, "CALIBRATION_PAIRS", 8)
    told = load_reranker(folder, engine="openvino", precision="int8").describe()
    assert told["agreement"]["calibrated_on"] == "samples"
    assert told["agreement"]["measured_on"] == "samples"
    assert set(told["agreement"]["ndcg_at_10"]) == {"fp32", "int8"}
    assert capfd.readouterr().out == ""
    assert logging.getLoggerClass() is logging.Logger


def test_sample_pairs_are_of_all_languages_and_never_those_measured_on() -> None:
    """Half the questions of each language to calibrate with, the other half to measure with."""
    calibrated = {query for query, _ in quantization_data.sample_pairs()}
    measured = {some.query for some in quantization_data.sample_lists(odd=True)}
    assert not calibrated & measured
    for language in ("ar", "fr", "pl", "en"):
        questions = {question.text for question in load_questions(language)}
        assert questions & calibrated
        assert questions & measured
    assert all(any(some.grades) for some in quantization_data.sample_lists(odd=True))


def test_agreement_of_a_scorer_with_itself_is_whole_and_with_its_reverse_is_none() -> None:
    """Tau is 1 and -1; the largest difference and nDCG@10 come out as by hand."""
    lists = [LabelledList("q", ["a", "b", "c"], [1.0, 0.0, 0.0])]
    up = Told({"a": 3.0, "b": 2.0, "c": 1.0})
    down = Told({"a": -3.0, "b": -2.0, "c": -1.0})
    same = agreement(up, up, lists)
    assert same["kendall_tau"] == 1.0
    assert same["largest_difference"] == 0.0
    assert same["ndcg_at_10"] == {"fp32": 1.0, "int8": 1.0}
    turned = agreement(up, down, lists)
    assert turned["kendall_tau"] == -1.0
    assert turned["largest_difference"] == 6.0
    assert turned["ndcg_at_10"]["int8"] == pytest.approx(1 / np.log2(4))  # the third of three
    assert turned["logit_deviation"] == pytest.approx(np.std([3.0, 2.0, 1.0]))


def test_what_is_spread_is_evenly_taken() -> None:
    """300 of many, the whole of few."""
    pairs = [(str(number), "p") for number in range(1000)]
    chosen = quantization_data.spread(pairs)
    assert len(chosen) == len(set(chosen)) == 300
    assert int(chosen[-1][0]) > 990
    assert quantization_data.spread(pairs[:7]) == pairs[:7]


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_any_number_of_pairs_can_be_calibrated_with_and_measured(sizes: list[int]) -> None:
    """Whole queries are kept apart for measuring; few pairs serve both, and the samples the rest.

    317 pairs used to leave 17 of as many queries, of which none had an order.
    """
    pairs = [(f"q{query}", f"p{at}") for query, size in enumerate(sizes) for at in range(size)]
    calibration, lists, measured_on = quantization_data.split(pairs)
    assert 1 <= len(calibration) <= 300
    assert set(calibration) <= set(pairs)
    assert lists
    assert all(len(some.passages) > 1 for some in lists)
    measured = {some.query for some in lists}
    if measured_on == "other pairs":
        assert not measured & {query for query, _ in calibration}
    elif measured_on == "samples":
        assert max(sizes) == 1
    if sum(size > 1 for size in sizes) > 1:
        assert measured_on == "other pairs"


def test_what_was_made_is_kept_when_measuring_breaks_off(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt loses the figures alone; the model needs no second calibration."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    folder = copied(tiny_checkpoints["rstar"], tmp_path / "model")
    monkeypatch.setattr(quantization, "agreement", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize(load_scorer(folder, engine="openvino"), pairs=PAIRS[:12])
    monkeypatch.setattr(nncf_quantization, "quantized", interrupted)
    told = load_scorer(folder, engine="openvino", precision="int8").describe()
    assert told["precision"] == "int8"
    assert "agreement" not in told


def copied(checkpoint: Path, folder: Path) -> Path:
    """Without what an earlier test converted: the session shares its checkpoints."""
    return shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("rerank-plugins-*"))


def test_int8_on_torch_is_measured_once_and_the_report_is_kept(
    tiny_checkpoints: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the first use, without OpenVINO or nncf; the next process reads what was found."""
    folder = copied(tiny_checkpoints["rstar"], tmp_path / "model")
    monkeypatch.setattr(engines, "openvino_installed", lambda: False)
    scorer = load_scorer(folder, precision="int8")
    told = json.loads(json.dumps(scorer.describe()))
    assert (told["engine"], told["precision"]) == ("torch", "int8")
    report = told["agreement"]
    assert (report["engine"], report["calibrated_on"]) == ("torch", None)
    assert (report["queries"], report["pairs"]) == (8, 80)
    assert "measuring once" in caplog.text
    assert (folder / converted.FOLDER_OF_FACTS).is_dir()
    assert not (folder / converted.FOLDER).exists()
    caplog.clear()
    again = LocalScorer(scorer.settings, engine=int8_engine_of(scorer))
    assert again.describe()["agreement"] == report
    assert "measuring once" not in caplog.text


def int8_engine_of(scorer: LocalScorer) -> TorchEngine:
    """Loaded anew: scorers of one process share what is loaded."""
    engine = quantization.int8_engine(scorer.settings, scorer.checkpoint, "torch")
    assert isinstance(engine, TorchEngine)
    return engine


def test_a_report_on_torch_that_cannot_be_kept_is_shown(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is lost: the weights are quantized while they load."""
    folder = copied(tiny_checkpoints["rstar"], tmp_path / "model")
    monkeypatch.setattr(converted, "places", lambda *_, **__: [])
    report = quantize(load_scorer(folder, engine="torch"), pairs=PAIRS[:12])
    assert report["measured_on"] == "own pairs"
    assert set(report["pairs_per_second"]) == {"default", "int8"}
    told = load_scorer(folder, engine="torch", precision="int8").describe()
    assert told["agreement"]["measured_on"] == "a part of the samples"


@pytest.mark.parametrize(
    ("tau", "int8", "speed", "said"),
    [
        (0.99, 0.80, 2.0, "Use it"),
        (0.90, 0.80, 2.0, "compare both"),
        (0.99, 0.79, 2.0, "compare both"),
        (0.99, 0.70, 2.0, "its order is another one"),
        (0.70, 0.80, 2.0, "its order is another one"),
        (0.99, 0.80, 0.9, "on this machine"),
        (None, 0.80, 2.0, "use other pairs"),
    ],
)
def test_advice_follows_order_and_speed(
    tau: float | None, int8: float, speed: float, said: str
) -> None:
    """A model that orders otherwise, or gains no time, is not to be used."""
    report = {
        "kendall_tau": tau,
        "ndcg_at_10": {"fp32": 0.80, "int8": int8},
        "pairs_per_second": {"default": 100.0, "int8": 100.0 * speed},
    }
    assert said in quantization.advice(report)


def test_the_command_makes_keeps_and_judges(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On labelled pairs of one's own: half the queries calibrate, the others measure."""
    folder = copied(tiny_checkpoints["rstar"], tmp_path / "model")
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"query": query, "passage": passage, "label": int(place == 0)}
        for language, query in QUESTIONS.items()
        for place, passage in enumerate(PASSAGES[language])
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    arguments = ["quantize", "--model", str(folder), "--pairs", str(path)]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["queries"], report["pairs"], report["calibration_pairs"]) == (2, 10, 10)
    assert report["measured_on"] == "labelled lists"
    assert report["advice"]
    kept = load_scorer(folder, precision="int8").describe()["agreement"]
    assert kept == {key: value for key, value in report.items() if key != "model"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "/nowhere.jsonl"], "not found"),
        (["--dataset", "/nowhere"], "folder not found"),
        (["--split", "dev"], "--split needs --dataset"),
        (["--candidates", "1"], "at least 2"),
    ],
)
def test_the_command_checks_before_it_works(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and the rule."""
    assert main(["quantize", *arguments]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize(load_scorer(), pairs=[]), "at least one"),
        (lambda: LabelledList("q", ["a", "b"], [1.0]), "one grade .* per passage"),
        (lambda: LabelledList("q", ["a"], [-1.0]), "at least 0"),
        (lambda: agreement(Told({}), Told({}), [LabelledList("q", ["a"], [1.0])]), "two passages"),
    ],
)
def test_bad_calibration_data_is_answered(call: Callable[[], object], message: str) -> None:
    """The rule and the value."""
    with pytest.raises(InvalidInputError, match=message):
        call()


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_bundled_model_keeps_its_order_in_int8(engine: EngineName) -> None:
    """On the samples' other questions, in four languages, calibrated with few pairs only."""
    lists = quantization_data.sample_lists(odd=True)[::2]
    lists = [LabelledList(x.query, x.passages[:10], x.grades[:10]) for x in lists]
    pairs = quantization_data.sample_pairs()[::20]
    report = quantize(load_scorer(engine=engine), pairs=pairs, labelled=lists)
    assert report["kendall_tau"] > (0.95 if engine == "torch" else 0.9)
    assert report["largest_difference"] < report["logit_deviation"]
    assert report["ndcg_at_10"]["int8"] == pytest.approx(report["ndcg_at_10"]["fp32"], abs=0.05)
