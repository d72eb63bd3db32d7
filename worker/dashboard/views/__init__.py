"""The pages, one file each: what is asked for, what it is told with."""
