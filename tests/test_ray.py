"""Ray Data on a local cluster: right results, and nothing lost or doubled when processes die."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

# Read when ray is imported: no usage statistics; workers no nicer than the tests that wait for
# them; a token that is not kept in the user's home.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

pytest.importorskip("ray.data", reason="the extra ray is not installed")

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from filelock import FileLock
from ray import cloudpickle
from safetensors.torch import load_file, save_file

from rerank_plugins import Reranker, load_reranker
from rerank_plugins.errors import InvalidInputError, RerankPluginsError
from rerank_plugins.ray import OUTPUT_SCHEMA, rerank_dataset
from rerank_plugins.samples import load_passages, load_questions
from rerank_plugins.scoring.base import PairScores, ScoreOptions
from rerank_plugins.testing import OverlapScorer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes by signal")

# Workers cannot import test modules.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

QUERIES = 48
HALF_A_CORE = 0.5  # two workers and Ray's own reading fit on two cores


class KillingScorer(OverlapScorer):
    """Kills a process with SIGKILL, once, in the middle of the work; notes who worked.

    Args:
        notes: Folder for a file by process, and for the one that says that it is done.
        victim: Process id; None for the process that scores.
    """

    def __init__(self, notes: Path, victim: int | None = None) -> None:
        super().__init__()
        self.notes = notes
        self.victim = victim

    def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> PairScores:
        """Scores; or kills, when it meets the query in the middle for the first time."""
        (self.notes / f"worker-{os.getpid()}").touch()
        killed = self.notes / "killed"
        if any(query == question(QUERIES // 2) for query, _ in pairs) and not killed.exists():
            victim = self.victim or os.getpid()
            killed.write_text(str(victim))
            os.kill(victim, signal.SIGKILL)
        return super().score(pairs, options)


def question(number: int) -> str:
    """The query of a row."""
    return f"museum hours room {number}"


def rows(count: int = QUERIES) -> list[dict[str, Any]]:
    """Queries with candidates whose order reranking changes; Arabic ids among them."""
    return [
        {
            "query_id": f"سؤال-{number}",
            "query": question(number),
            "candidates": [
                {"id": f"d{number}-{place}", "text": text, "score": 1.0 / (place + 1)}
                for place, text in enumerate(
                    ["the bus", "museum hours", f"museum hours room {number}", f"room {number % 7}"]
                )
            ],
        }
        for number in range(count)
    ]


def dataset(items: list[dict[str, Any]]) -> Any:
    """A dataset of few blocks."""
    return ray.data.from_items(items, override_num_blocks=min(4, len(items)))


def written(folder: Path) -> list[dict[str, Any]]:
    """The rows of all files."""
    return pq.read_table(folder).to_pylist()


def assert_each_once_and_right(folder: Path, items: list[dict[str, Any]]) -> None:
    """Every query has one row, and it is what a Reranker gives without Ray."""
    found = sorted(written(folder), key=lambda row: row["query_id"])
    items = sorted(items, key=lambda row: row["query_id"])
    assert [row["query_id"] for row in found] == [row["query_id"] for row in items]
    local = Reranker(OverlapScorer())
    for row, item in zip(found, items, strict=True):
        names = [one["id"] for one in item["candidates"]]
        ranking = local.rerank(item["query"], [one["text"] for one in item["candidates"]])
        assert row["ids"] == [names[key] for key in ranking.keys]
        assert row["scores"] == ranking.scores
        assert row["logits"] == [one.logit for one in ranking]
        assert (row["model"], row["scale"], row["error"]) == ("overlap", "probability", None)
        assert row["candidates"] == len(names)
    assert not list(folder.glob(".part-*"))


def run_until_killed(folder: Path, notes: Path) -> None:
    """What the process does that a worker kills."""
    ray.init(address="auto", log_to_driver=False)
    killer = Reranker(KillingScorer(notes, victim=os.getpid()))
    rerank_dataset(
        dataset(rows()),
        folder,
        reranker=killer,
        num_cpus=HALF_A_CORE,
        batch_size=4,
        queries_per_file=4,
    )


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One local cluster for all tests here: no dashboard, at most 100 MB of objects."""
    home = tempfile.mkdtemp(prefix="ray-")  # short: sockets have paths of 107 bytes at most
    context = ray.init(
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        _temp_dir=home,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", context.address_info["gcs_address"])
        yield
    ray.shutdown()
    shutil.rmtree(home, ignore_errors=True)


def test_a_worker_killed_in_the_middle_costs_nothing(tmp_path: Path) -> None:
    """Two workers, one SIGKILLed while it scores: every query once, each right."""
    notes, folder = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    result = rerank_dataset(
        dataset(rows()),
        folder,
        reranker=Reranker(KillingScorer(notes)),
        workers=2,
        num_cpus=HALF_A_CORE,
        batch_size=4,
        queries_per_file=10,
    )
    assert (result.written, result.found, result.output) == (QUERIES, 0, folder)
    victim = (notes / "killed").read_text()
    assert (notes / f"worker-{victim}").exists()
    assert len(list(notes.glob("worker-*"))) >= 2  # the victim did not do it all
    assert_each_once_and_right(folder, rows())


def test_a_killed_caller_resumes_where_it_was(tmp_path: Path) -> None:
    """The process that writes is SIGKILLed; the next call does what was left, and only that."""
    notes, folder = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    code = (
        f"import sys; sys.path[:0] = {[*sys.path]!r}\n"
        "import pathlib, test_ray\n"
        f"test_ray.run_until_killed(pathlib.Path({str(folder)!r}), pathlib.Path({str(notes)!r}))"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    left = len(written(folder))
    assert 0 < left < QUERIES
    (folder / ".part-0.parquet.tmp").write_bytes(b"half a file")
    more = rows(QUERIES + 3)
    result = rerank_dataset(
        dataset(more), folder, reranker=Reranker(OverlapScorer()), num_cpus=HALF_A_CORE
    )
    assert (result.found, result.written) == (left, QUERIES + 3 - left)
    assert_each_once_and_right(folder, more)


def test_the_embedded_model_gives_the_same_on_a_worker(tmp_path: Path) -> None:
    """Scores as without Ray, in four languages, blend with first-stage scores included."""
    texts = {passage.id: passage.text for passage in load_passages()}
    questions = [load_questions(language)[0] for language in ("ar", "fr", "pl", "en")]
    items = [
        {
            "query_id": number,
            "query": one.text,
            "candidates": [
                {"id": name, "text": texts[name], "score": 9.0 - place}
                for place, name in enumerate((*one.distractors, *one.relevant))
            ],
        }
        for number, one in enumerate(questions)
    ]
    # A worker chooses by the machine: one precision for both.
    exact: dict[str, Any] = {"precision": "fp32", "engine": "torch"}
    rerank_dataset(dataset(items), tmp_path, top_n=2, num_cpus=HALF_A_CORE, **exact)
    assert pq.read_table(tmp_path).schema.equals(OUTPUT_SCHEMA, check_metadata=False)
    found = {row["query_id"]: row for row in written(tmp_path)}
    from rerank_plugins import Candidate

    local = load_reranker(top_n=2, **exact)
    for number, item in enumerate(items):
        given = [
            Candidate(place, one["text"], one["score"], place + 1)
            for place, one in enumerate(item["candidates"])
        ]
        ranking = local.rerank(item["query"], given)
        row = found[str(number)]
        assert row["ids"] == [item["candidates"][key]["id"] for key in ranking.keys]
        assert row["scores"] == pytest.approx(ranking.scores, abs=1e-5)
        assert row["model"] == "bundled"


BAD = {
    "a blank query": ({"query": " "}, "non-blank text.*'bad'"),
    "a null id": ({"query_id": None}, "query_id must not be null"),
    "an endless id": ({"query_id": "x" * 10_001}, "at most 10000 characters"),
    "a candidate's endless id": (
        {"candidates": [{"id": "x" * 10_001, "text": "a"}]},
        "at most 10000 characters",
    ),
    "a candidate without text": ({"candidates": [{"id": "d", "text": None}]}, "candidate 0.*'bad'"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_row_is_an_error_that_names_it(change: dict[str, Any], message: str) -> None:
    """What the worker's own code says of a row, without a cluster."""
    from rerank_plugins.ray._worker import Worker

    good = {"query_id": "bad", "query": "museum", "candidates": [{"id": "d", "text": "a"}]}
    worker = Worker(cloudpickle.dumps(Reranker(OverlapScorer())), None)
    (row,) = worker(pa.Table.from_pylist([good | change])).to_pylist()
    name, told = row["failure"]
    assert name == "InvalidInputError"
    with pytest.raises(InvalidInputError, match=message):
        raise InvalidInputError(told)


def test_a_worker_s_error_comes_home_as_what_it_is(tmp_path: Path) -> None:
    """The library's own error with its own message, and not Ray's; nothing half written."""
    items = rows(3)
    items[1]["query"] = " "
    with pytest.raises(InvalidInputError, match=r"query must be non-blank text.*سؤال-1") as caught:
        rerank_dataset(
            dataset(items),
            tmp_path,
            reranker=Reranker(OverlapScorer()),
            num_cpus=HALF_A_CORE,
        )
    assert type(caught.value) is InvalidInputError
    assert not list(tmp_path.glob("*.parquet"))


def test_an_id_that_comes_twice_is_an_error() -> None:
    """Neither row is dropped in silence, and no other is doubled."""
    from rerank_plugins.ray import _check_unique

    done: set[str] = {"found before"}
    _check_unique(pa.table({"query_id": ["one", "two"]}), done)
    assert done == {"found before", "one", "two"}
    with pytest.raises(InvalidInputError, match=r"must be unique.*'two' occurs twice"):
        _check_unique(pa.table({"query_id": ["three", "two"]}), done)


def a_file(folder: Path, **settings: Any) -> Path:
    """A file as rerank_dataset leaves it."""
    from rerank_plugins.ray import _settings
    from rerank_plugins.ray._files import write

    reranker = Reranker(OverlapScorer(), **settings)
    row = {"query_id": "query-0", "ids": [], "scores": [], "logits": [], "scale": "logit"}
    row |= {"model": "overlap", "candidates": 0, "truncated": 0}
    table = pa.Table.from_pylist([row], schema=OUTPUT_SCHEMA)
    return write(table, folder, _settings(reranker, None))


def test_a_folder_holds_results_of_one_reranker(tmp_path: Path) -> None:
    """Other settings, or another model, would mix two scales in one folder."""
    a_file(tmp_path, scale="logit")
    with pytest.raises(InvalidInputError, match=r'(?s)one reranker.*"logit".*"probability"'):
        rerank_dataset(dataset(rows(1)), tmp_path, reranker=Reranker(OverlapScorer()))
    with pytest.raises(InvalidInputError, match="one reranker"):
        rerank_dataset(
            dataset(rows(1)), tmp_path, reranker=Reranker(OverlapScorer(), scale="logit"), top_n=1
        )


def test_new_weights_under_an_old_name_are_another_reranker(
    tmp_path: Path, tiny_checkpoints: Mapping[str, Path]
) -> None:
    """A folder that was trained on since would mix two models' scores."""
    from rerank_plugins.ray import _settings

    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoints["bge"], folder)
    before = _settings(load_reranker(folder), None)
    assert _settings(load_reranker(folder, cache=10), None) == before
    weights = load_file(folder / "model.safetensors")
    head = next(name for name in weights if name.startswith("classifier"))
    weights[head] += 1.0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert _settings(load_reranker(folder), None) != before


@pytest.mark.parametrize("damage", ["cut", "footer", "page", "empty", "foreign"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    """Its queries are neither skipped nor doubled: the error says what to delete."""
    path = a_file(tmp_path)
    whole = path.read_bytes()
    flipped = {place: bytearray(whole) for place in (-20, whole.index(b"query-0"))}
    for place, content in flipped.items():
        content[place] ^= 0x01
    if damage == "foreign":
        pq.write_table(OUTPUT_SCHEMA.empty_table().drop_columns(["query_id"]), path)
    else:
        footer, page = map(bytes, flipped.values())
        damaged = {"cut": whole[:-9], "footer": footer, "page": page, "empty": b""}
        path.write_bytes(damaged[damage])
    with pytest.raises(InvalidInputError, match=path.name):
        rerank_dataset(dataset(rows(1)), tmp_path, reranker=Reranker(OverlapScorer()))


def test_two_calls_do_not_write_to_one_folder(tmp_path: Path) -> None:
    """The second is told; otherwise both would rerank and write the same queries."""
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(InvalidInputError, match="one call at a time"),
    ):
        rerank_dataset(dataset(rows(1)), tmp_path, reranker=Reranker(OverlapScorer()))


def test_a_reranker_that_cannot_travel_is_told(tmp_path: Path) -> None:
    """A scorer with a lock or an open connection cannot go to a worker."""
    scorer = OverlapScorer()
    scorer.lock = threading.Lock()
    with pytest.raises(InvalidInputError, match=r"OverlapScorer.*loads on first use"):
        rerank_dataset(dataset(rows(1)), tmp_path, reranker=Reranker(scorer))


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": (2, 1)},
        {"workers": (1, 2, 3)},
        {"workers": 1.5},
        {"batch_size": 0},
        {"queries_per_file": 0},
        {"top_n": -1},
        {"model": "nothing by that name"},
        {"no_such_option": 1},
    ],
    ids=json.dumps,
)
def test_a_bad_option_is_an_error_before_any_work(tmp_path: Path, options: dict[str, Any]) -> None:
    """The library's own error, and no folder made."""
    with pytest.raises(RerankPluginsError):
        rerank_dataset(dataset(rows(1)), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_the_columns_is_an_error(tmp_path: Path) -> None:
    """The message lists the existing columns and how to rename them."""
    with pytest.raises(InvalidInputError, match=r"\['query_id'\] are missing.*rename_columns"):
        rerank_dataset(dataset([{"id": 1, "query": "q", "candidates": []}]), tmp_path)
    with pytest.raises(InvalidInputError, match=r"must be a ray.data.Dataset, but got list"):
        rerank_dataset(rows(1), tmp_path)
