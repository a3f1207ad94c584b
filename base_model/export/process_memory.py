"""Resident memory of this process, in bytes (Linux)."""

from pathlib import Path


def peak_memory() -> int:
    """The most that was resident since the process began (unlike ``ru_maxrss``, without what its parent held)."""
    return _status("VmHWM")


def current_memory() -> int:
    """What is resident at this moment."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"this system does not tell {field} in /proc/self/status, which Linux does: measure there")
