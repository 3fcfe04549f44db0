"""Where the metadata database lives and who may write it."""
