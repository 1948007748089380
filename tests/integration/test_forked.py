"""Programs that the tests fork are processes as others are: arguments, streams, status, a death of their own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests import forked


def test_program_has_arguments_streams_folder_and_environment_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys; import torch\n"
        "print(sys.argv, os.getcwd(), os.environ['NAME'], 'HOME' in os.environ, input(), __name__)\n"
        "print(os.getppid() == os.getpid(), file=sys.stderr); os.environ['NAME'] = 'other'; sys.exit(7)"
    )
    for _ in range(2):  # the second does not see what the first changed
        done = forked.run("-c", code, "a b", folder=tmp_path, environment={"NAME": "Ada"}, lines="Zoë\n")
        assert done.stdout == f"['-c', 'a b'] {tmp_path} Ada False Zoë __main__\n"
        assert (done.stderr, done.returncode) == ("False\n", 7)
    assert "NAME" not in os.environ


def test_error_is_written_and_is_no_success() -> None:
    done = forked.run("-c", "raise ValueError('so')")
    assert done.returncode == 1
    assert "ValueError: so" in done.stderr


def test_file_and_module_are_run_as_the_main_program(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("told = 'from beside'", encoding="utf-8")
    (tmp_path / "program.py").write_text(
        "import sys, beside\nif __name__ == '__main__': print(sys.argv[1:], beside.told)", encoding="utf-8"
    )
    for command in ((str(tmp_path / "program.py"),), ("-m", "program")):
        assert forked.run(*command, "x", folder=tmp_path).stdout == "['x'] from beside\n"


def test_program_can_be_killed(tmp_path: Path) -> None:
    began = tmp_path / "began"
    with forked.started("-c", "import sys, time; open(sys.argv[1], 'w'); time.sleep(60)", str(began)) as program:
        while not began.exists():
            assert program.poll() is None
            time.sleep(0.01)
        program.kill()
        assert program.wait(30) == -signal.SIGKILL
