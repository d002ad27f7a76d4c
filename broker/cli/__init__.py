"""The ``broker`` command: noun, then verb; every verb lives in a module of its own."""

from typing import Final

import rich_click as click

from broker import __version__
from broker.cli.lazy import LazyGroup, Verb

_EPILOG: Final = (
    "Exit codes: 0 all is well; 1 the answer is no; 2 the command line is wrong; "
    "3 the configuration is wrong."
)
_NOUNS: Final = {
    "config": (
        "The settings.",
        {
            "check": Verb("broker.cli.config_check:check", "Check the settings and print them."),
            "schema": Verb("broker.cli.config_schema:schema", "Print the JSON Schema for editors."),
        },
    ),
    "client": (
        "Clients.",
        {
            "secret": Verb("broker.cli.client_secret:secret", "Make a secret and its hash."),
            "key": Verb("broker.cli.client_key:key", "Make a private key and its public half."),
        },
    ),
    "token": (
        "Tokens.",
        {
            "get": Verb("broker.cli.token_get:get", "Get a client's own token."),
            "exchange": Verb("broker.cli.token_exchange:exchange", "Exchange a token."),
            "inspect": Verb(
                "broker.cli.token_inspect:inspect", "Verify a token and draw its delegation."
            ),
            "introspect": Verb(
                "broker.cli.token_introspect:introspect", "Ask the broker whether a token counts."
            ),
            "revoke": Verb("broker.cli.token_revoke:revoke", "Withdraw a client's own token."),
        },
    ),
    "keys": (
        "Signing keys.",
        {
            "list": Verb("broker.cli.keys_list:list_keys", "List the keys and their lives."),
            "plan": Verb("broker.cli.keys_plan:plan", "Show what happens to them, and when."),
            "rotate": Verb("broker.cli.keys_rotate:rotate", "Set successors."),
            "revoke": Verb("broker.cli.keys_revoke:revoke", "Take a key out of use at once."),
        },
    ),
    "audit": (
        "The audit record.",
        {
            "open": Verb("broker.cli.audit_open:open_pages", "Make a link to the auditor's pages."),
            "query": Verb("broker.cli.audit_query:query", "Find records."),
            "tail": Verb(
                "broker.cli.audit_tail:tail", "Print the newest records, and wait for more."
            ),
            "show": Verb("broker.cli.audit_show:show", "Tell one record, and why."),
            "lineage": Verb("broker.cli.audit_lineage:lineage", "Draw what a token led to."),
            "verify": Verb("broker.cli.audit_verify:verify", "Verify that the record is whole."),
            "compare": Verb(
                "broker.cli.audit_compare:compare", "Compare it with what somebody else received."
            ),
            "prove": Verb("broker.cli.audit_prove:prove", "Print the proof of one record."),
            "verify-proof": Verb(
                "broker.cli.audit_verify_proof:verify_proof", "Verify a proof by itself."
            ),
            "export": Verb("broker.cli.audit_export:export", "Hand records to other systems."),
            "verify-export": Verb(
                "broker.cli.audit_verify_export:verify_export", "Verify what was handed over."
            ),
            "key": Verb("broker.cli.audit_key:key", "Print the public key of its checkpoints."),
            "anchor": Verb("broker.cli.audit_anchor:anchor", "Print the anchored checkpoint."),
            "people": Verb(
                "broker.cli.audit_people:people", "List the periods whose people can be found."
            ),
            "forget": Verb(
                "broker.cli.audit_forget:forget", "Forget the people of a period for ever."
            ),
        },
    ),
    "policy": (
        "Policies.",
        {
            "check": Verb("broker.cli.policy_check:check", "Check a policy folder."),
            "test": Verb("broker.cli.policy_test:test", "Run the decision tables."),
            "explain": Verb("broker.cli.policy_explain:explain", "Ask what if, and why."),
        },
    ),
}


@click.group(
    cls=LazyGroup,
    verbs={
        "dev": Verb("broker.cli.dev:dev", "Start a broker to try things out with."),
        "serve": Verb("broker.cli.serve:serve", "Start the broker."),
        "run": Verb("broker.cli.run:run", "Start a program with a token that is renewed."),
        "health": Verb("broker.cli.health:health", "Ask a running broker whether it is ready."),
        "revoke": Verb("broker.cli.revoke:revoke", "Withdraw all that was issued for somebody."),
    },
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="broker")
def main() -> None:
    """A token exchange and delegation broker for the Model Context Protocol."""


for _noun, (_summary, _verbs) in _NOUNS.items():
    main.add_command(LazyGroup(_noun, help=_summary, verbs=_verbs))
