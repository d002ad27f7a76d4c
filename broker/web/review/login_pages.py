"""The pages of the login, in a few lines of HTML that need no script."""

from html import escape
from typing import Final
from urllib.parse import urlencode

from broker.web.review.place import BASE

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title} · Audit record</title>
<link rel="icon" href="{base}/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{base}/static/review.css">
<main class="login">
<p class="brand"><img src="{base}/static/icon.svg" alt="" width="24" height="24"> Audit record</p>
<h1>{title}</h1>
{content}
</main>
</html>
"""
_COMMAND: Final = """\
<p>On the broker's machine, as the account that it runs as, this command makes a new link:</p>
<pre tabindex="0" aria-label="Command"><code>{command}</code></pre>
<p>A link logs one browser in, once, within two minutes.</p>"""

_LONGEST_SHOWN: Final = 500


def login_page(issuer: str | None, page: str, *, command: str) -> str:
    """
    How to log in: at the provider, where there is one, and by a link. ``page`` is shown after it.

    ``command`` makes a link.
    """
    if issuer is None:
        return _page("Log in to read the audit record", _by_link(command))
    target = escape(f"{BASE}/login/begin?{urlencode({'next': page})}")
    link = f'<p><a class="button" href="{target}">Log in at {escape(issuer)}</a></p>'
    return _page("Log in to read the audit record", link + _by_link(command))


def link_page(secret: str) -> str:
    """The page of a one-time link: a button, so that only a person spends it."""
    content = (
        f'<form method="post" action="{BASE}/login/link">'
        f'<input type="hidden" name="secret" value="{escape(secret[:64])}">'
        '<p><button class="primary" type="submit">Read the audit record</button></p></form>'
        "<p>This logs this browser in to the auditor's pages. The link works once, and only for two "
        "minutes.</p>"
    )
    return _page("Log in by a link", content)


def begin_page(url: str) -> str:
    """What a browser shows that does not go to the provider by itself."""
    return _page("Log in", f'<p><a href="{escape(url)}">Go on to the login provider</a></p>')


def onward_page(target: str) -> str:
    """What is shown in place of a question that another site led to, with a link to ask it."""
    content = (
        "<p>Another site led here. Whatever you look at is put on record as your question, so go on "
        "only if you mean to ask it:</p>"
        f'<p><a class="button" href="{escape(target)}">Go on</a></p>'
        f"<p><code>{escape(target[:_LONGEST_SHOWN])}</code></p>"
    )
    return _page("Do you mean to ask this?", content)


def refused_page(sentence: str, *, command: str) -> str:
    """Why somebody was not let in, and the ``command`` that makes a link."""
    again = f'<p><a href="{BASE}/login">Log in again</a></p>'
    told = f'<p role="alert">{escape(sentence)}</p>{again}{_by_link(command)}'
    return _page("Not logged in", told)


def _by_link(command: str) -> str:
    return _COMMAND.format(command=escape(command))


def _page(title: str, content: str) -> str:
    return _PAGE.format(title=title, content=content, base=BASE)
