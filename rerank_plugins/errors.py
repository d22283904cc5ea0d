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
    ├── ScoringError
    │   ├── NonFiniteScoreError                   the model gave NaN or infinity
    │   ├── OutOfMemoryError (also MemoryError)   one pair alone does not fit in the memory
    │   ├── ScoreCountError                       a scorer gave more or fewer scores than pairs
    │   └── RemoteError                           a scoring server failed
    │       ├── RemoteConnectionError             it cannot be reached, or the connection broke
    │       ├── RemoteTimeoutError                no whole answer in the time allowed
    │       ├── RemoteStatusError                 it answered with an HTTP status other than 200
    │       └── RemoteResponseError               its answer is not what the protocol promises
    └── StorageError                              an index could not be written or read
        ├── IndexWriteError                       disk full, no permission; the old one is whole
        ├── IndexNotFoundError                    no index in that folder
        ├── IndexDamagedError                     a file is missing, altered or no file of an index
        ├── IndexVersionError                     a newer version of this library wrote it
        └── IndexMismatchError                    the analyzer, the encoder or the kind is another
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


class OutOfMemoryError(ScoringError, MemoryError):
    """A forward pass does not fit in memory; out of a scorer: not even that of one pair."""


class ScoreCountError(ScoringError):
    """A scorer answered with a number of scores that differs from the number of pairs."""


class StorageError(RerankPluginsError):
    """An index could not be written or read."""


class IndexWriteError(StorageError):
    """An index could not be written; one that was there before is still there, whole."""


class IndexNotFoundError(StorageError):
    """The folder holds no index."""


class IndexDamagedError(StorageError):
    """A file of an index is missing, altered, or not what such a file must be."""


class IndexVersionError(StorageError):
    """The index has a format that this version of the library does not know."""


class IndexMismatchError(StorageError):
    """The index was made with another analyzer or encoder, or is of another kind."""


class RemoteError(ScoringError):
    """A scoring server failed, after the retries that made sense."""


class RemoteConnectionError(RemoteError):
    """The server cannot be reached, or the connection broke before the answer was whole."""


class RemoteTimeoutError(RemoteError):
    """There was no whole answer in the time allowed, retries included."""


class RemoteStatusError(RemoteError):
    """The server refused or failed; the message gives its HTTP status and what it said."""


class RemoteResponseError(RemoteError):
    """The answer came, but it is not what the protocol promises: nothing of it is used."""
