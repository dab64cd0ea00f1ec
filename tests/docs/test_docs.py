"""What the pages show works: every block is run, in order, as by a person who copies it into a terminal.

`bash` blocks run in one shell for each page, in an empty folder; `python` blocks run where that shell is; a block with
a title is written to the file of that name; a `text` block right behind one that ran is what it printed, line by line,
where `…` stands for anything. Port 5001 may be taken here: another stands in for it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PAGES, Block, blocks, name

#: Lines that are not run, and why.
SKIPPED = {
    re.compile(r"git clone "): "this is the clone",
    re.compile(r"python3 -m venv "): "the environment is there: the tests run in it",
    re.compile(r"(python3? -m )?pip install "): "it is installed: the tests run it",
    re.compile(r"make \w+$|evergreen demo$"): "takes minutes and has tests of its own",
}
#: A person sees the server say so in the other terminal, and only then goes on.
UP = "evergreen up &"
READY = "Evergreen is up at"
#: Seconds a person takes, at the least, to read what was printed before going on; a server follows a command by then.
READING_S = 0.5
PATIENCE_S = 240
SHOWN = ("bash", "python")
RUN = [page for page in PAGES if any(b.language in SHOWN for b in blocks(page))]


def reason(line: str) -> str:
    """Say why a line is not run, if it is not."""
    return next((why for pattern, why in SKIPPED.items() if pattern.match(line.strip())), "")


def commands(block: Block, session: Path) -> Iterator[str]:
    """Yield what a person would type, waiting for a server that was begun to be up."""
    for line in block.text.splitlines():
        if reason(line):
            continue
        if line.strip() != UP:
            yield line
            continue
        yield f"before=$(grep -c '{READY}' '{session}' || true)"
        yield UP
        yield f"""until [ "$(grep -c '{READY}' '{session}')" -gt "$before" ]; do kill -0 $! || exit 1; sleep 0.1; done"""


def script(page: Path, folder: Path, session: Path, port: int) -> str:
    """Write a page's blocks out as one shell script; every block says where it begins."""
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"]
    up = False
    for number, block in enumerate(blocks(page)):
        if up and block.language in SHOWN:
            lines.append(f"sleep {READING_S}")
        up = (up or UP in block.text) and "kill %1" not in block.text
        lines.append(f"printf '\\n@@ {number}\\n'")
        if block.title:
            kept = folder / f"block-{number}"
            kept.write_text(block.text.replace("5001", str(port)), encoding="utf-8")
            lines.append(f"mkdir -p \"$(dirname '{block.title}')\" && cp '{kept}' '{block.title}'")
        elif block.language == "python":
            kept = folder / f"block-{number}.py"
            kept.write_text(block.text.replace("5001", str(port)), encoding="utf-8")
            lines.append(f"python3 -c \"$(cat '{kept}')\"")
        elif block.language == "bash":
            lines += [line.replace("5001", str(port)) for line in commands(block, session)]
    return "\n".join([*lines, "printf '\\n@@ end\\n'"])


def run(page: Path, folder: Path) -> dict[int, str]:
    """Run a page; return what each block printed. Fails with what was printed last if a block does."""
    home, session = folder / "home", folder / "session.txt"
    home.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k == "EVERGREEN_NICE" or not k.startswith("EVERGREEN_")}
    env |= {"HOME": str(home), "EVERGREEN_PORT": str(port), "COLUMNS": "200", "PYTHONWARNINGS": "default"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    text = script(page, folder, session, port)
    with session.open("wb") as out:
        shell = subprocess.Popen(
            ["bash", "-c", text],
            cwd=home,
            env=env,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = shell.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            code = shell.wait()
    said = session.read_text(encoding="utf-8").replace(str(port), "5001")
    parts = re.split(r"^@@ (\d+|end)\n", said, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    last = next(reversed(found), "0")
    if code or last != "end":
        block = list(blocks(page))[int(last if last != "end" else list(found)[-2])]
        pytest.fail(f"{block} ended with {code}:\n{block.text}\nand printed:\n{found.get(last, said)[-4000:]}")
    return {int(number): printed for number, printed in found.items() if number != "end"}


def expected(line: str) -> re.Pattern[str]:
    """Read what is shown of the output: `…` stands for anything, a blank for any blanks."""
    pieces = line.strip().split("…")
    return re.compile(".*?".join(r"[^\S\n]+".join(map(re.escape, piece.split(" "))) for piece in pieces))


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl")
@pytest.mark.parametrize("page", RUN, ids=name)
def test_a_page_can_be_followed(page: Path, tmp_path: Path) -> None:
    printed = run(page, tmp_path)
    for number, block in enumerate(blocks(page)):
        if block.language != "text" or not block.follows or number - 1 not in printed:
            continue
        said, at = printed[number - 1], 0
        for line in filter(str.strip, block.text.splitlines()):
            found = expected(line).search(said, at)
            assert found, f"{block}: this was not printed, or not in this order:\n{line}\nbut:\n{said}"
            at = found.end()


def test_what_is_skipped_stands_in_a_page() -> None:
    """A pattern that no line needs would hide one that should run."""
    lines = [line for page in RUN for b in blocks(page) if b.language == "bash" for line in b.text.splitlines()]
    for pattern in SKIPPED:
        assert any(pattern.match(line.strip()) for line in lines), pattern.pattern
