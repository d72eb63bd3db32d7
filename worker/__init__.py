"""The worker: takes jobs for users and posts from Redis and gives them their effect in PostgreSQL, exactly once."""
