"""Indexes on disk: written whole or not at all, checked before use, never pickled.

An index is a folder::

    manifest.json        format, kind, settings, versions, and each file's size and SHA-256
    data-<32 hex>/       the files: JSON lines, .npy arrays, faiss's own format

``manifest.json`` names the folder of its files, so replacing that one file replaces the index:
a save writes a new ``data-`` folder, flushes it to the disk, then renames a new manifest over
the old. Whenever the process or the machine stops, the manifest that is there belongs to files
that are whole. Folders that no manifest names are swept by the next save. Saves of one path
wait for each other; a load that meets a save starts again on the new index.

Formats older than this library's are refused by name: such an index is built again.

Checksums find damage, not malice: who can write the files can write their checksums too.
Nothing in them is executed, and sizes and names are checked before anything is read.
"""

from rerank_plugins.first_stage.storage._manifest import FORMAT, check_json, rendered
from rerank_plugins.first_stage.storage._reading import Reader, load
from rerank_plugins.first_stage.storage._writing import Writer, save

__all__ = ["FORMAT", "Reader", "Writer", "check_json", "load", "rendered", "save"]
