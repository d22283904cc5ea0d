"""Whole runs: every recipe learns, seeds reproduce, a kill loses nothing, out is whole."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_base
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.losses import ListNetLoss
from toys import CUE, Overlap, toy_groups, toy_held_back, write_set

from rerank_plugins import Candidate, load_reranker
from rerank_plugins.errors import InvalidInputError, ScoreCountError, UnknownModelError
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.training import (
    Group,
    QuestionSet,
    TrainingConfig,
    TrainingResult,
    fit,
    held_back_samples,
    merge_weights,
    train,
)
from rerank_plugins.training.config import RECIPES, Recipe

QUICK: dict[str, Any] = {
    "learning_rate": 3e-3,
    "queries_per_batch": 8,
    "epochs": 3.0,
    "evaluations": 2,
    "patience": 9,
    "device": "cpu",
    "precision": "fp32",
}


def by_cue(pairs: list[tuple[str, str]]) -> list[float]:
    """A teacher that knows what the toy is about."""
    return [float(CUE in passage.split()) for _, passage in pairs]


def run(base: Path, out: Path, **options: Any) -> TrainingResult:
    """A quick run on the toy."""
    config = TrainingConfig(out=out, base=base, **{**QUICK, **options})
    return fit(config, toy_groups(80), toy_held_back())


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_learns(base: Path, tmp_path: Path, recipe: Recipe) -> None:
    """Loss falls by half, and the held-back right passages rise from the bottom to the top."""
    teacher = by_cue if recipe == "ranknet" else None
    result = run(
        base, tmp_path / "out", recipe=recipe, teacher=teacher, epochs=8.0, learning_rate=4e-3
    )
    losses = [loss for _, loss in result.losses]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    assert result.first_stage["toy"] < 0.5
    assert result.after["toy"] > max(0.95, result.before["toy"])


def test_out_is_a_checkpoint_like_any_other(tmp_path: Path) -> None:
    """The folder loads as a reranker, keeps the base's block, has a card, and stands alone."""
    block = {"window_tokens": 16, "long_passages": "max", "first_stage_weight": 0.25}
    base = write_base(tmp_path / "base", rerank_plugins=block)
    out = tmp_path / "made" / "out"
    facts = [{"name": "toy", "licence": "CC0", "questions": 80, "groups": 80, "held_back": 20}]
    config = TrainingConfig(out=out, base=base, **{**QUICK, "epochs": 1.0})
    result = fit(config, toy_groups(80), toy_held_back(), facts)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert json.loads((out / "config.json").read_text())["rerank_plugins"] == block
    assert (out / "model.safetensors").is_file()
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| toy | CC0 | 80 | 80 | 20 |" in card
    assert f"{result.after['toy']:.3f}" in card
    assert "| seed | 0 |" in card
    assert "listwise" in card
    record = json.loads((out / "training.json").read_text())
    assert record["after"] == result.after
    pairs = [("what bako?", "the of a"), ("what bako?", "bako is")]
    scorer = load_scorer(out, device="cpu")
    assert scorer.first_stage_weight == 0.25
    assert len(load_reranker(out, device="cpu").rerank(pairs[0][0], [p for _, p in pairs])) == 2
    plain = CrossEncoder(str(out), device="cpu").predict(pairs, activation_fn=torch.nn.Identity())
    assert plain == pytest.approx(scorer.score(pairs, ScoreOptions()).logits, abs=1e-5)


def test_windows_are_written_into_the_config(base: Path, tmp_path: Path) -> None:
    """A model trained on windows says so, so that it is also scored by windows."""
    run(base, tmp_path / "out", window_words=6, epochs=0.5)
    described = load_scorer(tmp_path / "out", device="cpu").describe()
    assert described["long_passages"] == "max"
    assert described["window_tokens"] >= 6


def test_one_seed_gives_one_model(base: Path, tmp_path: Path) -> None:
    """Equal seeds give equal weights bit for bit, another seed other weights."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = TrainingConfig(
            out=tmp_path / name, base=base, seed=seed, **{**QUICK, "epochs": 1.0}
        )
        fit(config, toy_groups(32))
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_the_cost_is_said_before_it_is_spent(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Queries, pairs and steps are exact, the estimate comes before the first step's line."""
    with caplog.at_level(logging.INFO, logger="rerank_plugins"):
        result = run(base, tmp_path / "out", epochs=2.0)
    assert result.estimate.queries == 80
    assert result.estimate.steps == result.steps == 20
    assert result.estimate.pairs == 20 * 8 * 4
    assert result.estimate.minutes > 0
    assert result.estimate.memory_mb > result.estimate.state_mb > 0
    messages = [record.getMessage() for record in caplog.records]
    said = next(at for at, message in enumerate(messages) if "80 queries, 640 pairs" in message)
    first = next(at for at, message in enumerate(messages) if message.startswith("step 1 of 20"))
    assert said < first
    assert "minutes left" in messages[first]


