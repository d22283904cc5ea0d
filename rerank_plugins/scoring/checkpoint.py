"""Reads a checkpoint folder: what its config and tokenizer say, before any weight is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from rerank_plugins.errors import (
    InvalidInputError,
    MissingDependencyError,
    RerankPluginsError,
    UnsupportedModelError,
)
from rerank_plugins.scoring.base import LongPassages
from rerank_plugins.scoring.checkpoint_files import (
    DECIDING,
    check_shape,
    check_shards,
    check_sizes,
    code_elsewhere,
)
from rerank_plugins.scoring.checkpoint_files import (
    defaults as defaults_of,
)
from rerank_plugins.scoring.lightweight import Lightweight
from rerank_plugins.scoring.pair_form import check_pair_form
from rerank_plugins.scoring.plain_tokenizer import read_plainly
from rerank_plugins.scoring.saved import SavedSettings, module_folders, read_saved
from rerank_plugins.scoring.tokenizer_files import lowercased

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# In these architectures position ids start behind the padding id, so two of the positions
# that config.json counts are never used (514 means 512).
_OFFSET_POSITIONS = {
    "camembert",
    "data2vec-text",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
# Tokenizers without a limit say so with a huge number.
_NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a cross-encoder checkpoint says of itself.

    Attributes:
        folder: Where it lies.
        architecture: Model type of config.json, such as ``xlm-roberta``.
        labels: 1, or 2 when the head has a class for irrelevant and one for relevant. The
            sentence-transformers engine takes the number from the model that it loads.
        relevant: Which of two labels is the relevant one.
        activation: What its authors put over the logits: ``sigmoid``, ``identity``,
            ``softmax``.
        max_length: Usable tokens per pair, special tokens included.
        with_types: Whether the tokenizer gives token type ids and the model takes them.
        window_tokens, long_passages, first_stage_weight: Scoring defaults; a checkpoint may
            set them under ``rerank_plugins`` in config.json.
        saved: What sentence-transformers saved beside the weights.
        form: How pairs are put to a causal language model, a name of `causal_forms.FORMS`; None
            for the way that ``saved`` tells.
        tokenizer: The fast tokenizer; None where only sentence-transformers reads the pairs.
        pad_id: Id that fills short rows.
        lightweight: What is left out of a model that can be cut; None for all others.
        runs_code: Whether code of its own runs, so that scores may be others than without.
    """

    folder: Path
    architecture: str
    labels: int
    relevant: int
    activation: str
    max_length: int
    with_types: bool
    window_tokens: int | None
    long_passages: LongPassages
    first_stage_weight: float
    saved: SavedSettings
    tokenizer: Tokenizer | None
    pad_id: int
    form: str | None = None
    lightweight: Lightweight | None = None
    runs_code: bool = False

    @property
    def pair_tokenizer(self) -> Tokenizer:
        """The tokenizer, where pairs are two texts with special tokens around them.

        Raises:
            UnsupportedModelError: If the pairs have another form.
        """
        if self.tokenizer is None:
            raise UnsupportedModelError(
                f"the checkpoint in {self.folder} asks for pairs in a custom form "
                f"({', '.join(self.saved.beyond) or 'a causal language model'}), which is not "
                "supported here"
            )
        return self.tokenizer

    @property
    def independent(self) -> bool:
        """Whether two labels are independent, each with its own probability."""
        return self.labels == 2 and self.activation == "sigmoid"

    def fingerprint(self) -> str:
        """Changes with every file, at the top or of a module, and whether code runs.

        Reads the weights: about a second a gigabyte.
        """
        told = blake2b(b"code" if self.runs_code else b"", digest_size=16)
        folders = [self.folder, *(self.folder / name for name in module_folders(self.folder))]
        for folder in folders:
            for file in sorted(folder.iterdir()):
                # A calibration is applied to the logits, often once the model is in use.
                decides = file.suffix in DECIDING and file.name != "calibration.json"
                if decides and file.is_file():
                    with file.open("rb") as content:
                        whole = _file_digest(content)
                    name = file.relative_to(self.folder).as_posix()
                    told.update(f"{name}\0{whole}\0".encode())
        return told.hexdigest()


