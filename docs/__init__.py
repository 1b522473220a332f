"""The documentation, and the program that keeps it to the code."""
