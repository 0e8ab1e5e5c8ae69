"""A tool server that reads Python for what a reviewer should know.  MCP streamable HTTP over h2c; ``tool.lint``."""

from __future__ import annotations

import ast

from mcp.server.mcpserver import MCPServer

from gateway.demo.peer import Settings, serve_http2

tools = MCPServer("linter", log_level="WARNING")

_SUSPECT = {"eval", "exec", "compile", "open", "__import__"}
_MAX_LINE = 100


@tools.tool()
def lint(code: str) -> list[str]:
    """Findings in a piece of Python, each as `line: what`; none is good news."""
    findings = [
        f"{number}: longer than {_MAX_LINE} characters"
        for number, line in enumerate(code.splitlines(), 1)
        if len(line) > _MAX_LINE
    ]
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.FunctionDef(name=name) if ast.get_docstring(node) is None:
                findings.append(f"{node.lineno}: {name}() has no docstring")
            case ast.Import() | ast.ImportFrom():
                findings.append(f"{node.lineno}: imports are not expected here")
            case ast.Call(func=ast.Name(id=name)) if name in _SUSPECT:
                findings.append(f"{node.lineno}: calls {name}()")
    return findings


if __name__ == "__main__":
    serve_http2(tools.streamable_http_app(), Settings.from_environment(), tls=False)
