"""What a person reads about jobs and queues: the same for the command line and for the dashboard."""
