"""What people in operations look at."""
