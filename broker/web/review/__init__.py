"""The auditor's pages: what the audit record tells, for people, read only."""
