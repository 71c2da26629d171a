"""Several processes that train one quantizer: sums over all of them, and copies of the first one's.

Both do nothing where torch.distributed is not in use. Where it is, they are collective: every
process must come here, or the others wait.
"""

import torch
from torch import Tensor, distributed


def are_several() -> bool:
    """Whether torch.distributed connects more than this process."""
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of every process's tensor; the tensor itself if there is only one process."""
    if not are_several():
        return tensor
    total = tensor.detach().clone()
    distributed.all_reduce(total)
    return total


def from_first_process(*tensors: Tensor) -> None:
    """Overwrites the tensors by those of process 0, in place."""
    if are_several():
        with torch.no_grad():
            for tensor in tensors:
                # .data: a parameter keeps its place in the optimizer, and no gradient is recorded.
                distributed.broadcast(tensor.data, src=0)
