"""A web page for people in operations: how the queue stands, what became of a job, what to do about dead letters."""