def test_minutes_decide_the_number_of_steps(base: Path, tmp_path: Path) -> None:
    """A time budget becomes the steps that fit in it, in place of the epochs."""
    short = run(base, tmp_path / "short", minutes=0.2, epochs=50.0)
    assert 1 <= short.steps < 5000
    assert short.estimate.minutes < 0.5


class Slow(torch.nn.Module):
    """A loss whose batches take a while."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.loss = ListNetLoss(model)

    def forward(self, *inputs: Any) -> torch.Tensor:
        """A third of a second a batch."""
        time.sleep(0.33)
        return self.loss(*inputs)


@pytest.fixture
def slow_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a laptop with a large model."""
    monkeypatch.setattr(
        "rerank_plugins.training.prepare.loss_for", lambda _, model, __: Slow(model)
    )


@pytest.mark.usefixtures("slow_batches")
def test_a_budget_too_small_for_one_step_is_refused_before_the_base_is_evaluated(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The message has the budget that would do, and what takes the time."""
    with pytest.raises(InvalidInputError, match=r"minutes must be at least [\d.]+ for one step"):
        run(base, tmp_path / "out", minutes=0.001)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.training" / "plan.json").exists()


@pytest.mark.usefixtures("slow_batches")
def test_a_budget_below_one_epoch_is_said_before_the_first_step(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """How many of its steps fit, and what a whole one takes."""
    with caplog.at_level(logging.INFO, logger="rerank_plugins"):
        result = run(base, tmp_path / "out", minutes=0.07, queries_per_batch=1, evaluations=1)
    assert 1 <= result.steps < 80
    assert result.estimate.epochs == pytest.approx(result.steps / 80)
    messages = [record.getMessage() for record in caplog.records]
    warning = f"{result.steps} of the 80 steps"
    said = next(at for at, message in enumerate(messages) if warning in message)
    first = next(at for at, message in enumerate(messages) if message.startswith("step 1 of"))
    assert said < first


def test_the_default_blend_is_measured_beside_the_model_alone(tmp_path: Path) -> None:
    """What a Reranker over the same candidates gets, and it decides which weights are kept."""
    base = write_base(tmp_path / "base", rerank_plugins={"first_stage_weight": 0.6})
    held = toy_held_back()
    for sample in held[0].samples:
        sample["scores"] = [float(place) for place in range(len(sample["documents"]), 0, -1)]
    config = TrainingConfig(out=tmp_path / "out", base=base, **{**QUICK, "epochs": 2.0})
    result = fit(config, toy_groups(80), held)
    assert result.first_stage_weight == 0.6
    assert result.history[-1][1] == pytest.approx(result.blended_after["toy"])
    for folder, told in ((base, result.blended_before), (tmp_path / "out", result.blended_after)):
        reranker = load_reranker(
            folder, device="cpu", engine="torch", precision="fp32", deduplicate=False
        )
        values = []
        for sample in held[0].samples:
            candidates = [
                Candidate(key=place, text=text, score=score, rank=place + 1)
                for place, (text, score) in enumerate(
                    zip(sample["documents"], sample["scores"], strict=True)
                )
            ]
            ranking = reranker.rerank(sample["query"], candidates)
            rank = 1 + ranking.texts.index(sample["positive"][0])
            values.append(1 / math.log2(1 + rank))
        assert told["toy"] == pytest.approx(sum(values) / len(values), abs=1e-3)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"{result.after['toy']:.3f} | {result.blended_before['toy']:.3f} |" in card
    assert run(base, tmp_path / "other", epochs=0.5).blended_after == {}  # no scores, no blend


def test_stops_early_and_keeps_the_best(base: Path, tmp_path: Path) -> None:
    """When nothing gets better any more training ends, and the best weights are those kept."""
    result = run(base, tmp_path / "out", epochs=20.0, evaluations=40, patience=2)
    assert result.steps < result.estimate.steps
    best = max(score for _, score in result.history)
    assert dict(result.history)[result.best_step or 0] == best
    assert result.after == {"toy": best}


def test_a_question_with_fewer_than_two_candidates_is_not_evaluated(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The library's evaluator fails at a question with one candidate, or with none."""
    data = QuestionSet(
        "notes",
        {"a": "the museum opens at nine", "b": "the river is long", "c": "a museum shop"},
        {"two": "museum hours", "one": "long", "none": "zzz"},
        {"two": {"a": 1.0}, "one": {"b": 1.0}, "none": {"b": 1.0}},
    )
    config = TrainingConfig(out=tmp_path / "out", base=base, **{**QUICK, "epochs": 1.0})
    with caplog.at_level(logging.INFO, "rerank_plugins"):
        held = held_back_samples(config, data)
    assert [sample["query"] for sample in held.samples] == ["museum hours"]
    assert (
        "left out 2 of 3 held-back questions: the first stage finds fewer than two" in caplog.text
    )
    assert set(fit(config, toy_groups(16), [held]).after) == {"notes"}


def test_without_held_back_questions_the_last_weights_are_kept(base: Path, tmp_path: Path) -> None:
    """Nothing is measured, and result and card say so."""
    config = TrainingConfig(out=tmp_path / "out", base=base, **{**QUICK, "epochs": 1.0})
    result = fit(config, toy_groups(40))
    assert (result.after, result.best_step, result.steps) == ({}, None, 5)
    assert "nothing was measured" in (tmp_path / "out" / "README.md").read_text()


def test_embeddings_can_learn_faster(base: Path, tmp_path: Path) -> None:
    """With a rate of 4 the embedding tables move further than with 1, in as many steps."""
    moved = {}
    before = load_file(base / "model.safetensors")
    key = "bert.embeddings.word_embeddings.weight"
    for rate in (1.0, 4.0):
        out = tmp_path / str(rate)
        run(base, out, embeddings_rate=rate, epochs=1.0, learning_rate=1e-4)
        moved[rate] = (load_file(out / "model.safetensors")[key] - before[key]).abs().mean().item()
    assert 2.5 * moved[1.0] < moved[4.0] < 5 * moved[1.0]


def test_a_rate_for_embeddings_that_are_not_found_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An architecture that names its tables otherwise gets the rule, not a stray error."""
    from rerank_plugins.training import trainer

    monkeypatch.setattr(trainer, "EMBEDDINGS", "no_such_table")
    with pytest.raises(InvalidInputError, match="embeddings_rate must be 1"):
        run(base, tmp_path / "out", embeddings_rate=4.0)


def test_long_questions_and_passages_do_not_stop_a_run(base: Path, tmp_path: Path) -> None:
    """Texts far beyond the model's length are trained on like any other."""
    long = " ".join(["near bako of"] * 200)
    groups = [Group(long, f"{long} is {long}", (long, "short")), *toy_groups(7)]
    for words in (None, 12):
        config = TrainingConfig(
            out=tmp_path / str(words), base=base, window_words=words, **{**QUICK, "epochs": 1.0}
        )
        assert fit(config, groups).steps == 1


# A kill in the middle of the third checkpoint, in the second epoch: a half-written folder
# stays behind.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from toys import toy_groups, toy_held_back
from rerank_plugins.training import TrainingConfig, fit
from rerank_plugins.training.trainer import Trainer

save, calls = Trainer._save_rng_state, []
def deadly(self, folder):
    calls.append(folder)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, folder)
