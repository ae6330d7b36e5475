"""`torchrun` for one fit, which ends, with all that it started, when the process that asked for it does.

python -m outcross.train.agent PARENT PROCESSES FOLDER
"""

from __future__ import annotations

import os
import sys

from outcross.train.tether import die_with

AGENT = "OUTCROSS_TRAINING_AGENT"  # its process id, for those it starts


def main(parent: str, processes: str, folder: str) -> None:
    """Run `outcross.train.worker` in `processes` processes of this machine."""
    die_with(int(parent))
    os.environ[AGENT] = str(os.getpid())
    from torch.distributed.run import main as torchrun

    torchrun(["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", processes, "-m", "outcross.train.worker", folder])


if __name__ == "__main__":
    main(*sys.argv[1:])
