"""Speed, as ratios within one run: `make bench [ONLY=train|pipeline|serving]`, one file a group."""
