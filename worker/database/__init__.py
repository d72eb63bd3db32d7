"""The database room: tables, and functions that take a session. It knows no Redis and no jobs."""
