"""The steps that make and change the tables. docs/decisions/0008 says how to add one."""
