"""Tokens of the broker for requests of httpx2."""

import httpx2

from broker.client._auth_flow import AuthFlow

__all__ = ["BrokerAuth"]


class BrokerAuth(AuthFlow[httpx2.Request, httpx2.Response], httpx2.Auth):
    """
    The ``auth`` of an httpx2 client, or of one request.

    ``httpx2.AsyncClient(base_url=CRM, auth=BrokerAuth(broker, CRM, scopes=["crm.read"]))``
    """

    content_type = httpx2.ByteStream
