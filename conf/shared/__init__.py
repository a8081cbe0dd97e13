"""Groups that both trainers read, behind their own."""
