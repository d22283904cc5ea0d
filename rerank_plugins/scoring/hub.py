"""Fetches a checkpoint from the Hugging Face Hub, and says what is at fault when it fails.

The Hub client's ``snapshot_download`` asks the Hub which files there are without any timeout,
so a Hub that accepts a connection and then says nothing would hold a user for ever. Here that
question has one, and each file is asked for with one before the client's own patient retries
begin. Files go through the client's ``hf_hub_download``, into its cache.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from rerank_plugins.errors import (
    ModelAccessError,
    ModelDownloadError,
    ModelError,
    UnknownModelError,
    UnsupportedModelError,
)
from rerank_plugins.models.catalog import near_names
from rerank_plugins.scoring.saved import module_folders

logger = logging.getLogger(__name__)

_TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_CODE = ("*.py",)
_SAFE_WEIGHTS = "model*.safetensors"
# Of PEFT; the weights beside it are an adapter's.
_ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TEMPLATES = "additional_chat_templates"
_PICKLE_WEIGHTS = "pytorch_model*.bin"


def fetch(
    name: str,
    *,
    revision: str | None = None,
    cache_folder: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle_weights: bool = False,
) -> Path:
    """Folder of the checkpoint in the local cache, fetched when it is not there yet.

    The files at the top of the repository are taken and those of the modules that modules.json
    names: exports for other runtimes lie in other sub-folders. A pinned commit that is cached
    needs no network. When the Hub
    cannot be asked, or refuses, a whole cached copy serves. A Hub that stops answering is
    given up after the client's timeouts, about a minute (``HF_HUB_ETAG_TIMEOUT`` and
    ``HF_HUB_DOWNLOAD_TIMEOUT``, seconds, 10 each).

    Raises:
        UnknownModelError: If the Hub knows no such model or revision.
        ModelAccessError: If a login or an accepted licence is needed.
        ModelDownloadError: If the network failed, or it may not be used and no copy is cached.
        UnsupportedModelError: If the repository is not a checkpoint, or has no weights that may be
            read.
    """
    pinned = revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None
    if local_files_only or pinned:
        cached = _cached(name, revision, cache_folder, allow_pickle=allow_pickle_weights)
        if cached is not None:
            return cached
        if local_files_only:
            raise ModelDownloadError(
                f"{name!r} is not a local folder, nor completely in the local cache, and "
                "local_files_only is set: fetch it once without, or load a folder; the model "
                "'bundled' needs neither"
            )
    try:
        commit, listed = _listing(name, revision)
    except Exception as error:
        explained = _explained(error, name, revision)
        cached = _cached(name, revision, cache_folder, allow_pickle=allow_pickle_weights)
        if cached is None:
            raise explained from error
        logger.warning("the cached copy of %s is used, since %s", name, explained)
        return cached
    files = _needed(name, listed, code=trust_remote_code, allow_pickle=allow_pickle_weights)
    try:
        if "modules.json" in listed:
            # By its commit, so that the branch does not stand for it yet.
            folder = _download(name, commit, commit, ["modules.json"], cache_folder)
            parts = tuple(f"{one}/" for one in (*module_folders(folder), _TEMPLATES))
            # First, since the weights come last: a folder that has them is whole.
            files = (
                sorted(file for file in listed if file.startswith(parts) and _wanted(file, parts))
                + files
            )
        return _download(name, revision, commit, files, cache_folder)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise _explained(error, name, revision) from error


def _wanted(file: str, folders: tuple[str, ...]) -> bool:
    """Whether a file of a module's folder is read: settings and weights, no code."""
    inner = next(file[len(folder) :] for folder in folders if file.startswith(folder))
    patterns = (*_TEXT_FILES, _SAFE_WEIGHTS, _PICKLE_WEIGHTS)
    return "/" not in inner and any(fnmatchcase(inner, pattern) for pattern in patterns)


