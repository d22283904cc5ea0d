"""Fetches a checkpoint from the Hugging Face Hub, and says what is at fault when it fails."""

from __future__ import annotations

from pathlib import Path

from rerank_plugins.catalog import near_names
from rerank_plugins.errors import (
    ModelAccessError,
    ModelDownloadError,
    ModelError,
    UnknownModelError,
    UnsupportedModelError,
)

_TEXT_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_SAFE_WEIGHTS = ["*.safetensors"]
_PICKLE_WEIGHTS = ["*.bin"]
_CODE = ["*.py"]


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

    The files at the top of the repository are taken and no others: exports for other
    runtimes lie in sub-folders. When the Hub cannot be reached, a whole cached copy serves.

    Raises:
        UnknownModelError: The Hub knows no such model or revision.
        ModelAccessError: A login or an accepted licence is needed.
        ModelDownloadError: The network failed, or it may not be used and no copy is cached.
        UnsupportedModelError: The repository has no weights that may be read.
    """
    from huggingface_hub import snapshot_download

    patterns = _TEXT_FILES + _SAFE_WEIGHTS
    if trust_remote_code:
        patterns = patterns + _CODE
    if allow_pickle_weights:
        patterns = patterns + _PICKLE_WEIGHTS
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_folder,
            local_files_only=local_files_only,
            allow_patterns=patterns,
            ignore_patterns=["*/*"],
        )
    except Exception as error:
        raise _named(error, name, revision, local_files_only=local_files_only) from error
    path = Path(folder)
    if not any(path.glob("*.safetensors")) and not (
        allow_pickle_weights and any(path.glob("*.bin"))
    ):
        raise UnsupportedModelError(
            f"{name!r} has no safetensors weights; if it has pickled ones (.bin) and you trust "
            "them, pass allow_pickle_weights=True"
        )
    return path


def _named(
    error: Exception, name: str, revision: str | None, *, local_files_only: bool
) -> ModelError:
    """The error that tells whether the name, the access or the network is at fault."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return ModelAccessError(
            f"{name!r} is gated: accept its licence on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownModelError(f"{name!r} has no revision {revision!r}")
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
        return UnknownModelError(
            f"the Hub shows no model {name!r}: it is misspelt, or private and you are not "
            f"logged in.{near_names(name)}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        why = "local_files_only is set" if local_files_only else "the Hub could not be reached"
        return ModelDownloadError(
            f"{name!r} is not in the local cache, and {why}: check the network, or load a "
            "folder; the model 'embedded' needs neither"
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            return ModelAccessError(
                f"the Hub refused access to {name!r} (HTTP {status}): log in with "
                "`hf auth login` or set HF_TOKEN"
            )
    return ModelDownloadError(
        f"fetching {name!r} failed, the network or the disk is at fault "
        f"({type(error).__name__}: {error}); what arrived whole is kept, try again"
    )
