"""A module that the sample app brings along."""

GREETING = "hello from a module"
