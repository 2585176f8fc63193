"""What the cache holds, and why a cell is not found there."""
