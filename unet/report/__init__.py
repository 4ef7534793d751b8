"""Pictures and texts about a run, for people to look at, by task."""
