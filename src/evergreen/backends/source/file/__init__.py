"""Files that somebody else appends to, read as they grow."""
