"""The OAuth face over HTTP: a thin WSGI application and the server that runs it."""
