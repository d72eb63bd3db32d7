"""`worker demo`: a mixed load, run end to end and compared with the database."""

from worker.demo.run import run

__all__ = ["run"]
