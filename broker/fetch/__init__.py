"""Outbound fetches: one guarded way to ask somebody else's server for a document."""

from broker.fetch.guarded import Fetched, Fetcher, GuardedFetcher, Sender
from broker.fetch.refusals import FetchReason, FetchRefused
from broker.fetch.url import Target, read_url

__all__ = [
    "FetchReason",
    "FetchRefused",
    "Fetched",
    "Fetcher",
    "GuardedFetcher",
    "Sender",
    "Target",
    "read_url",
]
