"""``python -m rerank_plugins``: the command line, also where scripts are not on the path."""

import sys

from rerank_plugins.cli import main

sys.exit(main())
