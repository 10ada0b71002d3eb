"""Large buffers are kept for the next use instead of being cleared by the kernel each time."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from streamd.daemon.memory import keep_buffers
keep_buffers()
bytearray(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    bytearray(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


JOB = """
import asyncio
from streamd.daemon import memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

async def main():
    memory.keep_buffers()
    memory.GIVE_BACK_SECONDS = 0.01
    before = resident()
    parts = [bytes(10_000) for _ in range(10_000)]
    kept = parts[::100]  # scattered over what the others leave free
    most = resident()
    del parts
    freed = resident()
    giving = asyncio.create_task(memory.keep_giving_back())
    for _ in range(3000):
        await asyncio.sleep(0.01)
        if resident() - before < 20 << 20:
            break
    giving.cancel()
    print(most - before, freed - before, resident() - before)

asyncio.run(main())
"""


def faults(**variables: str) -> int:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**env, **variables}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


def test_a_large_buffer_is_used_again():
    assert faults() < 2048  # one buffer has that many pages, and there were fifty


def test_settings_of_the_environment_are_left_alone():
    assert faults(MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="131072") > 2048 * 20


def test_what_lies_free_goes_back_to_the_kernel_after_a_while():
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=True)
    most, freed, after = map(int, done.stdout.split())
    assert most > 90 << 20
    assert freed > 90 << 20, "nothing was kept: then there is nothing to give back"
    assert after < 20 << 20


COLLECTIONS = """
import gc, time
import streamd.daemon.main, streamd.storage.azure
from streamd.daemon import memory

def cost():
    gc.collect()
    return min(one() for _ in range(5))

def one():
    began = time.thread_time()
    gc.collect()
    return time.thread_time() - began

before = cost()
memory.settle()
print(before, cost(), gc.get_freeze_count())
"""


@pytest.mark.slow
def test_after_the_start_a_full_collection_holds_nobody_up():
    """It looks at what came since, no longer at every module, class and function."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECTIONS], capture_output=True, text=True, check=True
    )
    before, after, frozen = map(float, done.stdout.split())
    assert frozen > 50_000
    assert after < before / 5
