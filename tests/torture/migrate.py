"""Runs the migrate program, which folds and resalts; by choice, kills it."""

import asyncio
import random
import re
import shutil
import signal
import subprocess
from asyncio.subprocess import STDOUT
from collections import Counter
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import psycopg

from dev.local_system import MIGRATE
from torture import RESULTS
from torture.cores import WORKING
from torture.proxied_servers import MIGRATE_NAME, ProxiedServers

PROGRAM = RESULTS / "migrate-program"
LOGS = RESULTS / "migrate"
TERMINATE = f"""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{MIGRATE_NAME}'
"""
# Longer than all locks that migrate waits for.
TIMEOUT_S = 120
RESALT_ATTEMPTS = 10


class Kill(StrEnum):
    """How a run is killed."""

    PROCESS = "killed"
    SESSION = "terminated"


class Migrate:
    """The migrate program, and the counts of its runs."""

    def __init__(self, servers: ProxiedServers) -> None:
        """Copy the program: a build during the run would replace it."""
        self._servers = servers
        self._numbers: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        # How long the last runs took that succeeded, for the moments of the kills.
        self._durations_s = {"": 1.0, "resalt": 1.0}
        shutil.rmtree(LOGS, ignore_errors=True)
        LOGS.mkdir(parents=True)
        PROGRAM.unlink(missing_ok=True)
        shutil.copy(MIGRATE, PROGRAM)
        help_text = subprocess.run([PROGRAM, "--help"], check=True, capture_output=True, text=True)
        self.can_resalt = bool(re.search(r"^\s+resalt\b", help_text.stdout, re.MULTILINE))

    async def run(
        self, command: str = "", *, rng: random.Random | None = None, kill: Kill | None = None
    ) -> bool:
        """Run a command; return whether it succeeded. A kill comes at a random moment."""
        loop = asyncio.get_running_loop()
        name = command or "fold"
        self._numbers[name] += 1
        began = loop.time()
        with self._log(name).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                PROGRAM,
                *command.split(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=STDOUT,
                cwd=WORKING,
                env=self._servers.migrate_environment,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    if kill is not None:
                        await self._kill(process, kill, rng.uniform(0, self._durations_s[command]))
                    await process.wait()
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        succeeded = process.returncode == 0
        if succeeded:
            self._durations_s[command] = loop.time() - began
            outcome = "succeeded"
        elif process.returncode == -signal.SIGKILL:
            outcome = "killed"
        else:
            outcome = "failed"
        self.outcomes[f"{name} {outcome}"] += 1
        return succeeded

    async def finish_resalt(self) -> None:
        """Resalt until it succeeds, when no fault happens any more."""
        for _ in range(RESALT_ATTEMPTS):
            if await self.run("resalt"):
                self._servers.resalt_pending = False
                return
        raise RuntimeError(f"the resalt does not succeed; the logs are in {LOGS}")

    async def finish_fold(self) -> None:
        """Fold what is left, when no fault happens any more."""
        if not await self.run():
            raise RuntimeError(f"the last fold failed: {self._log('fold')}")

    async def _kill(self, process: asyncio.subprocess.Process, kill: Kill, after_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), after_s)
            return
        if kill is Kill.PROCESS:
            with suppress(ProcessLookupError):
                process.kill()
        else:
            with suppress(psycopg.OperationalError):
                await asyncio.to_thread(self._servers.execute, TERMINATE)

    def _log(self, name: str) -> Path:
        return LOGS / f"{name}-{self._numbers[name]}.log"
