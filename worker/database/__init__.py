"""Tables, and functions that take a session. Nothing here knows Redis or jobs."""
