"""Work shared over the processes of one launch (torchrun, `accelerate launch`), with the same result in each.

Used in notebook 08, section 5.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
import torch.distributed as distributed
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env

Item = TypeVar("Item")
Found = TypeVar("Found")
_sharing = ContextVar("sharing", default=False)


@contextmanager
def sharing() -> Iterator[None]:
    """Within this context `over_processes` shares its work. Every process must enter it, and make the same calls there.

    Outside of it each process does all the work by itself, so that a single one may, for example, recommend alone.
    """
    join()
    token = _sharing.set(True)
    try:
        yield
    finally:
        _sharing.reset(token)


def join() -> int:
    """Wait for the other processes of the launch, and count all of them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 1
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    state = PartialState(cpu=cpu)  # joins them where nothing has yet, and takes this process's own GPU
    state.wait_for_everyone()
    return state.num_processes


def over_processes(work: Callable[[Sequence[Item]], Iterable[Found]], items: Sequence[Item]) -> list[Found]:
    """`work(items)`, one result per item and in their order, in every process.

    Within `sharing` process p of P works on items p, p + P, ... and all results are gathered. Each item must be worked on by
    itself (a batch of prompts, not one prompt of a batch): the result is then that of one process, bit for bit.

    Args:
        work: from items to as many results, which can be sent between processes (numbers, arrays, tensors on the CPU).
        items: the same in every process.
    """
    if not _sharing.get() or not (distributed.is_available() and distributed.is_initialized()):
        return list(work(items))
    state = PartialState()
    own = items[state.process_index :: state.num_processes]
    token = _sharing.set(False)  # what is shared here is not shared again within
    try:
        found = [list(work(own)) if len(own) else []]
    finally:
        _sharing.reset(token)
    parts = gather_object(found)
    return [parts[i % len(parts)][i // len(parts)] for i in range(len(items))]


def warn_of_one_process() -> None:
    """Say it when a launcher that can start several processes has started one, for want of a GPU."""
    if parse_flag_from_env("ACCELERATE_USE_CPU") and "WORLD_SIZE" not in os.environ:
        warnings.warn(
            "accelerate launched a single process: on a CPU it starts one, whatever --num_processes says. For several: "
            "ACCELERATE_USE_CPU=true torchrun --standalone --nproc-per-node 2 SCRIPT",
            stacklevel=2,
        )
