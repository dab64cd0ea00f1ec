"""What a person types: `evergreen init`, `up`, `status`, `train` … Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for wrong settings or usage, 130 for Ctrl-C, else 1."""
    import typer

    from evergreen.cli import terminal
    from evergreen.cli.app import app
    from evergreen.cli.opening import Misuse
    from evergreen.core.errors import ConfigError, EvergreenError

    if isinstance(sys.stdout, io.TextIOWrapper):  # into a pipe, too, what is said stays in order with what goes wrong
        sys.stdout.reconfigure(line_buffering=True)
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        code = app(list(argv) if argv is not None else None, prog_name="evergreen", standalone_mode=False)
    except usage_error as e:
        if said := e.format_message():  # type: ignore[attr-defined]  # else the help was shown, for want of a command
            terminal.fail(said, hint=_help_for(e))
        return 2
    except EvergreenError as e:
        if os.environ.get("EVERGREEN_DEBUG") == "1":
            raise
        terminal.fail(str(e), field=e.field, hint=e.hint)
        return 2 if isinstance(e, ConfigError | Misuse) else 1
    except (KeyboardInterrupt, typer.Abort):
        terminal.say("stopped")
        return 130
    except BrokenPipeError:  # `evergreen history | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:
        if os.environ.get("EVERGREEN_DEBUG") == "1":
            raise
        told = f"{type(e).__name__}: {e}"
        terminal.fail(
            told, hint="This should not happen. EVERGREEN_DEBUG=1 shows where; `evergreen doctor` may know why."
        )
        return 1
    if code == 130:
        terminal.say("stopped")
    return code if isinstance(code, int) else 0


def _help_for(e: object) -> str:
    context = getattr(e, "ctx", None)
    return f"{context.command_path if context is not None else 'evergreen'} --help"
