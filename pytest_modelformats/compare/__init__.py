"""The numbers, and the one verdict over them. Arithmetic: numpy and the standard library."""
