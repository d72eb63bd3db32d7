"""The commands for operations, one module each. `worker/cli.py` joins them with the others."""
