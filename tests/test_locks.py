"""Locks: one process has a byte, and with the process goes its lock."""

import signal
import subprocess
import sys

import pytest

from wsol_lib.search.locks import Locks

HOLDER = """
import sys, time
from wsol_lib.search.locks import Locks
locks = Locks(sys.argv[1])
print(locks.take(int(sys.argv[2])), flush=True)
time.sleep(60)
"""
FAR = 2**60 - 1  # a hash makes as large a number


@pytest.mark.parametrize("byte", [0, FAR])
def test_a_byte_is_free_again_when_its_process_is_killed(tmp_path, byte):
    path = tmp_path / "running"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path, str(byte)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "True\n"
    with Locks(path) as locks:
        assert not locks.take(byte)
        assert locks.take(byte + 1)
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
        assert locks.take(byte)
        locks.give_back(byte)
    assert path.stat().st_size == 0


def test_closing_gives_all_back(tmp_path):
    path = tmp_path / "running"
    with Locks(path) as locks:
        assert locks.take(3) and locks.take(5)
    code = "import sys; from wsol_lib.search.locks import Locks; locks = Locks(sys.argv[1]); print(locks.take(3), locks.take(5))"
    assert subprocess.check_output([sys.executable, "-c", code, path], text=True) == "True True\n"
    assert locks  # the object is still there, without its locks
