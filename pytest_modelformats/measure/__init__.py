"""Time, memory and the conditions they were measured under. Arithmetic, and readings of this machine."""
