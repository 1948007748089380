"""Owns `local_cluster`: a real Ray on this machine for a test, which tells nobody of it and leaves nothing behind."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.reliability.conftest import FORM

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_worker_niceness": str(os.nice(0)),  # 15 unless said: on a busy machine they would hardly run at all
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # one for all clusters of a process: Ray reads it once
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "storage", ROOT / "integrations", ROOT))),
}


@contextmanager
def local_cluster(cpus: int = 2) -> Iterator[None]:
    """Begin Ray here and end it; a test that cannot have it is skipped and says so."""
    if FORM != "full":
        pytest.skip("a gate on a Ray cluster takes minutes: `make reliability` runs it")
    ray = pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`, which `make reliability` brings")
    folder = tempfile.mkdtemp(prefix="ray-")  # short: it holds sockets, whose paths must be
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=100 << 20,
                _temp_dir=folder,
            )
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
