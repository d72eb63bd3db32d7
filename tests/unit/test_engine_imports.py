"""The engine knows no job type: whatever handlers there are, it runs them alike."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys

FORBIDDEN = ("worker.jobs", "worker.database.users", "worker.database.posts")
modules = ["worker.model", "worker.queue", "worker.engine"]
for package in modules[:]:
    modules += [found.name for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + ".")]
for module in modules:
    importlib.import_module(module)
    if loaded := [name for name in sys.modules if name.startswith(FORBIDDEN)]:
        sys.exit(f"{module} loads {loaded}")
print(*modules)
"""


def test_no_module_of_the_engine_loads_a_handler_or_its_statements() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)

    assert ran.stderr == ""
    assert {"worker.engine.transaction", "worker.model.registry", "worker.queue.queue"} <= {*ran.stdout.split()}
