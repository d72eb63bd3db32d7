"""The Lua scripts of the queue, one operation per file.

They compose the names of a job's keys from the id that they find in the queue, so all keys are on one Redis node.
"""

from producers._script import CLOCK, ORDER, Script, lua


def _script(name: str) -> Script:
    return Script(CLOCK, ORDER, lua(__package__, "job.lua"), lua(__package__, f"{name}.lua"))


CLAIM = _script("claim")
RENEW = _script("renew")
COMPLETE = _script("complete")
RETRY = _script("retry")
RELEASE = _script("release")
BURY = _script("bury")
SWEEP = _script("sweep")
REPLAY = _script("replay")
PURGE = _script("purge")
