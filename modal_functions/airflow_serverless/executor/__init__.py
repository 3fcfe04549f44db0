"""Starting tasks on Modal and running them there."""
