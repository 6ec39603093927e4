"""The study: processes may come, go and be killed, every trial is finished exactly once; what is no study stays as it is."""

import fcntl
import json
import multiprocessing
import os
import random
import signal
import sys

import killed
import pytest
from optuna.distributions import FloatDistribution

from wsol_lib.search import study as module
from wsol_lib.search.study import Study, read_study

SETTINGS = {"method": "cam", "epochs": 2}
SPACE = {"x": FloatDistribution(0.0, 1.0)}
TRIALS = 12
FORK = multiprocessing.get_context("fork")


def work(path, said, fatal=0, go=None):
    """Trials until none is left; their numbers go to the file ``said``.

    The process is killed at the call number ``fatal`` of a function, of those that write a trial down. With ``go`` the
    first trial takes until that file is there.
    """

    def count(*_):
        nonlocal fatal
        fatal -= 1
        if fatal == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with open(said, "w") as file, opened(path) as study:
        while (number := study.claim(TRIALS)) is not None:
            print(number, file=file, flush=True)
            killed.until(lambda: go is None or go.exists())
            sys.setprofile(count)
            study.add(number, {"x": number / TRIALS}, score=number, seconds=0.1)
            sys.setprofile(None)


def hold(path, said, byte):
    with open(f"{path}.running", "ab") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
        said.write_text("locked")
        signal.pause()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.journal"


def opened(path, settings=SETTINGS, space=SPACE):
    return Study(path, settings, space)


@pytest.fixture
def process(tmp_path):
    """Start a process of ``target(path, said, ...)``; it and the file ``said``. None lives on after the test."""
    started = []

    def start(target, path, *arguments):
        said = tmp_path / f"said-{len(started)}"
        started.append(FORK.Process(target=target, args=(path, said, *arguments)))
        started[-1].start()
        return started[-1], said

    yield start
    for one in started:
        one.kill()
        one.join()


def heard(said):
    return said.read_text().split() if said.exists() else []


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


def test_killed_at_any_moment_no_finished_trial_is_lost_or_run_again(path, process):
    """To write a trial down takes some 450 calls."""
    moments = random.Random(0)
    done, kills = [], 0
    while len(done) < TRIALS:
        worker, said = process(work, path, moments.randint(1, 3 * 450))
        kills += killed.ended(worker) == killed.KILLED
        assert not set(map(int, heard(said))) & set(done)
        assert finished(path)[: len(done)] == done
        done = finished(path)
    assert sorted(done) == list(range(TRIALS))
    assert kills > 1


def test_several_processes_run_each_trial_once(path, process, tmp_path):
    go = tmp_path / "go"
    workers = [process(work, path, 0, go) for _ in range(3)]
    killed.until(lambda: all(heard(said) for _, said in workers))
    go.touch()
    assert [killed.ended(worker) for worker, _ in workers] == [0, 0, 0]
    assert sorted(int(number) for _, said in workers for number in heard(said)) == list(range(TRIALS))
    assert sorted(finished(path)) == list(range(TRIALS))


def test_the_trial_of_a_killed_process_is_for_those_who_still_run(path, process, tmp_path):
    worker, said = process(work, path, 0, tmp_path / "never")
    killed.until(lambda: heard(said) == ["0"])
    with opened(path) as study:
        assert study.claim(2) == 1
        study.add(1, {"x": 0.5}, score=0.5)
        assert study.claim(2) is None
        worker.kill()
        assert killed.ended(worker) == killed.KILLED
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


def test_locks_are_given_back_at_the_end(path, process):
    with opened(path) as study:
        assert study.claim(TRIALS) == 0
    worker, said = process(work, path)
    assert killed.ended(worker) == 0 and heard(said)[0] == "0"
    assert study.trials  # it is still there, without its locks


def test_locks_are_given_back_after_an_error(path, process):
    fill(path, [0])
    with pytest.raises(ValueError, match="expected the settings") as caught:
        opened(path, {})
    worker, said = process(work, path)
    assert killed.ended(worker) == 0 and heard(said)[0] == "1"
    assert caught  # and with it all that was opened is still there


@pytest.mark.parametrize("byte", [module.OPENING, module.WRITING])
def test_a_storage_that_another_process_keeps_locked(path, byte, process, monkeypatch):
    fill(path, [0])
    content = path.read_bytes()
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.1)
    holder, said = process(hold, path, byte)
    killed.until(said.exists)
    with pytest.raises(ValueError, match=r"found it locked by another process for 0.1 seconds"):
        fill(path, [1])
    holder.kill()
    holder.join()
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
