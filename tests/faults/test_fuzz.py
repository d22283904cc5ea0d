"""A few of the campaign's inputs for every public entry; `campaign.py` runs 100,000."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import campaign
import pytest

INPUTS = 60
SLOW = {"checkpoint": 6, "remote_server": 20}


@pytest.fixture(scope="module")
def bench(tiny_checkpoints: Mapping[str, Path]) -> Iterator[campaign.Bench]:
    """What the inputs work on."""
    for name in campaign.CHECKPOINTS:
        tiny_checkpoints[name]  # made before anything is watched
    with campaign.bench(tiny_checkpoints) as made:
        yield made


@pytest.mark.parametrize("name", campaign.TARGETS)
def test_only_the_library_s_own_errors_come_out(name: str, bench: campaign.Bench) -> None:
    """And nothing hangs, nothing is executed; a failure gives the seed that repeats it."""
    inputs = SLOW.get(name, INPUTS)
    outcome = campaign.fuzz(campaign.TARGETS[name].run, bench, inputs)
    assert outcome.failures == {}
    assert outcome.inputs == inputs


@pytest.mark.parametrize(
    "deed",
    [
        lambda folder: pickle.loads(pickle.dumps(Path("x"))),
        lambda folder: (folder.parent / f"{folder.name} beside").write_text("x"),
        lambda folder: os.system("true"),
        lambda folder: 1 / 0,
    ],
    ids=["unpickles", "writes elsewhere", "runs a command", "raises something else"],
)
def test_the_campaign_sees_what_it_looks_for(deed, tmp_path: Path) -> None:
    """A target that does it fails on every input."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def target(draw: campaign.Draw, bench: campaign.Bench) -> None:
        deed(folder)

    outcome = campaign.fuzz(target, campaign.Bench(folder, None), 3)
    assert outcome.failed == outcome.inputs == 3


def test_an_input_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its time limit, as a failure, though it catches every Exception."""
    monkeypatch.setattr(campaign, "SECONDS_AN_INPUT", 0.1)

    def target(draw: campaign.Draw, bench: campaign.Bench) -> None:
        while True:
            with suppress(Exception):
                sum(range(1000))

    outcome = campaign.fuzz(target, campaign.Bench(tmp_path, None), 1)
    assert outcome.failed == 1
    assert "TooLong" in next(iter(outcome.failures))


def test_one_seed_draws_the_same(tmp_path: Path) -> None:
    """So that a failure can be repeated by its seed."""
    first, second = (
        [repr(draw.json()) for _ in range(50)] for draw in (campaign.Draw(7), campaign.Draw(7))
    )
    assert first == second
    assert len(set(first)) > 10
