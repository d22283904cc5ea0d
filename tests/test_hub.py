"""Loading by name, against a loopback server that speaks the Hub's API."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import STAND_INS
from hub_server import Fault, Hub, running_hub
from texts import PAIRS

from rerank_plugins.errors import (
    ModelAccessError,
    ModelDownloadError,
    UnknownModelError,
    UnsupportedModelError,
)
from rerank_plugins.models.loading import load_scorer
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.hub import fetch

BGE = "BAAI/bge-reranker-large"


def talk_to(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns the Hub client to the server, with short timeouts and no naps between retries."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    class Clock:
        sleep = staticmethod(lambda seconds: None)

        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.4)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.4)
    monkeypatch.setattr(file_download, "time", Clock())
    monkeypatch.setattr(_http, "time", Clock())


@pytest.fixture
def hub(tiny_checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with the catalog's five models."""
    with running_hub() as hub:
        for name, stand_in in STAND_INS.items():
            hub.publish(name, tiny_checkpoints[stand_in])
        talk_to(hub, monkeypatch)
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """An empty download cache."""
    return str(tmp_path / "cache")


def logits(name: str | Path, **options: Any) -> np.ndarray:
    """What a freshly loaded model gives; nothing of it lives on."""
    return load_scorer(name, device="cpu", **options).score(PAIRS[:6], ScoreOptions()).logits


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """The same scores, but for where in memory the weights came to lie."""
    np.testing.assert_allclose(found, expected, atol=1e-5)


