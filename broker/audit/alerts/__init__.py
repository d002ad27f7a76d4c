"""Alerts: rules that look at every record as it comes, and say when somebody should look."""
