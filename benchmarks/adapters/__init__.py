"""One program per system. Each runs in its system's own virtual environment; only `userpost` imports this project."""
