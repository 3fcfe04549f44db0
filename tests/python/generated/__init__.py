"""Generated DAG files, plugins and commands with odd but legal values; none of them may stop the scheduler."""
