"""Lock files, requirements, the example of the settings and the image say the same as the code."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import Bot, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.settings import Settings, load_settings
from alpaca_broker.simulator import SimulatorThread

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
EXAMPLE = ROOT / "configs/.env.example"
DOCKERFILE = ROOT / "main/alpaca_broker/Dockerfile"
IMAGE, BASE = f"alpaca-broker-test-{os.getpid()}", "docker.io/library/python:3.11-slim"


def pins(name: str) -> list[str]:
    """The pinned packages of a lock file, markers included, as they stand there."""
    text = (ROOT / name).read_text()
    return [p.strip() for p in re.findall(r"^([a-z0-9][^\\\n]*==[^\\\n]*)\\?$", text, re.MULTILINE)]


def test_requirements_pin_what_the_lock_pins() -> None:
    """requirements.txt is the lock file without hashes, then the project itself."""
    text = (ROOT / "main/alpaca_broker/requirements.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [*pins("requirements.lock"), "-e ."]


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_hashes_and_no_address(name: str) -> None:
    """Every package is held by its hashes, from wherever it comes."""
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE), "an option of pip"
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(name)) > 20
    assert [e.split()[0] for e in entries if "--hash=sha256:" not in e] == []


def test_locks_agree() -> None:
    """Tests run with the very packages that users get."""
    assert set(pins("requirements.lock")) <= set(pins("requirements-dev.lock"))


@pytest.mark.parametrize(("lock", "groups"), [(LOCKS[0], ["build"]), (LOCKS[1], ["build", "dev"])])
def test_locks_are_up_to_date(lock: str, groups: list[str]) -> None:
    """Everything that pyproject.toml asks for is locked, in a version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [entry for group in groups for entry in project["dependency-groups"][group]]
    wanted += project["project"]["dependencies"]
    locked = {r.name: str(r.specifier).removeprefix("==") for r in map(Requirement, pins(lock))}
    for requirement in [Requirement(entry) for entry in wanted if isinstance(entry, str)]:
        version = locked[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement}: run `make lock`"


def example() -> dict[str, str]:
    """The example as `docker run --env-file` takes it: a value is all behind the first =."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def test_the_example_names_every_setting_once() -> None:
    """A setting that nobody can find does not exist; one that does not exist must not be named."""
    assert sorted(example()) == sorted(name.upper() for name in Settings.model_fields)
    assert EXAMPLE.read_text().count("=") >= len(Settings.model_fields)


def test_the_example_holds_the_defaults() -> None:
    """Copied as it is, the example changes nothing."""
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)


def test_the_example_suits_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an environment, with one pair of keys filled in, it is all that the broker needs."""
    values = example()
    assert [v for v in values.values() if v != v.strip() or set(v) & set("\"'#")] == []
    values |= {"PAPER_ALPACA_API_KEY_ID": "key", "PAPER_ALPACA_API_SECRET_KEY": "secret"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert load_settings(tmp_path / "no-such-file").data_keys().key_id == "key"


def test_the_example_holds_no_key() -> None:
    """Whoever fills in the example instead of a copy hears of it before it is committed."""
    secret = [name for name in example() if "ALPACA_API" in name or "PASSWORD" in name]
    assert [name for name in secret if example()[name]] == []
    assert "configs/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_no_key_can_get_into_the_image() -> None:
    """The build sees only what it is allowed to see, and no .env file."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == {"requirements.lock", "pyproject.toml", "README.md", "LICENSE", "src", "main"}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    assert {name for names in copied for name in names.split()} == allowed


def test_the_image_sets_the_known_command() -> None:
    """Exec form, so that SIGTERM reaches the broker; not as root."""
    text = DOCKERFILE.read_text()
    assert text.rstrip().endswith('CMD ["python", "-m", "main.alpaca_broker.main"]')
    assert text.index("\nUSER broker") < text.index("\nCMD")


def buildah(*words: str) -> subprocess.CompletedProcess[str]:
    """Run buildah in the root of the repository; it needs no daemon."""
    environment = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    return subprocess.run(
        ["buildah", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def container(soak: bool) -> Iterator[str]:
    """A container of an image that was built as the README says."""
    if not soak:
        pytest.skip("the image is built under --soak: it takes half a minute")
    if shutil.which("buildah") is None:
        pytest.skip("the image is not built: buildah is not installed")
    if buildah("inspect", "--type", "image", BASE).returncode:
        pytest.skip(f"the image is not built: {BASE} is not there (buildah pull {BASE})")
    file = str(DOCKERFILE.relative_to(ROOT))
    built = buildah("bud", "--pull-never", "-t", IMAGE, "-f", file, ".")
    assert built.returncode == 0, built.stderr
    container = buildah("from", "--pull-never", f"localhost/{IMAGE}").stdout.strip()
    yield container
    buildah("rm", container)
    buildah("rmi", f"localhost/{IMAGE}")


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_the_image_works(
    container: str, valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread
) -> None:
    """It tells what is missing, holds no settings, runs unprivileged and ends on SIGTERM."""
    config = msgspec.json.decode(buildah("inspect", container).stdout)["OCIv1"]["config"]
    command: list[str] = config["Cmd"]
    assert config["User"] == "broker"

    bare = buildah("run", container, "--", *command)
    assert bare.returncode == 2
    assert "PAPER_ALPACA_API_KEY_ID" in bare.stderr
    found = buildah("run", container, "--", "find", "/app", "-name", ".env*").stdout
    assert found == ""

    variables = {
        "PAPER_ALPACA_API_KEY_ID": "PKTEST",
        "PAPER_ALPACA_API_SECRET_KEY": "secret-of-the-tests",
        "REDIS_PORT": str(valkey.port),
        "CHANNEL_PREFIX": prefix,
    } | dict.fromkeys(
        (f"ALPACA_{name}_URL" for name in ("DATA_STREAM", "DATA", "PAPER", "LIVE")), simulator.url
    )
    given = [word for item in variables.items() for word in ("--env", "=".join(item))]
    # The container's own process is not our child: its number is told by the shell it replaces.
    in_shell = ("sh", "-c", 'echo $$; exec "$@"', "sh", *command)
    with (
        Bot(valkey.port, f"{prefix}broker:status") as bot,
        subprocess.Popen(
            ["buildah", "run", "--network", "host", *given, container, "--", *in_shell],
            env=os.environ | {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        number = int(process.stdout.readline())
        try:
            bot.until(lambda _, message: message["state"] == "live", within_s=30)
        finally:
            os.kill(number, signal.SIGTERM)
        out, err = process.communicate(timeout=15)
    assert process.returncode == 0, out + err
    eventually(lambda: not Path(f"/proc/{number}").exists())
