"""Snowball's stemmers, from PyStemmer where it has the language.

PyStemmer (C) has Polish from 3.1 on; with an older one, which LlamaIndex's BM25 package asks
for, Polish comes from snowballstemmer, the same project's Python version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

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
    if language not in stemmers:
        stemmers[language] = _stemmer(_NAMES[language])
    return stemmers[language](word)


def _stemmer(name: str) -> Callable[[str], str]:
    import Stemmer

    if name in Stemmer.algorithms():
        # Analyzers remember what they stemmed; PyStemmer need not.
        return _checked(Stemmer.Stemmer(name, 0).stemWord)
    try:
        module: Any = __import__(f"snowballstemmer.{name}_stemmer", fromlist=["_"])
    except ImportError:
        raise MissingDependencyError(
            f"PyStemmer {Stemmer.version()} has no {name} stemmer and snowballstemmer 3.1 is not "
            "installed: pip install 'PyStemmer>=3.1' or 'snowballstemmer>=3.1'"
        ) from None
    return _checked(getattr(module, f"{name.capitalize()}Stemmer")().stemWord)


def _checked(stem_word: Callable[[str], str]) -> Callable[[str], str]:
    return lambda word: stem_word(word) or word