def read_checkpoint(folder: Path, *, trust_remote_code: bool = False) -> Checkpoint:
    """Reads config and tokenizer of a checkpoint.

    Raises:
        UnsupportedModelError: If a file is missing or damaged, the head has more than two
            labels, or the tokenizer is not a fast one.
        MissingDependencyError: If the tokenizer needs a library that is not installed.
    """
    try:
        return _read(folder, trust_remote_code=trust_remote_code)
    except RerankPluginsError:
        raise
    except BaseException as error:  # whatever a damaged or hostile file makes the libraries raise
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise UnsupportedModelError(
            f"the checkpoint in {folder} could not be read: {error}"
        ) from error


def is_panic(error: BaseException) -> bool:
    """Whether the Rust code of the tokenizers gave up: its exception is no `Exception`."""
    return type(error).__name__ == "PanicException"


def _read(folder: Path, *, trust_remote_code: bool) -> Checkpoint:
    config_file = folder / "config.json"
    raw = {}
    if folder.is_dir():
        check_sizes(folder)
    if config_file.is_file():
        raw = json.loads(config_file.read_text(encoding="utf-8"))
    saved = read_saved(folder, raw, remote_code=trust_remote_code)
    if not raw and not saved.beyond:
        raise UnsupportedModelError(f"{folder} is not a checkpoint: config.json is missing")
    check_shards(folder)
    defaults = defaults_of(raw.get("rerank_plugins", {}), folder)
    if saved.beyond or saved.causal:
        if "hidden_size" in raw and (
            saved.causal or not (folder / "adapter_config.json").is_file()
        ):
            check_shape(SimpleNamespace(**raw), folder)
        found = _as_saved(folder, raw, saved, defaults)
    else:
        found = _as_classifier(folder, raw, saved, defaults, trust_remote_code=trust_remote_code)
    return replace(found, runs_code=trust_remote_code and "auto_map" in raw)


def _as_saved(
    folder: Path, raw: dict[str, Any], saved: SavedSettings, defaults: dict[str, Any]
) -> Checkpoint:
    """A checkpoint whose pairs sentence-transformers reads: labels and length come later."""
    return Checkpoint(
        folder=folder,
        architecture=str(raw.get("model_type", "")),
        labels=1,
        relevant=relevant_label(raw.get("id2label")),
        activation=saved.activation or "sigmoid",
        max_length=defaults["max_length"] or _NO_LIMIT,
        with_types=False,
        window_tokens=defaults["window_tokens"],
        long_passages=cast("LongPassages", defaults["long_passages"]),
        first_stage_weight=float(defaults["first_stage_weight"]),
        saved=saved,
        tokenizer=None,
        pad_id=0,
        form=defaults["form"],
    )


def _as_classifier(
    folder: Path,
    raw: dict[str, Any],
    saved: SavedSettings,
    defaults: dict[str, Any],
    *,
    trust_remote_code: bool,
) -> Checkpoint:
    read = None if trust_remote_code else read_plainly(folder, raw)
    config, tokenizer = read or _read_by_transformers(folder, trust_remote_code=trust_remote_code)
    check_shape(config, folder)
    if not any((folder / name).is_file() for name in tokenizer.vocab_files_names.values()):
        # Without this, transformers makes up a tokenizer to which every word is unknown.
        raise UnsupportedModelError(
            f"the checkpoint in {folder} has no tokenizer: it needs one of "
            f"{sorted(tokenizer.vocab_files_names.values())}"
        )
    if not tokenizer.is_fast:
        raise UnsupportedModelError(
            f"the checkpoint in {folder} has no fast tokenizer ({type(tokenizer).__name__}): "
            "save it with a tokenizer.json"
        )
    labels = int(config.num_labels)
    if labels not in (1, 2):
        raise UnsupportedModelError(
            f"a cross-encoder has one label or two, but the checkpoint in {folder} has {labels}"
        )
    architecture = str(config.model_type)
    check_pair_form(tokenizer, architecture, folder)
    backend = tokenizer.backend_tokenizer
    backend = lowercased(backend) if saved.lowercase else backend
    # So that encoders share it: it may take tens of megabytes.
    backend.no_truncation()
    backend.no_padding()
    return Checkpoint(
        folder=folder,
        architecture=architecture,
        labels=labels,
        relevant=relevant_label(raw.get("id2label")) if labels == 2 else 0,
        activation=saved.activation or ("sigmoid" if labels == 1 else "softmax"),
        max_length=_usable_length(
            config, saved.max_seq_length or tokenizer.model_max_length, defaults["max_length"]
        ),
        with_types=(
            "token_type_ids" in tokenizer.model_input_names
            and int(getattr(config, "type_vocab_size", 0)) > 1
        ),
        window_tokens=defaults["window_tokens"],
        long_passages=cast("LongPassages", defaults["long_passages"]),
        first_stage_weight=float(defaults["first_stage_weight"]),
        saved=saved,
        tokenizer=backend,
        pad_id=int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else 0,
    )


