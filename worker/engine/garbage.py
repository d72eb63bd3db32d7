"""What Python's collector of cyclic garbage looks at, and how often."""

import gc

# By default every 700 new objects, which is every few jobs. What a job makes is gone when it ends, without any cycle.
NEW_OBJECTS = 50_000


def spare_what_stays() -> None:
    """Let the collector pass over all that is there now, and come more seldom.

    Modules, mappings and settings are some hundred thousand objects that live as long as the process: to look through
    them takes tens of milliseconds, in which no job runs, and cost batches a fifth of their speed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 20, 50)
