"""Parsing DAG files, in the tick and in the local validator."""
