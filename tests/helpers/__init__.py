"""What the tests share: files, models, a Hub on loopback, ways to run commands."""
