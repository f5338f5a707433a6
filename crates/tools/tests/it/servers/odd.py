"""An MCP server that behaves in all the ways a client must survive.

    odd.py stdio
    odd.py http PORT
"""

import asyncio
import os
import sys
import time

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("odd")
canceled = 0


@server.tool()
def pid() -> dict[str, int]:
    """Which process answers."""
    return {"pid": os.getpid()}


@server.tool()
def double(number: int) -> int:
    """Twice a number."""
    return number * 2


@server.tool(structured_output=False)
def say(text: str) -> str:
    """The text given, as text."""
    return text


@server.tool()
def fail() -> str:
    """Fails politely."""
    raise ToolError("the cat is on the keyboard")


@server.tool()
def die() -> str:
    """Ends the process in the middle of the call."""
    os._exit(1)


@server.tool()
async def hang() -> str:
    """Never answers; notices when it is told that nobody waits any more."""
    global canceled
    print("hanging", file=sys.stderr, flush=True)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        canceled += 1
        raise
    return "never"


@server.tool()
def times_canceled() -> int:
    """How many calls of `hang` were canceled."""
    return canceled


@server.tool()
async def block(seconds: int) -> str:
    """Answers late, and lets nothing else be answered meanwhile."""
    time.sleep(seconds)
    return "late"


@server.tool()
def noise() -> str:
    """Writes to standard output what is no message."""
    os.write(1, b"Downloading 42%\nWARN {\"not\": \"ours\"}\n\n")
    return "done"


@server.tool()
def variables() -> list[str]:
    """The names of the environment's variables."""
    return sorted(os.environ)


@server.tool()
def many(count: int) -> str:
    """So many letters."""
    return "x" * count


@server.tool()
async def grow(ctx: Context) -> str:
    """Adds a tool and says so."""

    def late() -> str:
        """A tool that came late."""
        return "here"

    server.add_tool(late)
    await ctx.session.send_tool_list_changed()
    return "grown"


@server.tool()
def forget() -> str:
    """Forgets all sessions, as a server does when they have expired."""
    server.session_manager._server_instances.clear()
    return "forgotten"


locked = False


@server.tool()
def lock() -> str:
    """Asks for credentials from now on, over HTTP."""
    global locked
    locked = True
    return "locked"


class Lock:
    """Answers 401 when locked."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if locked and scope["type"] == "http" and scope["method"] == "POST":
            challenge = [(b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": challenge})
            await send({"type": "http.response.body", "body": b"who are you?"})
        else:
            await self.app(scope, receive, send)


if sys.argv[1] == "stdio":
    server.run("stdio")
else:
    uvicorn.run(Lock(server.streamable_http_app()), host="127.0.0.1", port=int(sys.argv[2]))
