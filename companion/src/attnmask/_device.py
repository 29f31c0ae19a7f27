"""CPU or accelerator? One place decides."""

import os

import torch

from attnmask._check import value_error


def default_device() -> torch.device:
    """Return the device that the book's notebooks compute on.

    The environment variable ``ATTNMASK_DEVICE`` wins; without it, the
    accelerator that PyTorch finds, else the CPU.

    Returns
    -------
    torch.device
        For instance ``cpu`` or ``cuda``.

    Raises
    ------
    ValueError
        ``ATTNMASK_DEVICE`` names no device that this machine has.

    Examples
    --------
    >>> torch.ones(2, device=default_device()).sum().item()
    2.0
    """
    wanted = os.environ.get("ATTNMASK_DEVICE")
    if not wanted:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise value_error(
            "ATTNMASK_DEVICE to name a device of this machine, such as cpu or cuda",
            repr(wanted),
            "a spelling slip, or a PyTorch build without that accelerator",
        ) from error
    return torch.device(wanted)
