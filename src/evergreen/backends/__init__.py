"""Products of the outside world behind our promises; one file or package each, reached by name only."""
