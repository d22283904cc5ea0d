"""tokenizer.json, read once however many models of this process have the same one."""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from rerank_plugins._threads import fork_safe_lock

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_read: WeakValueDictionary[bytes, Tokenizer] = WeakValueDictionary()
_guard = fork_safe_lock()


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a file, which neither truncates nor pads; callers must not change it.

    One of 100,000 pieces takes 80 MiB and a quarter of a second, and the bundled cross-encoder and
    encoder have the same: files of equal content give the same object while anyone holds it.

    Raises:
        OSError: If the file cannot be read.
        Exception: Of the library's own, if it is not a tokenizer.
    """
    from tokenizers import Tokenizer

    content = file.read_bytes()
    key = blake2b(content).digest()
    with _guard:
        found = _read.get(key)
        if found is None:
            found = Tokenizer.from_buffer(content)
            found.no_truncation()
            found.no_padding()
            with suppress(TypeError):  # a version whose tokenizers cannot be referred to weakly
                _read[key] = found
        return found


def lowercased(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that lowercases texts first, as sentence-transformers' ``do_lower_case`` has it."""
    from tokenizers import normalizers

    tokenizer = type(tokenizer).from_str(tokenizer.to_str())
    own = tokenizer.normalizer
    steps = [normalizers.Lowercase(), *([] if own is None else [own])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer
