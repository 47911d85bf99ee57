"""Install the peers of the training-speed scoreboard, each into an environment of its own.

python benchmarks/peers.py            (a peer that cannot be installed is reported as missing)

An environment holds the peer alone and sees torch and transformers of the interpreter that runs this script, so that
all contestants compute with the same build. The original release has the import name of this library: it can only be
run in an interpreter of its own.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from rich.console import Console

PEERS = {
    "original": ["edgerazor==1.3.5", "pyfiglet==1.0.4", "colorama==0.4.6"],
    "torchao": ["torchao==0.18.0"],
    "liger-kernel": ["liger-kernel==0.8.5"],
}


def folder() -> Path:
    """Where the environments are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgerazor" / "peers"


def interpreter(peer: str) -> Path | None:
    """The interpreter that can import a peer; None if it is missing."""
    python = folder() / peer / "bin" / "python"
    return python if python.exists() and (folder() / peer / "installed").exists() else None


def install(peer: str) -> str:
    """Make the environment of a peer; returns what happened."""
    home = folder() / peer
    command: list[str | Path] = [sys.executable, "-m", "venv", "--without-pip", home]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"missing: {_last(done)}"
    python = home / "bin" / "python"
    libraries = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (libraries / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet"]
    done = subprocess.run([*command, "--no-deps", *PEERS[peer]], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"missing: {_last(done)}"
    (home / "installed").write_text("\n".join(PEERS[peer]) + "\n")
    return "installed " + PEERS[peer][0]


def _last(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.returncode}"


def main() -> None:
    console = Console()
    for peer in PEERS:
        state = f"installed already in {folder() / peer}" if interpreter(peer) else install(peer)
        console.print(f"{peer}: {state}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
