"""The command `python -m producers`: enqueue one job, or load a file of them.

Nothing else of `producers` imports this, so that services which enqueue load neither typer nor rich.
"""
