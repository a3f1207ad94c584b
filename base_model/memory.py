"""The C allocator, told to keep what is freed."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc reuse freed blocks instead of returning them to the system.

    A training step on CPU allocates and frees the same hundreds of megabytes again and again; with glibc's defaults
    each large block is a fresh mapping whose pages fault anew, which costs a quarter of the step.

    Returns:
        Whether the allocator took the settings (False off glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_M_MMAP_THRESHOLD, _KEEP), mallopt(_M_TRIM_THRESHOLD, _KEEP), mallopt(_M_TOP_PAD, 2**26)])
