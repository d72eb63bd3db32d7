"""How logging is put back after a test: what is tested changes it for the whole process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

LOGGERS = (None, "arq", "arq.worker", "sqlalchemy", "asyncio", "redis", "uvicorn")


@contextmanager
def logging_put_back() -> Iterator[None]:
    """Leave logging as it was."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.handlers[:], logger.filters[:], logger.propagate) for logger in loggers]
    yield
    structlog.reset_defaults()
    for logger, (level, handlers, filters, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:], logger.filters[:], logger.propagate = handlers, filters, propagate
