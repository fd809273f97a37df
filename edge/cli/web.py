"""`anyecg web` and `anyecg web-token`: the page, and who may open it from elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.cli.app import DEFAULT_STATE, JsonOption, StateOption, app, console, print_json

tokens = typer.Typer(no_args_is_help=True, help="Tokens that open the page from elsewhere.")
app.add_typer(tokens, name="web-token")


@app.command()
def web(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; else web.host (127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="TCP port, 0: any free one; else web.port (8377).")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines instead of text.")] = False,
) -> None:
    """Serve the page (live, review, ask, health) until SIGTERM; it only reads, the daemon writes."""
    from edge.cli import logs
    from edge.config import load
    from edge.web.serve import serve

    logs.configure(as_json=log_json)
    config = load(state)
    serve(state, config, host or config.web.host, config.web.port if port is None else port)


@tokens.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    role: Annotated[str, typer.Option("--role", help="owner (may change) or viewer (may see and ask).")] = "viewer",
    days: Annotated[float, typer.Option("--days", min=0.01, max=3650, help="How long it is valid.")] = 365.0,
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, once; only a hash of it is kept."""
    from edge.web.tokens import TokenFile

    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = TokenFile(state).add(name, role, days)
    if as_json:
        print_json({"name": name, "role": role, "token": text})
    else:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


@tokens.command("list")
def list_(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show names, roles and expiry."""
    from edge.assistant.localtime import iso_utc
    from edge.web.tokens import TokenFile

    rows = [
        {"name": t.name, "role": t.role, "expires": iso_utc(round(t.expires_s * 1e9))} for t in TokenFile(state).all()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        console.print(f"{row['name']:<32} {row['role']:<7} until {row['expires']}", highlight=False, markup=False)
    if not rows:
        console.print("no tokens: the page opens on this machine only", highlight=False)


@tokens.command()
def remove(name: Annotated[str, typer.Argument(help="Whose.")], state: StateOption = DEFAULT_STATE) -> None:
    """Take a token back; who is signed in with it is signed out."""
    from edge.web.tokens import TokenFile

    TokenFile(state).remove(name)
    console.print(f"{name} can no longer sign in", highlight=False, markup=False)
