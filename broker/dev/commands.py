"""The commands that development mode prints, to be tried by hand against its brokers."""

from broker.dev.setup import (
    CRM_RESOURCE,
    DESK,
    NIGHTLY,
    OPERATOR,
    TICKETS,
    TICKETS_RESOURCE,
    DevSetup,
)
from broker.oauth import GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN


def commands(setup: DevSetup) -> list[tuple[str, str]]:
    """
    What to try by hand against the running broker: a title, and a command for a POSIX shell each.

    They are to be run in their order and in one shell.
    """
    as_desk = f'-u "{DESK}:$(cat {setup.secret_file(DESK)})"'
    as_tickets = f'-u "{TICKETS}:$(cat {setup.secret_file(TICKETS)})"'
    exchange = f"-d grant_type={GRANT_TOKEN_EXCHANGE}"
    access_token = 'sed \'s/.*"access_token":"\\([^"]*\\)".*/\\1/\''
    return [
        (
            "ann logs in at the pretend identity provider",
            (
                f"ID_TOKEN=$(curl -s '{setup.idp_issuer}/login?sub=ann&client_id={DESK}'"
                " | cut -d'\"' -f4)"
            ),
        ),
        (
            "the agent gets a token for the MCP server",
            (
                f"TOKEN=$(curl -s {as_desk} {exchange} -d subject_token=$ID_TOKEN"
                f" -d subject_token_type={TOKEN_TYPE_ID_TOKEN} -d resource={TICKETS_RESOURCE}"
                f" {setup.main.issuer}/token | {access_token})"
            ),
        ),
        (
            "the MCP server exchanges it for one for the API behind it",
            (
                f"curl -s {as_tickets} {exchange} -d subject_token=$TOKEN"
                f" -d subject_token_type={TOKEN_TYPE_ACCESS_TOKEN} -d resource={CRM_RESOURCE}"
                f" -d scope=crm.contacts.read {setup.main.issuer}/token"
            ),
        ),
        (
            "the same with the command line, drawn as a tree",
            (
                f'printf %s "$TOKEN" | broker token exchange --issuer {setup.main.issuer} --client {TICKETS}'
                f" --secret-file {setup.secret_file(TICKETS)} --subject-token - --resource {CRM_RESOURCE}"
                " --scope crm.contacts.read --output tree"
            ),
        ),
        (
            "an agent that works for nobody in particular gets a token for itself",
            (
                f"broker token get --issuer {setup.main.issuer} --client {NIGHTLY}"
                f" --secret-file {setup.secret_file(NIGHTLY)} --resource {TICKETS_RESOURCE}"
                " --output tree"
            ),
        ),
        (
            "the agent withdraws its token, and with it all that came of it",
            (
                f'printf %s "$TOKEN" | broker token revoke --issuer {setup.main.issuer} --client {DESK}'
                f" --secret-file {setup.secret_file(DESK)} -"
            ),
        ),
        (
            "is the audit log whole?",
            f"broker audit verify {setup.main.directory / 'audit'}",
        ),
        (
            "an operator withdraws what was issued for ann; new logins count half a minute later",
            (
                f"broker revoke --grpc 127.0.0.1:{setup.main.grpc_port} --client {OPERATOR}"
                f" --secret-file {setup.secret_file(OPERATOR)} --subject ann --since 1h"
            ),
        ),
    ]
