"""The study: processes may come, go and be killed, every trial is finished exactly once; what is no study stays as it is."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from optuna.distributions import FloatDistribution

from wsol_lib.search import study as module
from wsol_lib.search.study import Study, read_study

SETTINGS = {"method": "cam", "epochs": 2}
SPACE = {"x": FloatDistribution(0.0, 1.0)}
TRIALS = 12
WORKER = f"""
import sys, time
from optuna.distributions import FloatDistribution
from wsol_lib.search.study import Study
with Study(sys.argv[1], {SETTINGS}, {{"x": FloatDistribution(0.0, 1.0)}}) as study:
    while (number := study.claim({TRIALS})) is not None:
        print(number, flush=True)
        time.sleep(float(sys.argv[2]))
        study.add(number, {{"x": number / {TRIALS}}}, score=number, seconds=0.1)
"""
HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1] + ".running", "ab")
fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.journal"


def opened(path, settings=SETTINGS, space=SPACE):
    return Study(path, settings, space)


def process(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def kill(worker):
    """Stop it without a chance to clean up; what it had said till then."""
    worker.send_signal(signal.SIGKILL)
    return worker.communicate()[0].split()


def finished(path):
    return [trial.user_attrs["number"] for trial in read_study(path).trials]


def fill(path, numbers):
    with opened(path) as study:
        for number in numbers:
            assert study.claim(TRIALS) == number
            study.add(number, {"x": 0.5}, score=0.5)


def test_a_finished_trial_is_kept_with_all_that_is_known_of_it(path):
    with opened(path) as study:
        assert study.claim(2) == 0
        study.add(0, {"x": 0.25}, score=0.75, loss=None)
        assert study.claim(2) == 1
    (trial,) = read_study(path).trials
    assert (trial.params, trial.value, trial.user_attrs) == ({"x": 0.25}, 0.75, {"number": 0, "loss": None})


def test_killed_at_any_moment_no_finished_trial_is_lost_or_run_again(path):
    moments = random.Random(0)
    done, kills = [], 0
    while len(done) < TRIALS:
        worker = process(WORKER, path, 0.02)
        worker.stdout.readline()
        time.sleep(moments.uniform(0, 0.06))
        kills += worker.poll() is None
        started = set(map(int, kill(worker)))
        assert not started & set(done)
        assert finished(path)[: len(done)] == done
        done = finished(path)
    assert sorted(done) == list(range(TRIALS))
    assert kills > 1


def test_several_processes_run_each_trial_once(path):
    workers = [process(WORKER, path, 0.1) for _ in range(3)]
    started = [worker.communicate()[0].split() for worker in workers]
    assert sorted(int(number) for own in started for number in own) == list(range(TRIALS))
    assert sorted(finished(path)) == list(range(TRIALS))
    assert sum(map(bool, started)) > 1


def test_the_trial_of_a_killed_process_is_for_those_who_still_run(path):
    worker = process(WORKER, path, 60)
    assert worker.stdout.readline() == "0\n"
    with opened(path) as study:
        assert study.claim(2) == 1
        study.add(1, {"x": 0.5}, score=0.5)
        assert study.claim(2) is None
        kill(worker)
        assert study.claim(2) == 0


def test_a_line_that_a_killed_process_has_half_written_is_cut(path):
    fill(path, [0, 1])
    content = path.read_bytes()
    for end in (len(content) - 1, len(content) - 40, content.rindex(b"\n", 0, -1) + 3):
        path.write_bytes(content[:end])
        assert finished(path) == [0]
        with opened(path) as study:
            assert study.claim(TRIALS) == 1
            study.add(1, {"x": 0.5}, score=0.5)
        assert finished(path) == [0, 1]
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize("end", [b"garbage\n", b"garbage", b"{}\n", b"[]\n", b"\xff\xfe\n", b'{"op_code":99}\n'])
@pytest.mark.parametrize("start", ["", "a study"])
def test_what_is_no_journal_is_said_and_left_alone(path, start, end):
    if start:
        fill(path, [0])
    content = (path.read_bytes() if start else b"") + end
    path.write_bytes(content)
    for open_it in (opened, read_study):
        with pytest.raises(ValueError, match=r"expected an Optuna journal in .*study.journal, found something else"):
            open_it(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "settings, space, message",
    [
        ({"method": "cam", "epochs": 3}, SPACE, r"epochs 2, found epochs 3: repeat"),
        ({"method": "cam", "epochs": 2, "seed": 1}, SPACE, r"seed None, found seed 1"),
        (SETTINGS, {"x": FloatDistribution(0.0, 2.0)}, r"range of x \[0.0, 1.0, False\], found .* \[0.0, 2.0, False\]"),
        (SETTINGS, {}, r"range of x \[0.0, 1.0, False\], found range of x None"),
    ],
)
def test_a_study_of_other_settings_or_ranges_is_refused_and_left_alone(path, settings, space, message):
    fill(path, [0])
    content = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        opened(path, settings, space)
    assert path.read_bytes() == content


def test_locks_are_given_back_at_the_end(path):
    with opened(path) as study:
        assert study.claim(TRIALS) == 0
    assert process(WORKER, path, 0).communicate(timeout=20)[0].split()[0] == "0"
    assert study.trials  # it is still there, without its locks


def test_locks_are_given_back_after_an_error(path):
    fill(path, [0])
    with pytest.raises(ValueError, match="expected the settings") as caught:
        opened(path, {})
    assert process(WORKER, path, 0).communicate(timeout=20)[0].split()[0] == "1"
    assert caught  # and with it all that was opened is still there


@pytest.mark.parametrize("byte", [module.OPENING, module.WRITING])
def test_a_storage_that_another_process_keeps_locked(path, byte, monkeypatch):
    fill(path, [0])
    content = path.read_bytes()
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.1)
    holder = process(HOLDER, path, byte)
    holder.stdout.readline()
    try:
        with pytest.raises(ValueError, match=r"found it locked by another process for 0.1 seconds"):
            fill(path, [1])
    finally:
        kill(holder)
    assert path.read_bytes() == content
    fill(path, [1])


def test_a_place_that_cannot_be_written(path):
    path.mkdir()
    with pytest.raises(
        ValueError, match=r"expected a file that can be written at .*study.journal, found Is a directory"
    ):
        opened(path)


def test_there_is_no_study(path):
    with pytest.raises(FileNotFoundError, match="found no such file: start the search first"):
        read_study(path)
    path.touch()
    with pytest.raises(ValueError, match=r"expected a study in .*, found none: start the search first"):
        read_study(path)


def test_looks_at_the_test_split_add_up(path):
    with opened(path) as study:
        assert study.looks == []
        study.add_look({"score": 0.5})
        study.add_look({"score": 0.4})
    with opened(path) as study:
        assert study.looks == [{"score": 0.5}, {"score": 0.4}]
