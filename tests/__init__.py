"""A package, so that a child process finds a test module by its name."""
