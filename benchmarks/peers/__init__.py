"""One program for each other system, run by an interpreter of its own: nothing here imports this project's code."""