def _listing(name: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit behind a revision, and its files."""
    from huggingface_hub import HfApi, constants

    info = HfApi().model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    return str(info.sha), [sibling.rfilename for sibling in info.siblings or []]


def _needed(name: str, listed: Iterable[str], *, code: bool, allow_pickle: bool) -> list[str]:
    """The files to take, the weights last: a folder that has them all is whole."""
    top = sorted(file for file in listed if "/" not in file)

    def matching(*patterns: str) -> list[str]:
        return [file for file in top if any(fnmatchcase(file, pattern) for pattern in patterns)]

    if "config.json" not in top and _ADAPTER not in top:
        raise UnsupportedModelError(
            f"{name!r} has no config.json: it is not a transformers checkpoint"
        )
    weights = matching(_SAFE_WEIGHTS) or matching(_ADAPTER_WEIGHTS)
    if not weights and allow_pickle:
        weights = matching(_PICKLE_WEIGHTS)
    if not weights:
        raise UnsupportedModelError(
            f"{name!r} has no safetensors weights; if it has pickled ones (.bin) and you trust "
            "them, pass allow_pickle_weights=True"
        )
    return matching(*_TEXT_FILES, *(_CODE if code else ())) + weights


def _download(
    name: str, revision: str | None, commit: str, files: list[str], cache_folder: str | None
) -> Path:
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )

    for file in files:
        cached = try_to_load_from_cache(name, file, cache_dir=cache_folder, revision=commit)
        if not isinstance(cached, str):
            # hf_hub_download alone would retry a silent Hub for about six minutes.
            get_hf_file_metadata(
                hf_hub_url(name, file, revision=commit), timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
        path = hf_hub_download(name, file, revision=commit, cache_dir=cache_folder)
    if revision != commit:
        # The client notes which commit the branch stands for only when asked by the branch's
        # name. Last, so that a branch never stands for a commit that is half there.
        hf_hub_download(name, files[-1], revision=revision, cache_dir=cache_folder)
    return Path(path).parents[files[-1].count("/")]


def _cached(
    name: str, revision: str | None, cache_folder: str | None, *, allow_pickle: bool
) -> Path | None:
    """The cached copy, if there is a whole one."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_folder,
                local_files_only=True,
                # What the client knows of the commit's files it then compares with the folder.
                allow_patterns=["*.json", _SAFE_WEIGHTS, _ADAPTER_WEIGHTS],
                ignore_patterns=["*/*"],
            )
        )
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None
    safe = _has_weights(folder, _SAFE_WEIGHTS, "model.safetensors.index.json")
    whole = safe or (folder / _ADAPTER_WEIGHTS).is_file()
    if not whole and allow_pickle:
        whole = _has_weights(folder, _PICKLE_WEIGHTS, "pytorch_model.bin.index.json")
    modules = all((folder / one / "config.json").is_file() for one in module_folders(folder))
    described = (folder / "config.json").is_file() or (folder / _ADAPTER).is_file()
    return folder if whole and modules and described else None


def _has_weights(folder: Path, pattern: str, index: str) -> bool:
    if not (folder / index).is_file():
        return any(folder.glob(pattern))
    shards = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
    return all((folder / shard).is_file() for shard in set(shards))


def _explained(error: Exception, name: str, revision: str | None) -> ModelError:
    """The error to raise: the name, the access, the Hub or the network is at fault."""
    from huggingface_hub import errors

    cause = error.__cause__
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(cause, Exception):
        error = cause
    if isinstance(error, errors.GatedRepoError):
        return ModelAccessError(
            f"{name!r} is gated: accept its licence on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownModelError(f"{name!r} has no revision {revision!r}")
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
        return UnknownModelError(
            f"Model not found: the Hub shows no model {name!r}, and no local folder has that "
            f"path. It is misspelled, or private and you are not logged in.{near_names(name)}"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error.response.status_code, str(error.response.request.url), name)
    offline = isinstance(error, errors.OfflineModeIsEnabled)
    return ModelDownloadError(
        f"{name!r} is not a local folder, nor completely in the local cache, and HF_HUB_OFFLINE "
        f"is set: unset it, run `rerank-plugins warm-up --model {name}` once with a network, or "
        "use the model 'bundled'"
        if offline
        else f"Download of {name!r} failed ({type(error).__name__}: {error}): check network and "
        "disk, then retry; completed files are cached. The model 'bundled' needs no network"
    )


def _refused(status: int, url: str, name: str) -> ModelError:
    if status in {401, 403}:
        return ModelAccessError(
            f"the Hub refused access to {name!r} (HTTP {status}): log in with "
            "`hf auth login`, or set HF_TOKEN to a token that may read it"
        )
    return ModelDownloadError(
        f"Download of {name!r} failed: the Hub answered HTTP {status} for {url}; retry later, "
        "completed files are cached"
    )
