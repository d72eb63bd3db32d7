"""What people read about jobs and queues, shared by the command line and the dashboard."""
