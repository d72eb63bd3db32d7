"""`worker demo`: the main job end to end, for people who want to see it before they believe it."""

from worker.demo.run import run

__all__ = ["run"]
