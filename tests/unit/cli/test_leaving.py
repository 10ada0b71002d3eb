"""A command ends without taking itself apart, and ends in order all the same."""

import subprocess
import sys

PROGRAM = """
import atexit, sys, threading, time
import streamd.cli.main

def run():
    atexit.register(lambda: print("registered"))
    def go_on():
        time.sleep(0.2)
        print("thread")
    threading.Thread(target=go_on).start()
    print("work")
    return {code}

streamd.cli.main.main = run
from streamd.__main__ import main

sys.exit(main())
"""


def ended(code: str, **given: object) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", PROGRAM.format(code=code)]
    return subprocess.run(program, stderr=subprocess.PIPE, text=True, check=False, **given)


def test_threads_end_and_what_is_registered_is_called_before_the_process_ends():
    done = ended("5", stdout=subprocess.PIPE)
    assert done.stdout.split() == ["work", "thread", "registered"]
    assert done.returncode == 5


def test_what_nobody_foresaw_is_left_to_the_interpreter():
    done = ended("sys.exit('so be it')", stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.strip() == "so be it"


def test_output_that_cannot_be_written_is_not_passed_over_in_silence():
    with open("/dev/full", "wb") as full:
        done = ended("0", stdout=full)
    assert done.returncode != 0
    assert "No space left" in done.stderr
