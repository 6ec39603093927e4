"""The command line: quick help, and no traceback for a mistake of the user."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from wsol_lib import __main__
from wsol_lib.__main__ import COMMANDS, main


def test_help_names_the_commands_without_loading_torch():
    code = "import sys; from wsol_lib.__main__ import main\n"
    code += "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_a_command_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"python -m wsol_lib {command}" in capsys.readouterr().out.split("examples:")[1]


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["localise"])
    assert stopped.value.code == 2
    assert "invalid choice: 'localise'" in capsys.readouterr().err


def test_the_memory_settings_of_the_user_are_left_alone(monkeypatch):
    opened = []
    monkeypatch.setattr(__main__.ctypes, "CDLL", lambda name: opened.append(name) or SimpleNamespace())
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "0")
    __main__._keep_freed_memory()
    assert not opened and __main__.os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("MALLOC_TOP_PAD_")
    monkeypatch.setattr(__main__.sys, "platform", "linux")
    for name in [name for name in __main__.os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    __main__._keep_freed_memory()  # a C library without mallopt
    assert opened == ["libc.so.6"]
