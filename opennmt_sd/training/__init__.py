"""What the trainers share: the loop, checkpoints, schedules, logs. It knows none of the models."""
