"""Connects the processes of a launch that torchrun has started again."""

import os
from datetime import timedelta

import torch.distributed as dist
from pytorch_lightning import Trainer
from torch.distributed import PrefixStore, TCPStore

AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
COUNT = "TORCHELASTIC_RESTART_COUNT"


def connect_again(trainer: Trainer) -> None:
    """Connects the processes under names that only this restart uses; does nothing in a first launch.

    By hand, because torch (2.14) keeps the store of the first launch, with the addresses of processes that are gone
    (`torch.distributed.rendezvous._create_c10d_store` says that each retry has a new store, which is not so with
    `--rdzv-backend=c10d`). A process that reads such an address before the new one is written cannot connect, or waits
    for ever. Lightning takes the connection that exists.
    """
    count = int(os.environ.get(COUNT, 0))
    if count == 0 or os.environ.get(AGENT_STORE) != "True" or trainer.world_size == 1:
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, world_size, is_master=False, timeout=timedelta(minutes=30))
    backend = "nccl" if trainer.strategy.root_device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=PrefixStore(f"restart_{count}", store), rank=rank, world_size=world_size)
