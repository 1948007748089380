"""What `import locas_agent` costs: nothing is loaded before it is used, torch and the extras least of all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
import json, sys, time
before, began = set(sys.modules), time.process_time()
import locas_agent
seconds = time.process_time() - began
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([seconds, sorted(loaded - sys.stdlib_module_names)]))
"""
MOST_SECONDS = 0.3


def test_import_of_the_package_loads_the_package_alone_and_takes_no_time() -> None:
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", CODE], env=os.environ | paths, check=True, capture_output=True)
    seconds, loaded = json.loads(done.stdout)
    assert loaded == ["locas_agent"]
    assert seconds < MOST_SECONDS  # of the processor; some hundredths were measured
