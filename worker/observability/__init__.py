"""What operations people watch: logs, metrics, health endpoints and traces."""
