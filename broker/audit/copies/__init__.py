"""What somebody else received of a log, and whether the log still says so."""
