"""The durable witness: bounded records, chained by hash, on disk before any answer leaves."""
