"""What this machine can tell apart."""
