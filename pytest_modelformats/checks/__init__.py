"""What is checked of a cell, a file for each."""
