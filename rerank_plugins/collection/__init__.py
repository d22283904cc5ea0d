"""Documents or nodes with ids and metadata over first stages: added, replaced, filtered, stored.

`Collection` is what LangChain's and LlamaIndex's retrievers and stores of this package share.
An adapter turns its objects into `Record`s and back, and reads its filters into `Filter`s.

=====================  =====================================================================
`Collection`           what changes: holds one `View`, and swaps in the next
`View`                 what never changes: records, first stages, which keys are alive
`Record`               one document or node
`filters`              the language of filters; `columns` indexes metadata for them
`stored`               what retrievers do with collections: add, delete, search, save, load
`hybrids`              several retrievers as one, over one view or several
=====================  =====================================================================
"""

from rerank_plugins.collection.collection import Collection
from rerank_plugins.collection.filters import (
    Compare,
    Either,
    Every,
    Filter,
    Function,
    Negated,
    read,
)
from rerank_plugins.collection.records import Record, check_id, check_ids, own
from rerank_plugins.collection.view import View

__all__ = [
    "Collection",
    "Compare",
    "Either",
    "Every",
    "Filter",
    "Function",
    "Negated",
    "Record",
    "View",
    "check_id",
    "check_ids",
    "own",
    "read",
]
