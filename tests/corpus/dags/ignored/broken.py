raise RuntimeError("this file is ignored")