def _read_by_transformers(folder: Path, *, trust_remote_code: bool) -> tuple[Any, Any]:
    """Config and tokenizer as transformers makes them."""
    from transformers import AutoConfig, AutoTokenizer

    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")):
        missing = [name for name in ("sentencepiece", "google.protobuf") if not _installed(name)]
        if missing:
            # Transformers would ask for tiktoken, which is of no use here.
            raise MissingDependencyError(
                f"the checkpoint in {folder} has a SentencePiece model and no tokenizer.json: "
                "pip install sentencepiece protobuf"
            )
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(folder, **options)
    except OSError as error:
        if trust_remote_code and (elsewhere := code_elsewhere(folder)):
            raise UnsupportedModelError(
                f"the checkpoint in {folder} takes its code from {elsewhere[0]!r}, which is not in "
                "the Hub client's cache: if you trust that too, fetch it once with "
                f"huggingface_hub.snapshot_download({elsewhere[0]!r}, allow_patterns='*.py')"
            ) from error
        raise
    # Before the tokenizer, which may be large too.
    check_shape(config, folder)
    return config, AutoTokenizer.from_pretrained(folder, **options)


def _file_digest(content: BinaryIO) -> str:
    """BLAKE2b of an open file, hexadecimal; never more than a megabyte of it in memory."""
    told = blake2b(digest_size=16)
    while part := content.read(1 << 20):
        told.update(part)
    return told.hexdigest()


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent package of a dotted name
        return False


def positions_before_the_first(config: Any) -> int:
    """How many of the positions that config.json counts no token ever has."""
    if config.model_type not in _OFFSET_POSITIONS:
        return 0
    return 2 if config.pad_token_id is None else int(config.pad_token_id) + 1


def _usable_length(config: Any, stated: float | None, own: int | None) -> int:
    """The smallest of the limits that the checkpoint states."""
    limits = [own] if own is not None else []
    if stated and stated < _NO_LIMIT:
        limits.append(int(stated))
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions > 0:
        limits.append(int(positions) - positions_before_the_first(config))
    # BERT's length; only a checkpoint that states no limit anywhere comes to this.
    return min(limits) if limits else 512


def checked_max_length(checkpoint: Checkpoint, wanted: int | None) -> int:
    """The length to use.

    Raises:
        InvalidInputError: If more than the model can take is wanted.
    """
    if wanted is None:
        return checkpoint.max_length
    if wanted > checkpoint.max_length:
        raise InvalidInputError(
            f"max_length must be at most {checkpoint.max_length}, the usable length of the "
            f"checkpoint in {checkpoint.folder}, but got {wanted}"
        )
    return wanted


def relevant_label(id2label: Mapping[Any, str] | None) -> int:
    """Index of the relevant one of two classes: the second, unless the names say otherwise."""
    if id2label is None:
        return 1
    names = {int(index): str(name).lower() for index, name in id2label.items()}
    negative = re.compile(r"(no|not|non|false|0)(?![a-z0-9])|(not|non|un|ir)_?-?rel|neg")
    says_no = {index: negative.match(name) is not None for index, name in names.items()}
    return 0 if says_no.get(1) and not says_no.get(0) else 1
