"""What of this machine a process may use: containers are given less than there is."""

import os
from pathlib import Path

# Of control groups: version 2 has quota and period in one file, version 1 in two.
_CPU_LIMITS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
# Bytes, or what stands for no limit.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def usable_cores() -> int:
    """Processor cores by the process's affinity and the quota of its control group, at least 1."""
    cores = len(os.sched_getaffinity(0))
    for files in _CPU_LIMITS:
        numbers = " ".join(path.read_text() for path in files if path.is_file()).split()
        # "max" or -1: no quota.
        if len(numbers) == 2 and all(number.isdigit() for number in numbers):
            quota, period = map(int, numbers)
            cores = min(cores, -(-quota // period))
    return max(1, cores)


def usable_memory() -> int:
    """Bytes of memory, by the control group's limit where it has one below the machine's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY_LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdigit():
            memory = min(memory, int(text))
    return memory
