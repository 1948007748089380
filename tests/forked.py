"""Runs Python programs in processes of their own that need not import torch first.

One process of each worker imports what nearly every program of a test imports, and forks a child for each: that takes
milliseconds, where a new interpreter takes seconds of a processor. A child has its own arguments, folder, environment,
standard streams and exit status, can be killed, and shares nothing with its test but files.

What a program does while it is imported is not seen here: that a package warns, prints, or needs another one. Tests of
that start an interpreter, as do the programs that start processes themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from unittest import mock

IMPORTED = (
    "tests.forked",
    "locas_agent.cli.commands",
    "locas_agent.agent",
    "locas_agent.runtime",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen3.modeling_qwen3",
)
DISCARD = Path(os.devnull)


def run(
    *arguments: str,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    lines: str = "",
    timeout: float = 240,
) -> CompletedProcess[str]:
    """Run `python ARGUMENTS` to its end and return its status and what it wrote.

    Args:
        arguments: as Python takes them: `-c CODE`, `-m MODULE` or the path of a file, then those of the program.
        folder: where it runs; None is the folder of this process.
        environment: all of it; None is that of this process.
        lines: its standard input.
        timeout: seconds after which it is killed and the test fails.
    """
    with tempfile.TemporaryDirectory() as streams:
        names = [Path(streams, name) for name in ("in", "out", "err")]
        names[0].write_text(lines, encoding="utf-8")
        with started(
            *arguments, folder=folder, environment=environment, lines=names[0], out=names[1], err=names[2]
        ) as program:
            status = program.wait(timeout)
        out, err = (name.read_text(encoding="utf-8") for name in names[1:])
    return CompletedProcess(arguments, status, out, err)


@dataclass(frozen=True)
class Program:
    """A program that runs, or did."""

    process: ForkServerProcess

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        """Return its status as `subprocess` gives it, None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for its end and return its status."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"the program ran longer than {timeout} s"
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()


@contextmanager
def started(
    *arguments: str,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    lines: Path = DISCARD,
    out: Path = DISCARD,
    err: Path = DISCARD,
) -> Iterator[Program]:
    """Start `python ARGUMENTS` with files for its standard streams, and kill it at the end if it still runs."""
    process = _context().Process(
        target=_become,
        args=(arguments, str(folder or Path.cwd()), dict(environment or os.environ), [str(lines), str(out), str(err)]),
    )
    process.start()
    try:
        yield Program(process)
    finally:
        process.kill()
        process.join()


@cache
def _context() -> ForkServerContext:
    """Start the process that forks, with the paths of this one: the suite also runs where nothing is installed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path)):
        forkserver.ensure_running()
    return context


def _become(arguments: Sequence[str], folder: str, environment: Mapping[str, str], streams: Sequence[str]) -> None:
    """Be the program, in the child."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in enumerate(streams):
        opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)
    match arguments:
        case ("-m", module, *_):
            sys.argv[:] = [module, *arguments[2:]]
            sys.path.insert(0, folder)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ("-c", code, *_):
            sys.argv[:] = ["-c", *arguments[2:]]
            sys.path.insert(0, folder)
            sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
        case (path, *_):
            sys.argv[:] = [*arguments]
            sys.path.insert(0, str(Path(path).parent))
            runpy.run_path(path, run_name="__main__")
