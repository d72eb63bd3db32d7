"""A web page for operations: the queue live, one job at a time, dead letters and the schedule."""
