"""Questions about videos: task files, the papers' data sets, metrics, a synthetic world."""