def files_of(folder: Path) -> dict[str, bytes]:
    """Names and contents."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize("name", STAND_INS)
def test_every_name_of_the_catalog_loads_and_then_loads_without_the_server(
    tiny_checkpoints: Mapping[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    cache: str,
    name: str,
) -> None:
    """First a download, then the cache with the server off: both score as the original does."""
    expected = logits(tiny_checkpoints[STAND_INS[name]])
    with running_hub() as hub:
        hub.publish(name, tiny_checkpoints[STAND_INS[name]])
        talk_to(hub, monkeypatch)
        close(logits(name, cache_folder=cache), expected)
        downloaded = [request for request in hub.requests if "/cdn/" in request]
        assert len(downloaded) == 1, "the weights are fetched, once"
    close(logits(name, cache_folder=cache), expected)
    close(logits(name, cache_folder=cache, local_files_only=True), expected)


def test_a_second_load_fetches_no_file_again(hub: Hub, cache: str) -> None:
    """With the server on, only the question which commit is newest is asked again."""
    first = fetch(BGE, cache_folder=cache)
    hub.requests.clear()
    assert fetch(BGE, cache_folder=cache) == first
    assert not [request for request in hub.requests if request.startswith("GET /BAAI")]
    assert not [request for request in hub.requests if "/cdn/" in request]


def test_local_files_only_asks_no_server(hub: Hub, cache: str) -> None:
    """Nothing cached and no leave to ask: an error that says so, and not one request."""
    with pytest.raises(ModelDownloadError, match="local_files_only is set"):
        fetch(BGE, cache_folder=cache, local_files_only=True)
    fetch(BGE, cache_folder=cache)
    hub.requests.clear()
    fetch(BGE, cache_folder=cache, local_files_only=True)
    assert hub.requests == []


def test_files_of_sub_folders_are_not_fetched(hub: Hub, cache: str) -> None:
    """Exports for other runtimes are gigabytes that nothing here reads."""
    folder = fetch(BGE, cache_folder=cache)
    assert not [request for request in hub.requests if "onnx" in request]
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_pinned_commit_stays_when_main_moves(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str
) -> None:
    """Pinned, the old weights; unpinned, the new ones."""
    pinned = hub.publish(BGE, tiny_checkpoints["bge"])
    moved = hub.publish(BGE, tiny_checkpoints["ara"])
    old, new = logits(tiny_checkpoints["bge"]), logits(tiny_checkpoints["ara"])
    assert np.abs(old - new).max() > 0.01
    close(logits(BGE, cache_folder=cache, revision=pinned), old)
    assert not [request for request in hub.requests if moved in request or "main" in request]
    close(logits(BGE, cache_folder=cache), new)
    close(logits(BGE, cache_folder=cache, revision=pinned), old)


def test_a_pinned_commit_that_is_cached_asks_no_server(hub: Hub, cache: str) -> None:
    """A commit never changes, so there is nothing to ask."""
    pinned = hub.publish(BGE, hub.find(BGE, "main")[1])
    fetch(BGE, cache_folder=cache, revision=pinned)
    hub.requests.clear()
    fetch(BGE, cache_folder=cache, revision=pinned)
    assert hub.requests == []


def test_a_branch_can_be_asked_for(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str
) -> None:
    """A branch other than main gives its own files, and is remembered by its name."""
    hub.publish(BGE, tiny_checkpoints["ara"], branch="next")
    folder = fetch(BGE, cache_folder=cache, revision="next")
    assert files_of(folder) == files_of(tiny_checkpoints["ara"])
    assert fetch(BGE, cache_folder=cache, revision="next", local_files_only=True) == folder


def test_an_unknown_revision_is_named(hub: Hub, cache: str) -> None:
    """The name is right and the revision wrong: the message says which."""
    with pytest.raises(UnknownModelError, match="no revision 'v9'"):
        fetch(BGE, cache_folder=cache, revision="v9")


def test_a_name_that_the_hub_does_not_show_lists_the_near_ones(hub: Hub, cache: str) -> None:
    """The Hub answers strangers 401 for what is private and for what does not exist."""
    with pytest.raises(UnknownModelError, match=r"misspelled, or private.*BAAI/bge-reranker-large"):
        fetch("BAAI/bge-reranker-larg", cache_folder=cache)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        pytest.param(
            Fault("status", "/api/", 404, {"X-Error-Code": "RepoNotFound"}),
            UnknownModelError,
            "shows no model .*misspelled",
            id="404: the name",
        ),
        pytest.param(
            Fault(
                "status",
                "/api/",
                401,
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            ),
            ModelAccessError,
            r"refused access .*HTTP 401.*HF_TOKEN",
            id="401: the access",
        ),
        pytest.param(
            Fault("status", "/resolve/", 403, {"X-Error-Code": "GatedRepo"}),
            ModelAccessError,
            "gated: accept its licence",
            id="403 gated: the access",
        ),
        pytest.param(
            Fault("status", "/resolve/", 403),
            ModelAccessError,
            r"refused access .*HTTP 403",
            id="403: the access",
        ),
        pytest.param(
            Fault("status", "/api/", 500),
            ModelDownloadError,
            r"the Hub answered HTTP 500",
            id="500 for the listing: the Hub",
        ),
        pytest.param(
            Fault("status", "/cdn/", 500),
            ModelDownloadError,
            r"the Hub answered HTTP 500.*model.safetensors",
            id="500 for the weights: the Hub",
        ),
        pytest.param(
            Fault("status", "resolve.*/tokenizer.json", 404, {"X-Error-Code": "EntryNotFound"}),
            ModelDownloadError,
            r"the Hub answered HTTP 404.*tokenizer.json",
            id="404 for a file that the Hub lists: the Hub",
        ),
        pytest.param(
            Fault("truncate", "GET /cdn/"),
            ModelDownloadError,
            "check network and disk",
            id="truncated weights: the network",
        ),
        pytest.param(
            Fault("truncate", "GET .*/tokenizer.json"),
            ModelDownloadError,
            "check network and disk",
            id="truncated tokenizer: the network",
        ),
    ],
)
def test_a_failed_fetch_says_what_is_at_fault_and_leaves_nothing_half_done_in_use(
    hub: Hub, cache: str, fault: Fault, error: type[Exception], message: str
) -> None:
    """The right class and words; the broken copy serves nobody; a later try succeeds."""
    hub.fault = fault
    with pytest.raises(error, match=message) as raised:
        fetch(BGE, cache_folder=cache)
    assert BGE in str(raised.value)
    with pytest.raises(ModelDownloadError, match="local cache"):
        fetch(BGE, cache_folder=cache, local_files_only=True)
    hub.fault = None
    assert files_of(fetch(BGE, cache_folder=cache)) == files_of(hub.find(BGE, "main")[1])


def ends(call: Callable[[], Any]) -> BaseException | None:
    """The error that a call ends with; fails when it does not end at all."""
    found: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            found.append(error)
        else:
            found.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert found, "it waits for ever"
    return found[0]


@pytest.mark.parametrize(
    "pattern",
    ["/api/", "HEAD .*/config.json", "GET .*/tokenizer.json", "GET /cdn/"],
    ids=["listing", "metadata", "file", "weights"],
)
def test_a_stalled_connection_is_given_up(hub: Hub, cache: str, pattern: str) -> None:
    """Wherever the Hub falls silent, a few timeouts later the network is named at fault."""
    hub.fault = Fault("stall", pattern)
    error = ends(lambda: fetch(BGE, cache_folder=cache))
    assert isinstance(error, ModelDownloadError)
    assert "check network and disk" in str(error)
    assert "imeout" in str(error)
    assert len(hub.requests) < 30
    hub.fault = None
    assert files_of(fetch(BGE, cache_folder=cache)) == files_of(hub.find(BGE, "main")[1])


def test_no_network_and_nothing_cached_names_the_network(
    monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    """A refused connection is not reported as a wrong name."""
    with running_hub() as hub:
        talk_to(hub, monkeypatch)
    with pytest.raises(ModelDownloadError, match=r"check network and disk.*'bundled'"):
        fetch(BGE, cache_folder=cache)


def test_the_client_s_offline_switch_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    """HF_HUB_OFFLINE forbids the network: with a cached copy it serves, without it is named."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelDownloadError, match="HF_HUB_OFFLINE is set"):
        fetch(BGE, cache_folder=cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = fetch(BGE, cache_folder=cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(BGE, cache_folder=cache) == folder


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_whole_cached_copy_serves_when_the_hub_does_not(
    hub: Hub, cache: str, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """An outage of the Hub stops nobody who has the model, and the log says so."""
    folder = fetch(BGE, cache_folder=cache)
    hub.fault = Fault("status", "/api/", status)
    with caplog.at_level(logging.WARNING, logger="rerank_plugins"):
        assert fetch(BGE, cache_folder=cache) == folder
    assert "cached copy" in caplog.text


def test_a_broken_fetch_of_a_newer_commit_leaves_the_older_one_in_use(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str
) -> None:
    """Main moved, its new weights arrive broken: without a network the old whole copy serves."""
    old = fetch(BGE, cache_folder=cache)
    hub.publish(BGE, tiny_checkpoints["ara"])
    hub.fault = Fault("truncate", "GET /cdn/")
    with pytest.raises(ModelDownloadError):
        fetch(BGE, cache_folder=cache)
    assert fetch(BGE, cache_folder=cache, local_files_only=True) == old


def without(folder: Path, to: Path, *names: str) -> Path:
    """A copy of a checkpoint that lacks some files."""
    shutil.copytree(folder, to)
    for name in names:
        (to / name).unlink()
    return to


def test_a_repository_without_config_is_no_checkpoint(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str, tmp_path: Path
) -> None:
    """The message names the file that is missing, and nothing was downloaded to find it out."""
    hub.publish("someone/notes", without(tiny_checkpoints["bge"], tmp_path / "x", "config.json"))
    with pytest.raises(UnsupportedModelError, match=r"'someone/notes' has no config\.json"):
        fetch("someone/notes", cache_folder=cache)
    assert not [request for request in hub.requests if "resolve" in request]


@pytest.mark.parametrize("base", ["bge", "camembert", "rstar"])
def test_a_repository_without_tokenizer_is_refused(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str, tmp_path: Path, base: str
) -> None:
    """On its own, transformers would make up an empty tokenizer, to which every word is unknown."""
    folder = without(tiny_checkpoints[base], tmp_path / "x", "tokenizer.json")
    hub.publish("someone/mute", folder)
    with pytest.raises(UnsupportedModelError, match="no tokenizer"):
        logits("someone/mute", cache_folder=cache)


def test_pickled_weights_are_refused_before_anything_is_fetched_unless_allowed(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str
) -> None:
    """A pickle can run code: only who says so reads one, and then it scores as the original."""
    hub.publish("someone/old", tiny_checkpoints["pickle_only"])
    with pytest.raises(UnsupportedModelError, match="allow_pickle_weights=True"):
        logits("someone/old", cache_folder=cache)
    assert not [request for request in hub.requests if "resolve" in request]
    allowed = logits("someone/old", cache_folder=cache, allow_pickle_weights=True)
    close(allowed, logits(tiny_checkpoints["bge"]))
    with pytest.raises(ModelDownloadError, match="local_files_only"):
        logits("someone/old", cache_folder=cache, local_files_only=True)


def test_pickled_weights_are_not_fetched_beside_safetensors(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str, tmp_path: Path
) -> None:
    """Allowing them does not fetch the same weights twice."""
    folder = without(tiny_checkpoints["bge"], tmp_path / "both")
    shutil.copy(tiny_checkpoints["pickle_only"] / "pytorch_model.bin", folder)
    hub.publish(BGE, folder)
    fetch(BGE, cache_folder=cache, allow_pickle_weights=True)
    assert not [request for request in hub.requests if "pytorch_model.bin" in request]


def test_code_is_fetched_only_when_it_is_trusted(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str, tmp_path: Path
) -> None:
    """Python files of a repository stay there by default."""
    folder = without(tiny_checkpoints["polish"], tmp_path / "code")
    (folder / "modeling.py").write_text("raise SystemExit\n")
    hub.publish("sdadas/polish-reranker-bge-v2", folder)
    plain = fetch("sdadas/polish-reranker-bge-v2", cache_folder=cache)
    assert not (plain / "modeling.py").exists()
    fetch("sdadas/polish-reranker-bge-v2", cache_folder=cache, trust_remote_code=True)
    assert (plain / "modeling.py").exists()


def test_weights_in_several_files_are_used_only_when_all_are_there(
    tiny_checkpoints: Mapping[str, Path], hub: Hub, cache: str, tmp_path: Path
) -> None:
    """A large model comes in shards; one of two is incomplete."""
    from transformers import AutoModelForSequenceClassification

    folder = without(tiny_checkpoints["bge"], tmp_path / "shards", "model.safetensors")
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoints["bge"])
    model.save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(file.name for file in folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    hub.publish(BGE, folder)
    hub.fault = Fault("truncate", f"GET /cdn/.*{shards[-1]}")
    with pytest.raises(ModelDownloadError):
        logits(BGE, cache_folder=cache)
    with pytest.raises(ModelDownloadError, match="nor completely"):
        logits(BGE, cache_folder=cache, local_files_only=True)
    hub.fault = None
    close(logits(BGE, cache_folder=cache), logits(tiny_checkpoints["bge"]))


@pytest.mark.parametrize("name", ["a b/c", "x/" + "y" * 200, "-a/b"])
def test_a_name_that_no_model_can_have_is_a_wrong_name(hub: Hub, cache: str, name: str) -> None:
    """Names that break the Hub's own rules are answered without asking it."""
    with pytest.raises(UnknownModelError):
        fetch(name, cache_folder=cache)
    assert hub.requests == []


def test_the_environment_s_endpoint_is_used(
    tiny_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """HF_ENDPOINT and HF_HOME, as users set them, in a separate process."""
    with running_hub() as hub:
        hub.publish(BGE, tiny_checkpoints["bge"])
        result = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from rerank_plugins.scoring.hub import fetch; print(fetch({BGE!r}))",
            ],
            env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=True,
        )
    folder = Path(result.stdout.strip())
    assert folder.is_relative_to(tmp_path / "home")
    assert files_of(folder) == files_of(tiny_checkpoints["bge"])
