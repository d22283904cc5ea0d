"""Snowball's stemmers, from PyStemmer where it has the language.

PyStemmer (C) has Polish from 3.1 on; with an older one, which LlamaIndex's BM25 package asks
for, Polish comes from snowballstemmer, the same project's Python version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, cast

from rerank_plugins.errors import MissingDependencyError

_NAMES: Final = {"fr": "french", "pl": "polish", "en": "english"}
_OF_THREAD = threading.local()  # stemmers keep state while they stem


def stem(word: str, language: str) -> str:
    """Snowball's stem of a lower-case word.

    Args:
        word: Lower case, with the accents that Snowball's rules expect.
        language: ``fr``, ``pl`` or ``en``.

    Raises:
        MissingDependencyError: No installed library has the language.
    """
    stemmers: dict[str, Callable[[str], str]] = _OF_THREAD.__dict__
    stem_word = stemmers.get(language)
    if stem_word is None:
        stem_word = stemmers[language] = _stemmer(_NAMES[language])
    return stem_word(word) or word


def _stemmer(name: str) -> Callable[[str], str]:
    import Stemmer

    if name in Stemmer.algorithms():
        # Analyzers remember what they stemmed; PyStemmer need not.
        return cast("Callable[[str], str]", Stemmer.Stemmer(name, 0).stemWord)
    try:
        module: Any = __import__(f"snowballstemmer.{name}_stemmer", fromlist=["_"])
    except ImportError:
        raise MissingDependencyError(
            f"PyStemmer {Stemmer.version()} has no {name} stemmer and snowballstemmer 3.1 is not "
            "installed: pip install 'PyStemmer>=3.1' or 'snowballstemmer>=3.1'"
        ) from None
    return cast("Callable[[str], str]", getattr(module, f"{name.capitalize()}Stemmer")().stemWord)
