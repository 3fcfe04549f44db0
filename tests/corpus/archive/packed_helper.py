WORD = "from the archive"