Trainer._save_rng_state = deadly
config = TrainingConfig(out=Path({out!r}), base={base!r}, **{options!r})
fit(config, toy_groups(80), toy_held_back())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_run_goes_on_where_it_was(base: Path, tmp_path: Path) -> None:
    """Killed while writing a checkpoint, a run resumes and ends with the very same weights."""
    options = {**QUICK, "epochs": 2.0, "evaluations": 5}
    out = tmp_path / "killed"
    script = KILLED.format(
        tests=str(Path(__file__).parent), out=str(out), base=str(base), options=options
    )
    root = Path(__file__).parents[2]
    died = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    assert not out.exists()
    work = tmp_path / "killed.training"
    assert (work / "checkpoint-12" / "model.safetensors").is_file()
    assert not (work / "checkpoint-12" / "trainer_state.json").exists()

    resumed = run(base, out, **options)
    whole = run(base, tmp_path / "whole", **options)
    assert resumed.resumed_from == 8
    assert resumed.steps == whole.steps == 20
    assert resumed.history == whole.history
    one, other = (load_file(path / "model.safetensors") for path in (out, tmp_path / "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not work.exists()


@pytest.mark.parametrize("ending", ["in the middle of an epoch", "early"])
def test_a_run_that_was_finished_makes_no_further_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Killed while the folder was written: the same weights as without, and as many steps."""
    from rerank_plugins.training import loop

    options = {"epochs": 1.3} if ending != "early" else {"epochs": 20.0, "evaluations": 40}
    options |= {"patience": 2}
    publish = loop._publish

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_publish", killed)
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "out", **options)
    monkeypatch.setattr(loop, "_publish", publish)
    resumed = run(base, tmp_path / "out", **options)
    whole = run(base, tmp_path / "whole", **options)
    assert resumed.resumed_from == resumed.steps == whole.steps
    assert (resumed.history, resumed.after) == (whole.history, whole.after)
    assert resumed.steps < resumed.estimate.steps or ending != "early"
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_interrupted_run_repeats_no_step(base: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the step, writes a checkpoint, and the next run begins behind it.

    The end is that of a run without a break, the patience of early stopping included.
    """
    from rerank_plugins.training import trainer

    steps: list[int] = []
    step_end = trainer._Rhythm.on_step_end

    def watched(self: Any, args: Any, state: Any, control: Any, **more: Any) -> Any:
        steps.append(state.global_step)
        if state.global_step == 7 and len(steps) == 7:
            signal.raise_signal(signal.SIGINT)
        return step_end(self, args, state, control, **more)

    options = {"epochs": 2.0, "evaluations": 5, "patience": 2}
    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Rhythm, "on_step_end", watched)
        with pytest.raises(KeyboardInterrupt, match="stopped at step 7 of 20"):
            run(base, tmp_path / "out", **options)
        assert signal.getsignal(signal.SIGINT) is handler
        resumed = run(base, tmp_path / "out", **options)
    whole = run(base, tmp_path / "whole", **options)
    assert resumed.resumed_from == 7
    assert steps == list(range(1, whole.steps + 1))
    assert resumed.history == whole.history
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_ranknet_without_any_scores_is_refused_before_mining(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so are a wrong base and a folder that only has a test split."""
    monkeypatch.setattr("rerank_plugins.training.pipeline.mine_hard_negatives", None)
    folder = question_set(tmp_path / "toy" / "train")
    config = TrainingConfig(out=tmp_path / "out", base=base, datasets=(folder,), **QUICK)
    with pytest.raises(InvalidInputError, match="ranknet needs a teacher's scores"):
        train(replace(config, recipe="ranknet"))
    with pytest.raises(UnknownModelError):
        train(replace(config, base="no such model"))
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    with pytest.raises(InvalidInputError, match=r"no qrels/train\.tsv; to train on one of test"):
        train(config)
    assert not (tmp_path / "out.training").exists()


def test_checkpoints_of_another_configuration_are_not_gone_on_with(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names what differs."""
    from rerank_plugins.training import loop

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_publish", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "out", epochs=1.0)
    monkeypatch.undo()
    with pytest.raises(InvalidInputError, match="differs in learning_rate, seed"):
        run(base, tmp_path / "out", epochs=1.0, learning_rate=1e-3, seed=5)
    result = run(base, tmp_path / "out", epochs=1.0)
    assert (result.resumed_from, result.steps) == (10, 10)


def test_an_existing_folder_is_never_written_over(base: Path, tmp_path: Path) -> None:
    """Whatever lies at out stays as it is."""
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError, match="exists"):
        run(base, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("recipe", "magic"),
        ("device", "tpu"),
        ("precision", "fp16"),
        ("epochs", 0),
        ("minutes", -1.0),
        ("negatives", 0),
        ("held_back", -1),
        ("merge", 1.5),
        ("licences", ("a", "b")),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, option: str, value: object) -> None:
    """The message gives the option, the rule and the value."""
    with pytest.raises(InvalidInputError, match=option):
        replace(TrainingConfig(out=tmp_path / "out"), **{option: value})


def question_set(folder: Path) -> Path:
    """The toy as a set on disk: every question's words stand in right and wrong passages."""
    groups = toy_groups(60)
    corpus, queries, qrels = {}, {}, []
    for i, group in enumerate(groups):
        topic = group.query.removeprefix("what ").removesuffix("?")
        queries[f"q{i}"] = f"what {topic}"
        for j, text in enumerate(group.passages):
            corpus[f"d{i}-{j}"] = f"{text} {topic} n{i}x{j} m{j}x{i} k{i * j}"
        qrels.append((f"q{i}", f"d{i}-0", 1))
    return write_set(folder, corpus, queries, qrels)


def test_train_goes_from_folders_to_a_better_model(base: Path, tmp_path: Path) -> None:
    """Reading, holding back, mining, training and the card work together."""
    folder = question_set(tmp_path / "toy" / "train")
    config = TrainingConfig(
        out=tmp_path / "out",
        base=base,
        datasets=(folder,),
        licences=("CC0",),
        negatives=3,
        first_stage=Overlap,
        **{**QUICK, "epochs": 6.0},
    )
    result = train(config)
    assert result.after["toy/train"] > result.before["toy/train"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| toy/train | CC0 | 54 | 54 | 6 |" in card


def test_the_command_trains_and_prints_what_came_out(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``rerank-plugins train`` hands its options on and prints results to standard output."""
    import argparse

    from rerank_plugins.cli.train import add_arguments
    from rerank_plugins.cli.train import run as run_command

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = tmp_path / "out"
    folder = question_set(tmp_path / "toy" / "train")
    line = f"--dataset {folder} --base {base} --out {out} --recipe binary --epochs 1 --seed 3"
    assert run_command(parser.parse_args([*line.split(), "--device", "cpu"])) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(out)
    assert printed[1].startswith("toy/train: nDCG@10 first stage 0.")
    options = json.loads((out / "training.json").read_text())["options"]
    assert (options["recipe"], options["seed"]) == ("binary", 3)


def test_merging_is_exact_arithmetic(base: Path, tmp_path: Path) -> None:
    """Every weight is the weighted mean, computed in double and rounded once."""
    run(base, tmp_path / "tuned", epochs=0.5)
    old, new = (load_file(path / "model.safetensors") for path in (base, tmp_path / "tuned"))
    for weight in (0.0, 0.3, 1.0):
        merge_weights(base, tmp_path / "tuned", weight, tmp_path / str(weight))
        got = load_file(tmp_path / str(weight) / "model.safetensors")
        assert got.keys() == old.keys()
        for key, value in got.items():
            a, b = (side[key].numpy().astype("f8") for side in (old, new))
            want = (a * (1 - weight) + b * weight).astype("f4")
            assert torch.equal(value, torch.from_numpy(want)), key
    assert (tmp_path / "0.3" / "tokenizer.json").is_file()
    load_reranker(tmp_path / "0.3", device="cpu").rerank("what bako?", ["the of a"])


def test_a_run_can_end_in_a_merge(base: Path, tmp_path: Path) -> None:
    """With ``merge`` the folder holds the merged weights, and the figures are theirs."""
    result = run(base, tmp_path / "out", epochs=0.5, merge=0.0)
    got, want = (load_file(path / "model.safetensors") for path in (tmp_path / "out", base))
    assert all(torch.equal(got[key], want[key]) for key in want)
    assert result.after["toy"] == pytest.approx(result.before["toy"])


def test_merging_what_does_not_fit_is_refused(base: Path, tmp_path: Path) -> None:
    """Weights out of range, an existing folder and other shapes are named."""
    other = write_base(tmp_path / "other", intermediate_size=32)
    with pytest.raises(InvalidInputError, match=r"in \[0, 1\], but got 1.1"):
        merge_weights(base, other, 1.1, tmp_path / "out")
    with pytest.raises(InvalidInputError, match="exists"):
        merge_weights(base, other, 0.5, tmp_path / "other")
    with pytest.raises(Exception, match="must have one shape"):
        merge_weights(base, other, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_any_of_our_scorers_can_teach(base: Path, tmp_path: Path) -> None:
    """A folder, a scorer and a callable give the same scores, each to its passage."""
    from rerank_plugins.training import with_teacher_scores

    groups = toy_groups(3)
    scorer = load_scorer(base, device="cpu")
    by_name = with_teacher_scores(groups, base)
    assert by_name == with_teacher_scores(groups, scorer)
    taught = with_teacher_scores(groups, by_cue)
    assert [group.teacher_scores for group in taught] == [(1.0, 0.0, 0.0, 0.0)] * 3


def test_teacher_scores_are_kept_and_not_mistaken(tmp_path: Path) -> None:
    """Kept scores serve the same pairs without asking again, and no others."""
    from rerank_plugins.training import with_teacher_scores

    asked = []

    def teacher(pairs: Any) -> list[float]:
        asked.append(len(pairs))
        return by_cue(pairs)

    kept = tmp_path / "scores.npz"
    first = with_teacher_scores(toy_groups(3), teacher, kept)
    assert with_teacher_scores(toy_groups(3), teacher, kept) == first
    assert asked == [12]
    with_teacher_scores(toy_groups(3, seed=5), teacher, kept)
    assert asked == [12, 12]
    with pytest.raises(ScoreCountError, match="one score per pair"):
        with_teacher_scores(toy_groups(3), lambda pairs: [1.0], None)
