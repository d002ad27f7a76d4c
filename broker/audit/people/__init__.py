"""People in the audit record: under pseudonyms, which whoever holds the keys can search for and forget."""
