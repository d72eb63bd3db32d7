"""The command `python -m producers`: enqueue one job, load a file of jobs, or print the contract.

No other part of `producers` imports this package, so services that enqueue load neither typer nor rich.
"""
