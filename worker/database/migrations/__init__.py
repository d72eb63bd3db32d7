"""The steps that make and change the tables. See docs/decisions/0008 for how to add one."""
