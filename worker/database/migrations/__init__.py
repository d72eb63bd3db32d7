"""The steps by which the tables came to be what they are, for `worker migrate`. How to add one: docs/decisions/0008."""
