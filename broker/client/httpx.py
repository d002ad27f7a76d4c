"""Tokens of the broker for requests of httpx, as version 1 of the MCP SDK uses it."""

import httpx

from broker.client._auth_flow import AuthFlow

__all__ = ["BrokerAuth"]


class BrokerAuth(AuthFlow[httpx.Request, httpx.Response], httpx.Auth):
    """
    The ``auth`` of an httpx client, or of one request.

    ``httpx.AsyncClient(base_url=CRM, auth=BrokerAuth(broker, CRM, scopes=["crm.read"]))``
    """

    content_type = httpx.ByteStream
