"""The queue in Redis: claims, leases, ordering keys, counters and dead letters. It knows no database."""
