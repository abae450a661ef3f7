"""The scripts and the file behind `docker compose -f dev/compose.yaml up`, without Docker.

The scripts run in a LocalStack and in a Postgres cluster of this machine, in the way in which the
images run them. The images themselves are not tested.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from deploy.localstack import COMPOSE_DATABASE, COMPOSE_PASSWORD, ENDPOINT
from dev import EVENTS, ROOT, TARGET, postgres, processes, stack
from dev.emulator import Emulator, Feature, Kind
from dev.emulator import start as start_emulator
from dev.local_system import make_directory

COMPOSE = ROOT / "dev" / "compose.yaml"
LOGIN_QUEUE = "login-queue"
LOGS = TARGET / "e2e-compose"


@dataclass
class Cluster:
    """A cluster that was created as Postgres' image creates it."""

    binaries: Path
    directory: Path
    port: int

    @property
    def data(self) -> Path:
        """The image's PGDATA."""
        return self.directory / "data"

    def run(self, *command: object, **environment: str) -> None:
        """Run a program as the server's user."""
        subprocess.run(
            [str(part) for part in command],
            check=True,
            cwd=self.directory,
            env=postgres.environment() | environment,
            **processes.as_user(postgres.server_user()),
        )

    def start(self, **settings: str | int) -> None:
        """Start the server."""
        options = " ".join(f"-c {name}={value!r}" for name, value in settings.items())
        log = self.directory / "log"
        self.run(self.binaries / "pg_ctl", "-D", self.data, "-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server."""
        self.run(self.binaries / "pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")

    def query(self, host: str, statement: str) -> list[tuple[Any, ...]]:
        """Query the server under one of its names, as the functions and psql do."""
        with psycopg.connect(
            host=host,
            hostaddr="127.0.0.1",
            port=self.port,
            user="postgres",
            password="postgres",
            dbname="logins",
            sslmode="verify-full",
            sslrootcert=str(self.data / "ca.pem"),
        ) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture(scope="module")
def cluster(config: dict[str, Any]) -> Iterator[Cluster]:
    """Create a cluster, run the scripts and start the server, as the image's entrypoint does."""
    directory = make_directory()
    postgres.give_to_server_user(directory)
    binaries = postgres.copy_if_unreachable(postgres.find_binaries(), directory)
    cluster = Cluster(binaries, directory, processes.free_port())
    password = directory / "password"
    password.write_text(config["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"])
    postgres.give_to_server_user(password)
    psql = [shutil.which("psql", path=f"{binaries}:{os.environ['PATH']}"), "--username=postgres"]
    database = config["services"]["postgres"]["environment"]["POSTGRES_DB"]
    try:
        cluster.run(
            *(binaries / "initdb", "-D", cluster.data, "--username=postgres", "--encoding=UTF8"),
            *(f"--pwfile={password}", "--auth-local=trust", "--auth-host=scram-sha-256"),
        )
        cluster.start(listen_addresses="", unix_socket_directories=str(directory))
        socket = f"--host={directory}"
        cluster.run(*psql, socket, "--dbname=postgres", f"--command=CREATE DATABASE {database}")
        for source, name in _init_scripts(config):
            # The server's user may not be able to enter the project's folder.
            script = Path(shutil.copyfile(source, directory / name))
            script.chmod(0o755)
            if script.suffix == ".sh":
                cluster.run(script, PGDATA=str(cluster.data))
            else:
                stop = "--set=ON_ERROR_STOP=1"
                cluster.run(*psql, socket, stop, f"--dbname={database}", f"--file={script}")
        cluster.stop()
        cluster.start(listen_addresses="127.0.0.1", port=cluster.port, unix_socket_directories="")
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """Read the file as the compose tool understands it."""
    command = ["docker-compose", "--file", COMPOSE, "config", "--format", "json"]
    # A variable of whoever runs the tests must not change what is tested.
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def test_ports_are_open_to_this_machine_only(config: dict[str, Any]) -> None:
    ports = [port for one in config["services"].values() for port in one["ports"]]

    assert len(ports) == 2
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_images_have_a_fixed_version(config: dict[str, Any]) -> None:
    tags = {name: one["image"].split(":")[1] for name, one in config["services"].items()}

    assert tags == {"localstack": "4.14.0", "postgres": "17.9-bookworm"}


def test_mounted_files_exist(config: dict[str, Any]) -> None:
    mounts = [mount for one in config["services"].values() for mount in one["volumes"]]
    ours = [mount for mount in mounts if Path(mount["source"]).is_relative_to(ROOT)]

    assert len(ours) == 4
    assert [mount for mount in ours if not Path(mount["source"]).exists()] == []
    assert all(mount["read_only"] for mount in ours)


def test_deploy_uses_this_database_by_default(config: dict[str, Any]) -> None:
    url = urlsplit(COMPOSE_DATABASE)
    environment = config["services"][url.hostname]["environment"]

    assert environment == {"POSTGRES_DB": url.path[1:], "POSTGRES_PASSWORD": COMPOSE_PASSWORD}
    assert config["services"]["localstack"]["ports"][0]["published"] == str(urlsplit(ENDPOINT).port)


def test_functions_join_the_network_of_postgres(config: dict[str, Any]) -> None:
    [network] = config["networks"].values()

    environment = config["services"]["localstack"]["environment"]
    assert environment["LAMBDA_DOCKER_NETWORK"] == network["name"]


@pytest.mark.needs(Feature.INIT_SCRIPTS)
@pytest.mark.own_localstack("starts a LocalStack of its own")
def test_healthy_localstack_has_the_sample_messages(config: dict[str, Any]) -> None:
    healthy = config["services"]["localstack"]["healthcheck"]["test"][1]

    with _localstack() as localstack:
        check = healthy.replace("http://localhost:4566", localstack.endpoint)
        processes.wait_until(
            lambda: subprocess.run(check, shell=True, check=False).returncode == 0,
            "LocalStack",
            localstack.process,
            localstack.log,
        )
        url = localstack.client("sqs").get_queue_url(QueueName=LOGIN_QUEUE)["QueueUrl"]
        bodies = [message["Body"] for message in stack.peek(localstack, url)]

    assert sorted(bodies) == sorted((EVENTS / "login-queue.jsonl").read_text().splitlines())


def test_postgres_has_the_table(cluster: Cluster) -> None:
    columns = """
        SELECT column_name
        FROM information_schema.columns
        WHERE table_name = 'user_logins'
        ORDER BY ordinal_position
    """

    assert [name for (name,) in cluster.query("localhost", columns)] == [
        "user_id",
        "device_type",
        "masked_ip",
        "masked_device_id",
        "locale",
        "app_version",
        "create_date",
    ]


@pytest.mark.parametrize("name", ["postgres", "host.docker.internal", "localhost", "127.0.0.1"])
def test_certificate_is_valid_for_each_name(cluster: Cluster, name: str) -> None:
    tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

    assert cluster.query(name, tls) == [(True,)]


def test_certificate_is_not_valid_for_other_names(cluster: Cluster) -> None:
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        cluster.query("elsewhere", "SELECT 1")


def test_key_of_the_authority_is_deleted(cluster: Cluster) -> None:
    assert sorted(path.name for path in cluster.data.glob("*.key")) == ["server.key"]


def with_ready_script(directory: Path) -> dict[str, str]:
    """Write the settings with which a LocalStack outside of Docker runs the script."""
    root = directory.with_name("localstack-root")
    shutil.copytree(COMPOSE.parent / "compose" / "ready.d", root / "etc/localstack/init/ready.d")
    return {
        # Without it, and in a container, LocalStack looks for scripts in the system's /etc.
        "OVERRIDE_IN_DOCKER": "0",
        "FILESYSTEM_ROOT": str(root),
        "LOGIN_QUEUE_FILE": str(EVENTS / "login-queue.jsonl"),
    }


@contextmanager
def _localstack() -> Iterator[Emulator]:
    directory = make_directory()
    state = directory / "localstack"
    settings = with_ready_script(state)
    try:
        localstack = start_emulator(
            Kind.LOCALSTACK, state, LOGS / "localstack.log", is_private=False, **settings
        )
        try:
            yield localstack
        finally:
            localstack.stop()
    finally:
        shutil.rmtree(directory)


def _init_scripts(config: dict[str, Any]) -> list[tuple[Path, str]]:
    """List the scripts that Postgres' image would run, by source and name, in their order."""
    mounts = config["services"]["postgres"]["volumes"]
    scripts = [(Path(mount["source"]), Path(mount["target"])) for mount in mounts]
    assert {str(target.parent) for _, target in scripts} == {"/docker-entrypoint-initdb.d"}
    return sorted(((source, target.name) for source, target in scripts), key=lambda one: one[1])
