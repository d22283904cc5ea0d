"""The exceptions that the library raises; bad input raises nothing else.

::

    RerankPluginsError
    ├── InvalidInputError (also ValueError)       a query, passage, option or file is invalid
    ├── MissingDependencyError (also ImportError) an optional package is not installed
    ├── ModelError
    │   ├── UnknownModelError                     not a catalog name, a folder or a Hub ID
    │   ├── ModelAccessError                      the Hub requires a login or an accepted license
    │   ├── ModelDownloadError                    the network failed, or a file is incomplete
    │   └── UnsupportedModelError                 the checkpoint cannot be used as a cross-encoder
    ├── ScoringError
    │   ├── NonFiniteScoreError                   the model gave NaN or infinity
    │   ├── OutOfMemoryError (also MemoryError)   a single pair does not fit in memory
    │   ├── ScoreCountError                       a scorer gave more or fewer scores than pairs
    │   └── RemoteError                           a scoring server failed
    │       ├── RemoteConnectionError             unreachable, or the connection broke
    │       ├── RemoteTimeoutError                no complete response within the timeout
    │       ├── RemoteStatusError                 HTTP status other than 200
    │       └── RemoteResponseError               the response does not follow the protocol
    └── StorageError                              an index could not be written or read
        ├── IndexWriteError                       disk full, no permission; the old index is intact
        ├── IndexNotFoundError                    the folder has no index
        ├── IndexDamagedError                     a file is missing, altered or foreign
        ├── IndexVersionError                     written by an incompatible version
        └── IndexMismatchError                    other analyzer, encoder or kind of index
"""

from __future__ import annotations


class RerankPluginsError(Exception):
    """Base class of all exceptions of this library."""


class InvalidInputError(RerankPluginsError, ValueError):
    """A value is invalid; the message states the rule and the value received."""


class MissingDependencyError(RerankPluginsError, ImportError):
    """An optional package is missing; the message has the ``pip install`` command."""


class ModelError(RerankPluginsError):
    """A model could not be found, downloaded or used."""


class UnknownModelError(ModelError):
    """Model not found; the message lists similar names."""


class ModelAccessError(ModelError):
    """The model may exist, but this user is not allowed to download it."""


class ModelDownloadError(ModelError):
    """The network failed, or a file is incomplete."""


class UnsupportedModelError(ModelError):
    """The checkpoint was read, but it cannot score pairs as a cross-encoder."""


class ScoringError(RerankPluginsError):
    """A scorer failed on valid input."""


class NonFiniteScoreError(ScoringError):
    """A score is NaN or infinite and cannot be ranked."""


class OutOfMemoryError(ScoringError, MemoryError):
    """A forward pass does not fit in memory, even with a single pair."""


class ScoreCountError(ScoringError):
    """A scorer returned more or fewer scores than pairs."""


class StorageError(RerankPluginsError):
    """An index could not be written or read."""


class IndexWriteError(StorageError):
    """An index could not be written; an index that existed before is intact."""


class IndexNotFoundError(StorageError):
    """The folder does not contain an index."""


class IndexDamagedError(StorageError):
    """A file of an index is missing, altered or malformed."""


class IndexVersionError(StorageError):
    """The index has a format that this version of the library cannot read."""


class IndexMismatchError(StorageError):
    """The index was built with another analyzer or encoder, or is of another kind."""


class RemoteError(ScoringError):
    """A scoring server failed, retries included."""


class RemoteConnectionError(RemoteError):
    """The server is unreachable, or the connection broke before the response was complete."""


class RemoteTimeoutError(RemoteError):
    """No complete response arrived within the timeout, retries included."""


class RemoteStatusError(RemoteError):
    """The server refused or failed; the message has its HTTP status and response."""


class RemoteResponseError(RemoteError):
    """The response does not follow the protocol; no part of it is used."""
