"""A web page for people in operations: see how the queue stands, understand what became of a job, act on dead letters."""
