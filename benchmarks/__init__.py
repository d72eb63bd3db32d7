"""Measurements that anyone can repeat; each ends with 1 when a figure that is promised is not reached."""
