"""Making a virtual environment and installing into it: with uv where it is there, else with venv and pip.

Where packages come from is pip's own business: its configuration files and ``PIP_*`` variables. uv reads neither, and
pip in a new environment does not read the ``pip.conf`` of this one, so both are told through the variables of the
child process. Nothing of it is written into a file: an index's address may hold a password.

Source: pip's documentation, "Configuration" (files, their order, variables) and uv's, "Environment variables".
"""

from __future__ import annotations

import configparser
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What pip may be told that decides what is found, and how it is reached.
_PIP_KEYS = (
    *("index-url", "extra-index-url", "find-links", "no-index", "pre"),
    *("trusted-host", "cert", "client-cert", "proxy", "timeout"),
)
# pip's setting -> uv's variable, where the value is taken over as it is.
_UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
}
# Older names of the same, which the user may have set.
_UV_OLDER = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# They belong to the environment that pytest runs in, not to the one that is made.
_UNSET = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "UV_PYTHON", "UV_SYSTEM_PYTHON", "CONDA_PREFIX")
# An index that does not answer is asked once more: with the five times of pip and the three of uv, told after 10 s.
_RETRIES = "1"
_INSTALLS_ELSEWHERE = (22, 3)
_TICK_S = 0.5
_WORDS = 420
_SECRET = re.compile(r"(?<=://)[^/@\s]+@")
_NOISE = re.compile(
    r"^(WARNING|Using Python|Looking in|Collecting|Downloading|No solution found|hint:|\[notice\]|note:)", re.IGNORECASE
)
_SIGNS = re.compile(r"^([×╰─▶├│\s]|ERROR:|error:|cause:|Caused by:)+")
_AVAILABLE = re.compile(r"^Available versions: (.+)$", re.MULTILINE)
# pip says why an index does not answer in a warning only.
_REFUSED = re.compile(r"(?:Failed to (?:establish a new connection|resolve)|Connection (?:timed out|reset))[^'\")\n]*")
_VERSIONS = re.compile(r"\(from versions: [^)]*, ([^),]+, [^),]+)\)")


class Failed(Exception):
    """A command did not do what it was to do; the message is its own last words."""


class Installer(NamedTuple):
    """What makes environments here: ``uv`` is its path, "" where venv and pip do."""

    uv: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return "uv" if self.uv else "pip"


def find_installer() -> Installer:
    """Return uv where it is installed beside pytest or on ``PATH``, else venv and pip."""
    beside = Path(sys.executable).parent / "uv"
    if beside.is_file():
        return Installer(str(beside))
    if importlib.util.find_spec("uv") is not None:
        with contextlib.suppress(ImportError, FileNotFoundError, AttributeError):
            return Installer(str(importlib.import_module("uv").find_uv_bin()))
    return Installer(shutil.which("uv") or "")


def make(
    installer: Installer,
    folder: Path,
    python: str,
    requirements: Sequence[str],
    timeout_s: float,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Make an environment in ``folder`` with the requirements; returns its interpreter.

    Raises: Failed, with the last words of what failed; OSError.
    """
    ends = time.monotonic() + timeout_s
    interpreter = folder / "bin" / "python"
    own = pip_settings(os.environ)
    if installer.uv:
        variables = uv_variables(own, os.environ)
        make_it: list[str] = [installer.uv, "venv", "--quiet", "--no-project", "--python", python, str(folder)]
        install = [installer.uv, "pip", "install", "--python", str(interpreter), *(["--no-index"] if _no(own) else [])]
    else:
        variables = pip_variables(own, os.environ)
        # The pip that is here is newer than the one that venv brings along, and need not be installed first.
        here = _pip_is_here()
        make_it = [python, "-I", "-m", "venv", *(["--without-pip"] if here else []), str(folder)]
        pip = [sys.executable, "-m", "pip", "--python", str(interpreter)] if here else [str(interpreter), "-m", "pip"]
        install = [*pip, "install", "--no-input", "--disable-pip-version-check"]
    run(make_it, variables, ends, progress)
    run([*install, *requirements], variables, ends, progress)
    return interpreter


def _pip_is_here() -> bool:
    """Whether pip is installed beside this tool, in a version that installs for other interpreters (22.3)."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return tuple(int(part) for part in version("pip").split(".")[:2]) >= _INSTALLS_ELSEWHERE
    except (PackageNotFoundError, ValueError):
        return False


def run(
    command: Sequence[str], variables: Mapping[str, str], ends: float, progress: Callable[[float], None] | None = None
) -> str:
    """What a command prints to its standard output; its whole process group ends with it.

    Raises: Failed, with the command's last words, or where it takes longer than until ``ends``.
    """
    environ = {k: v for k, v in os.environ.items() if k not in _UNSET} | dict(variables)
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ, start_new_session=True
        )
        try:
            status = _waited(process, ends, lambda: progress(time.monotonic() - started) if progress else None)
        finally:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        texts = []
        for handle in (out, err):
            handle.seek(0)
            texts.append(handle.read().decode("utf-8", "replace"))
    if status is None:
        took = time.monotonic() - started
        raise Failed(f"it was not done after {took:.0f} s (--mf-timeout); it last said: {last_words(texts[1])}")
    if status:
        raise Failed(last_words(texts[1]) or last_words(texts[0]) or f"it ended with status {status}")
    return texts[0]


