"""The tests, a module for each room of the package; each test's name is a sentence about it."""
