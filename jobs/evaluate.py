"""Up to the metrics, as a Ray job; the arguments are those of ``egra-dist run``.

ray job submit --working-dir . -- python jobs/evaluate.py CONFIG --catalog DIR --out DIR
"""

import sys

from egra_dist.cli import main

main(["run", *sys.argv[1:], "--stage", "evaluate"])
