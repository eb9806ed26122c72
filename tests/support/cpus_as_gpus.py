"""A process of a sharded run on a CPU: accelerate takes it for one with a GPU, and gloo for NCCL.

accelerate shards on GPUs alone; on CPUs it would make plain copies without a word. Everything but
the device is what runs on GPUs: launcher, its file in config/accelerate, sharding, state.
"""

import os
import sys
from pathlib import Path

from accelerate import DistributedType
from accelerate.state import PartialState

from dying_process import die_before
from implicit_tuning.training import distributed, run, sharding

if __name__ == "__main__":
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
    run.require_usable = lambda settings: None
    sharding._require_device = lambda accelerator, settings: None
    if "DIE_BEFORE_UPDATE" in os.environ:
        die_before(int(os.environ["DIE_BEFORE_UPDATE"]))
    distributed.main(Path(sys.argv[1]))
