"""Contract suites: what every backend must pass, ours and yours."""