def _waited(process: subprocess.Popen[bytes], ends: float, tick: Callable[[], object]) -> int | None:
    """The exit status, ``None`` where it did not come in time."""
    while (left := ends - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(_TICK_S, left))
        tick()
    return None


def last_words(text: str) -> str:
    """What pip or uv says went wrong, on one line and without the passwords of addresses."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    told = dict.fromkeys(_SIGNS.sub("", line).strip().rstrip(".;") for line in errors)
    words = "; ".join(line for line in told if line and not _NOISE.match(line))
    if (refused := _REFUSED.search(text)) and "(from versions: none)" in words:
        words = f"{refused[0]}; {words}"
    words = _VERSIONS.sub(r"(the newest of those found: \1)", without_secrets(words))
    return words if len(words) <= _WORDS else f"{words[: _WORDS - 2].rstrip()} …"


def without_secrets(text: str) -> str:
    """The text with the user and password of every address hidden."""
    return _SECRET.sub("***@", text)


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip is configured to find packages by: its files, the later ones counting, then its variables."""
    found: dict[str, str] = {}
    for path in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip itself complains of it, more precisely
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {_key(name): value for name, value in parser.items(section)}
    found |= {_key(name[4:]): value for name, value in environ.items() if name.startswith("PIP_")}
    if "default-timeout" in found:
        found.setdefault("timeout", found["default-timeout"])
    return {key: " ".join(found[key].split()) for key in _PIP_KEYS if found.get(key, "").strip()}


def _key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _pip_files(environ: Mapping[str, str]) -> list[Path]:
    """The configuration files of pip in the order in which the later one counts."""
    chosen = environ.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    shared = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    files = [*(Path(folder) / "pip" / "pip.conf" for folder in reversed(shared)), Path("/etc/pip.conf")]
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    if sys.platform == "darwin":
        files.append(Path("/Library/Application Support/pip/pip.conf"))
        user = next((f for f in (home / "Library" / "Application Support",) if (f / "pip").is_dir()), user)
    files += [home / ".pip" / "pip.conf", user / "pip" / "pip.conf", Path(sys.prefix) / "pip.conf"]
    return [*files, *([Path(chosen)] if chosen else [])]


def _no(settings: Mapping[str, str]) -> bool:
    return settings.get("no-index", "").lower() in {"1", "true", "yes", "on", "y", "t"}


def pip_variables(settings: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The settings as variables for the pip of another environment; what the user has set is left alone."""
    wanted = {f"PIP_{key.upper().replace('-', '_')}": value for key, value in settings.items()}
    return {k: v for k, v in {"PIP_RETRIES": _RETRIES, **wanted}.items() if k not in environ}


def uv_variables(settings: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The settings as uv's variables; what the user has set is left alone.

    Of several indexes pip takes the best version that any of them has; uv has to be asked for that.
    """
    wanted = {variable: settings[key] for key, variable in _UV_VARIABLES.items() if key in settings}
    if links := [link for link in settings.get("find-links", "").split() if _is_there(link)]:
        wanted["UV_FIND_LINKS"] = ",".join(links)
    if settings.get("pre", "").lower() in {"1", "true", "yes"}:
        wanted["UV_PRERELEASE"] = "allow"
    if "proxy" in settings and not any(environ.get(name) or environ.get(name.lower()) for name in _PROXIES):
        wanted["ALL_PROXY"] = settings["proxy"]
    usual = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_HTTP_RETRIES": _RETRIES, "UV_NO_PROGRESS": "1"}
    wanted = {**usual, **wanted, "UV_PYTHON_DOWNLOADS": "never"}
    return {k: v for k, v in wanted.items() if k not in environ and _UV_OLDER.get(k, "") not in environ}


def _is_there(link: str) -> bool:
    """A folder that is not there is a warning to pip and an error to uv."""
    return "://" in link or Path(link).expanduser().exists()


def released(package: str, timeout_s: float) -> list[str]:
    """The released versions that the index has for this interpreter and platform, in no promised order.

    Raises: Failed, with the last words of what was asked.
    """
    installer, own = find_installer(), pip_settings(os.environ)
    # Not through sys.meta_path: setuptools takes that for the start of pip, and gives up its distutils in this process.
    if PathFinder.find_spec("pip") is not None:
        command, variables = [sys.executable, "-m", "pip"], pip_variables(own, os.environ)
    elif installer.uv:
        command, variables = [installer.uv, "tool", "run", "--quiet", "pip"], uv_variables(own, os.environ)
        variables |= pip_variables(own, os.environ)
    else:
        raise Failed("pip is not installed beside this tool (python -m ensurepip)")
    text = run([*command, "index", "versions", package, "--disable-pip-version-check"], variables, _until(timeout_s))
    found = _AVAILABLE.search(text)
    if found is None:
        raise Failed(f"pip said nothing of the versions of {package}: {last_words(text)}")
    return [version.strip() for version in found[1].split(",") if version.strip()]


def _until(timeout_s: float) -> float:
    return time.monotonic() + timeout_s


def look(python: str, code: str, timeout_s: float = 60.0) -> Any:
    """What code that prints JSON says under an interpreter.

    Raises: Failed where the interpreter does not start or says something else.
    """
    import json

    try:
        return json.loads(run([python, "-I", "-c", code], {}, _until(timeout_s)))
    except (OSError, ValueError) as error:
        raise Failed(f"{python} is no Python interpreter ({error})") from None
