"""What the trainers do, a file a task that reads from top to bottom."""
