"""The mains behind the console commands."""
