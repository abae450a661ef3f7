"""The measurements of the export, over the logins of `make demo`, put into ten days."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benches import RESULTS
from benches.bench_servers import ALLOCATOR, BenchServers, Database
from benches.ingest import BATCH, alone_and_beside
from dev import demo, lake, processes
from dev.lake import Lake
from dev.local_system import SUPERUSER

Row = dict[str, Any]

DAYS = 10
NULL_S3 = Path(__file__).with_name("null_s3.py")
ADBC_EXPORT = Path(__file__).with_name("adbc_export.py")
# How often the memory of a process is read.
SAMPLE_S = 0.005

# The logins of a day stand together, as if they had come in that order.
TEN_DAYS = f"""
CREATE TEMPORARY TABLE login AS
SELECT
    user_id, device_type, masked_ip, masked_device_id, locale, app_version,
    current_date - coalesce(current_date - create_date, 0) % {DAYS} AS create_date
FROM user_logins;
TRUNCATE user_logins, processed_messages;
INSERT INTO user_logins SELECT * FROM login ORDER BY create_date;
DROP TABLE login
"""
INDEX = "CREATE INDEX ON user_logins USING brin (create_date)"
COPY_DAY = """
COPY (
    SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
    FROM user_logins WHERE create_date = '{}'
) TO STDOUT (FORMAT binary)
"""


@dataclass(frozen=True)
class Run:
    """How long a program ran, and the most memory that it had."""

    seconds: float
    peak_mib: float
    printed: str


def speed(servers: BenchServers, rows: int, rounds: int) -> list[Row]:
    """Measure the export beside a COPY to nowhere and ADBC with pyarrow; take turns."""
    store = _filled(servers, "export_speed", rows)
    program = lake.program(RESULTS)
    runs: dict[str, list[Run]] = {"copy": [], "export": [], "emulator": [], "adbc": []}
    with _null_s3() as nowhere:
        for number in range(rounds + 1):
            measured = {
                "copy": _copy(store),
                "export": _export(store, program, AWS_ENDPOINT_URL_S3=nowhere),
                "emulator": _export(store, program),
                "adbc": _adbc(store),
            }
            if number:  # the first round warms up
                for name, run in measured.items():
                    runs[name].append(run)
    seconds = {name: median(run.seconds for run in each) for name, each in runs.items()}
    peaks = {name: max(run.peak_mib for run in each) for name, each in runs.items()}
    return [
        {
            "rows": rows,
            "copy_ms": seconds["copy"] * 1e3,
            "export_ms": seconds["export"] * 1e3,
            "export_to_emulator_ms": seconds["emulator"] * 1e3,
            "adbc_ms": seconds["adbc"] * 1e3,
            "ratio_to_copy": seconds["export"] / seconds["copy"],
            "ratio_to_adbc": seconds["export"] / seconds["adbc"],
            "export_peak_mib": peaks["export"],
            "adbc_peak_mib": peaks["adbc"],
            "files_mb": sum(store.objects().values()) / 1e6,
        }
    ]


def ingest(servers: BenchServers, rows: int, rounds: int, seconds: float) -> list[Row]:
    """Measure batches while all days are exported, over and over, and while not; take turns."""
    store = _filled(servers, "export_ingest", rows)
    program = lake.program(RESULTS)
    database = Database(servers.services, store.database)
    with _null_s3() as nowhere:

        def export() -> None:
            _export(store, program, AWS_ENDPOINT_URL_S3=nowhere)

        without, during = alone_and_beside(export, database, rounds, seconds)
    return [
        {
            "batch": BATCH,
            "without_export_s": without,
            "during_export_s": during,
            "slower_by": without / during,
        }
    ]


def _filled(servers: BenchServers, name: str, rows: int) -> Lake:
    """Make a database of logins, with an entry in the ledger for each, and a bucket."""
    database = servers.database(name)
    services, bucket = servers.services, name.replace("_", "-")
    store = Lake(services.postgres, services.emulator, name, bucket)
    with database.connect() as admin:
        demo.fill(admin, rows)
        admin.execute(TEN_DAYS)
        admin.execute(demo.LEDGER, {"today": datetime.now(UTC).date()})
        admin.execute(INDEX)
        # Autovacuum is off.
        admin.execute("VACUUM (ANALYZE)")
    store.prepare()
    with database.connect() as admin:
        # As if the ledger had been there for a month: the export compares each day with it.
        admin.execute("UPDATE lake.state SET ledger_since = current_date - 30")
    return store


def _copy(store: Lake) -> Run:
    """Copy each day to nowhere."""
    with store.postgres.connect(store.database) as admin:
        days = [day for (day,) in admin.execute("SELECT DISTINCT create_date FROM user_logins")]
    command = [store.postgres.binaries / "psql", _url(store)]
    for day in days:
        command += ["-c", COPY_DAY.format(day)]
    return _run(command, _with_password(store), RESULTS / "copy.log", Path(os.devnull))


def _export(store: Lake, program: Path, **variables: str) -> Run:
    """Export all days, as if none had been exported before."""
    with store.postgres.connect(store.database) as admin:
        admin.execute("DELETE FROM lake.exports")
    environment = store.environment | ALLOCATOR | variables
    return _run([program], environment, RESULTS / "export.log")


def _adbc(store: Lake) -> Run:
    """Read all days with ADBC, and write them with pyarrow; without the start of Python."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, ADBC_EXPORT, _url(store), Path(folder) / "logins.parquet"]
        run = _run(command, _with_password(store), RESULTS / "adbc.log")
    return Run(json.loads(run.printed)["seconds"], run.peak_mib, run.printed)


def _url(store: Lake) -> str:
    return store.postgres.url(SUPERUSER, "", store.database, sslmode="require")


def _with_password(store: Lake) -> dict[str, str]:
    return {"PATH": os.defpath, "PGPASSWORD": store.postgres.password}


def _run(
    command: list[str | Path], environment: dict[str, str], log: Path, output: Path | None = None
) -> Run:
    """Run a program to its end; it is an error if it fails."""
    printed = output or log.with_suffix(".out")
    with printed.open("wb") as out, log.open("ab") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=errors)
        peak_kib = 0
        while process.poll() is None:
            peak_kib = max(peak_kib, _peak_kib(process.pid))
            time.sleep(SAMPLE_S)
        elapsed_s = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed, see {log} and {printed}")
    return Run(elapsed_s, peak_kib / 1024, "" if output else printed.read_text())


def _peak_kib(pid: int) -> int:
    """Read the peak resident memory of a process; 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


@contextmanager
def _null_s3() -> Iterator[str]:
    """Run an S3 that keeps nothing; yield its address."""
    port, log = processes.free_port(), RESULTS / "null-s3.log"
    command = [sys.executable, NULL_S3, str(port)]
    process = processes.start(command, log=log, cwd=RESULTS, env={"PATH": os.defpath})
    try:
        processes.wait_until(lambda: processes.listens(process, port), "S3", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.stop(process)
