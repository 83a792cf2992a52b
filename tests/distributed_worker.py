"""One of several processes that ``tests/test_distributed.py`` starts: the runs of a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from polyprefix.config import RunConfig
from polyprefix.distributed import leave
from polyprefix.study import run, run_together

if __name__ == "__main__":
    for group in json.loads(Path(sys.argv[1]).read_text()):
        configs = [RunConfig.read(values) for values in group]
        run(configs[0]) if len(configs) == 1 else run_together(configs)
    leave()
