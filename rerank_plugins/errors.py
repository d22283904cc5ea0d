"""The errors that the library raises, and nothing else comes out of it on bad input.

::

    RerankPluginsError
    ├── InvalidInputError (also ValueError)       a query, passage, option or file is bad
    ├── MissingDependencyError (also ImportError) an optional package is not installed
    ├── ModelError
    │   ├── UnknownModelError                     no model of that name: catalogue, folder or Hub
    │   ├── ModelAccessError                      the Hub wants a login or an accepted licence
    │   ├── ModelDownloadError                    the network failed, or a file arrived broken
    │   └── UnsupportedModelError                 the checkpoint is no usable cross-encoder
    └── ScoringError
        ├── NonFiniteScoreError                   the model gave NaN or infinity
        └── ScoreCountError                       a scorer gave more or fewer scores than pairs
"""

from __future__ import annotations


class RerankPluginsError(Exception):
    """Root of every error of this library."""


class InvalidInputError(RerankPluginsError, ValueError):
    """A value breaks a stated rule; the message gives the rule and the value."""


class MissingDependencyError(RerankPluginsError, ImportError):
    """An optional package is needed; the message gives the ``pip install`` line."""


class ModelError(RerankPluginsError):
    """A model could not be found, fetched or used."""


class UnknownModelError(ModelError):
    """No model goes by that name; the message lists the near ones."""


class ModelAccessError(ModelError):
    """The model exists, or may exist, but this user may not fetch it."""


class ModelDownloadError(ModelError):
    """The network failed, or a file arrived incomplete."""


class UnsupportedModelError(ModelError):
    """The checkpoint was read, but it is no cross-encoder that can score pairs."""


class ScoringError(RerankPluginsError):
    """A scorer failed on valid input."""


class NonFiniteScoreError(ScoringError):
    """A score is NaN or infinite; no order can be made of it."""


class ScoreCountError(ScoringError):
    """A scorer answered with a number of scores that differs from the number of pairs."""
