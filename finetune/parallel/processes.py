"""Forming of process groups: of processes that torchrun starts, or that meet at the first one's address."""

import ipaddress
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module

import torch
from torch._C._distributed_c10d import HashStore, Store, TCPStore
from torch.distributed.rendezvous import rendezvous

from finetune.errors import ProcessGroupError
from finetune.parallel.deepspeed_private import check_names, leave_reductions_uncompiled
from finetune.parallel.process_group import ProcessGroup

PATIENCE = timedelta(days=365)
"""Longest wait for a message of the first process, which may compute for long without the model."""

_GRACE = 5.0
"""Seconds in which the launcher finds the process that ended first, and ends the others."""


@contextmanager
def joined_group() -> Iterator[ProcessGroup]:
    """Join the processes started by torchrun, or by another launcher that sets its variables; leave them at the end.

    After an error this process does not close the process group, which would end the others before it has reported the
    error.

    Raises:
        ProcessGroupError: DeepSpeed is not installed, or nothing says which processes there are.
    """
    if not torch.distributed.is_torchelastic_launched():
        raise ProcessGroupError("a process group is started by torchrun: torchrun --nproc-per-node 2 ...")
    store, rank, size = next(rendezvous("env://"))
    process_group = _joined(store, rank, size, os.environ["MASTER_ADDR"])
    try:
        yield process_group
    except RuntimeError as error:
        if is_lost_connection(error):
            # The process that left first is at fault. Without the pause a busy launcher might find this one first.
            time.sleep(_GRACE)
        raise
    torch.distributed.destroy_process_group()


class MeetingPoint:
    """Meeting point of the processes of a group: a port of the first one, which listens on one address alone.

    Args:
        address: IP address of this process's node, as the others reach it.
    """

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self._socket.bind((address, 0))
        self._socket.listen()
        self.address = address
        self.port: int = self._socket.getsockname()[1]

    def open(self, size: int) -> ProcessGroup:
        """Begin a process group of `size` processes, with this one as the first.

        Raises:
            ProcessGroupError: DeepSpeed is not installed.
        """
        store = TCPStore(
            self.address, self.port, size, True, wait_for_workers=False, master_listen_fd=self._socket.detach()
        )
        return _joined(store, 0, size, self.address)


def meet(address: str, port: int, rank: int, size: int, own_address: str) -> ProcessGroup:
    """Join the process group whose first process listens at an address and port.

    Args:
        address: of the first process.
        port: likewise.
        rank: number of this process, at least 1.
        size: processes of the group.
        own_address: IP address of this process's node.

    Raises:
        ProcessGroupError: DeepSpeed is not installed.
    """
    store = TCPStore(address, port, size, False, wait_for_workers=False)
    return _joined(store, rank, size, own_address)


def in_a_group() -> None:
    """Make this process a process group by itself unless it belongs to one: DeepSpeed needs one.

    Raises:
        ProcessGroupError: DeepSpeed is not installed.
    """
    if not torch.distributed.is_initialized():
        _joined(HashStore(), 0, 1, "127.0.0.1")


def is_lost_connection(error: BaseException) -> bool:
    """Tell whether an error comes from processes of the group that are no longer there."""
    words = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe")
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    )


def _joined(store: Store, rank: int, size: int, address: str) -> ProcessGroup:
    _prepare_deepspeed()
    # DeepSpeed asks for the number of its GPU: unless torchrun says another, a process sees none but its own.
    os.environ.setdefault("LOCAL_RANK", "0")
    store.set_timeout(PATIENCE)
    if interface := _interface(address):
        # By default they resolve the host's name, which on many clusters leads to another network, or to none.
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, interface)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    import deepspeed

    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    return ProcessGroup(rank, size, store if size > 1 else None)


def _prepare_deepspeed() -> None:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it found no other
    # DeepSpeed calls functions of torch by deprecated names, which users cannot change.
    warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)
    try:
        import_module("deepspeed")
    except ImportError as error:
        raise ProcessGroupError(
            f"a process group needs DeepSpeed, which cannot be imported ({error}): install the extra `sharded`"
        ) from error
    check_names()
    if not torch.cuda.is_available():
        leave_reductions_uncompiled()


def _interface(address: str) -> str | None:
    """Return the name of the network interface that has an address; None where this machine has none such."""
    import psutil  # DeepSpeed needs it too

    if ipaddress.ip_address(socket.gethostbyname(address)).is_loopback:
        return next((name for name, facts in psutil.net_if_stats().items() if "loopback" in facts.flags), None)
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if any(each.address == address for each in addresses)), None)
