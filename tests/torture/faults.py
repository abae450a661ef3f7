"""The faults. Each breaks a server, the network or a function, and then repairs it.

All groups of faults run at the same time. Each group runs its faults one after the other in random
order, and then again in another order, so that every fault runs.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from psycopg.errors import DeadlockDetected, LockNotAvailable

from torture.erasures import Erasures
from torture.functions import Fleet, Function
from torture.migrate import Kill, Migrate
from torture.network import Cut, Direction, Proxy
from torture.proxied_servers import WRITER, ProxiedServers, new_secret
from torture.sqs import History

TERMINATE = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{WRITER}'"
RELOAD = "SELECT pg_reload_conf()"
# A cut is given up if too few bytes are sent within this time.
CUT_TIMEOUT_S = 3
# The least time between two resalts.
RESALT_S = 60
THROTTLED = b'{"__type":"ThrottlingException","message":"Rate exceeded"}'


@dataclass
class World:
    """What faults act on."""

    servers: ProxiedServers
    fleet: Fleet
    migrate: Migrate
    erasures: Erasures
    history: History
    rng: random.Random

    async def execute(self, *statements: str) -> None:
        """Execute statements as the superuser."""
        await asyncio.to_thread(self.servers.execute, *statements)

    async def wait(self, least_s: float, most_s: float) -> None:
        """Sleep for a random time, while something is broken."""
        await asyncio.sleep(self.rng.uniform(least_s, most_s))


# A fault returns whether it had its effect.
Fault = Callable[[World], Awaitable[bool]]


# The server


async def postgres_killed_and_restarted(world: World) -> bool:
    """Kill the server with SIGKILL, and start it again."""
    await asyncio.to_thread(world.servers.kill_postgres)
    await world.wait(0, 1)
    await asyncio.to_thread(world.servers.start_postgres)
    return True


async def sessions_terminated(world: World) -> bool:
    """Terminate all sessions of the functions."""
    await world.execute(TERMINATE)
    return True


async def too_many_connections(world: World) -> bool:
    """Refuse new sessions (53300)."""
    await world.execute(f"ALTER ROLE {WRITER} CONNECTION LIMIT 0", TERMINATE)
    await world.wait(0.2, 1.5)
    await world.execute(f"ALTER ROLE {WRITER} CONNECTION LIMIT -1")
    return True


async def read_only_failover(world: World) -> bool:
    """Make the server read-only, as after a failover (25006)."""
    await world.execute("ALTER SYSTEM SET default_transaction_read_only = on", RELOAD)
    await world.wait(0.2, 1.5)
    await world.execute("ALTER SYSTEM RESET default_transaction_read_only", RELOAD)
    return True


async def disk_full(world: World) -> bool:
    """Fill the server's disk (53100, or a crash if the write-ahead log has to grow)."""
    log = world.servers.services.postgres.log
    before = log.stat().st_size
    world.servers.fill_disk()
    await world.wait(0.5, 2)
    await asyncio.to_thread(world.servers.free_disk)
    return b"53100" in log.read_bytes()[before:]


async def deadlock_with_other_session(world: World) -> bool:
    """Lock both tables one after the other, so that the function becomes the victim (40P01)."""
    tables = world.rng.sample(["user_logins", "processed_messages"], 2)
    return await asyncio.to_thread(_lock, world.servers, tables)


async def tables_locked(world: World) -> bool:
    """Lock the table for longer than some deadlines, as VACUUM FULL does."""
    seconds = world.rng.uniform(0.5, 2.5)
    return await asyncio.to_thread(_lock, world.servers, ["user_logins"], seconds)


async def serializable_by_default(world: World) -> bool:
    """Raise the isolation level, so that some transactions cannot be serialized (40001)."""
    level = world.rng.choice(["serializable", "repeatable read"])
    isolation = f"ALTER ROLE {WRITER} SET default_transaction_isolation ="
    await world.execute(f"{isolation} '{level}'", TERMINATE)
    await world.wait(1, 3)
    await world.execute(f"{isolation} DEFAULT", TERMINATE)
    return True


async def old_day_dropped(world: World) -> bool:
    """Run migrate, which locks the table to drop the partition of an old day."""
    return await asyncio.to_thread(world.servers.drop_old_day)


async def password_rotated(world: World) -> bool:
    """Change the role's password, and the secret some time later."""
    await asyncio.to_thread(world.servers.change_password)
    await world.execute(TERMINATE)
    await world.wait(0, 1.5)
    await asyncio.to_thread(world.servers.store_password)
    return True


def _lock(servers: ProxiedServers, tables: list[str], seconds: float = 0.15) -> bool:
    with servers.connect() as session:
        # The session that detects a deadlock is its victim: this must be the function's.
        session.execute("SET deadlock_timeout = '10s'")
        session.execute("SET lock_timeout = '2s'")
        session.execute("BEGIN")
        try:
            for table in tables:
                session.execute(f"LOCK {table} IN SHARE MODE")
                session.execute(f"SELECT pg_sleep({seconds})")
        except (LockNotAvailable, DeadlockDetected):
            return False
        finally:
            session.execute("ROLLBACK")
    return True


# The network


async def connections_refused(world: World) -> bool:
    """Reset the connections, and refuse new ones."""
    await _refused(world, world.servers.postgres_proxy, 0.1, 1)
    return True


async def cut_while_sending(world: World) -> bool:
    """Cut a connection after some bytes to Postgres: during a login or a batch."""
    return await _cut(world, Direction.TO_SERVER, most=6000)


async def cut_while_receiving(world: World) -> bool:
    """Cut a connection during an answer of Postgres: a commit may be done but not confirmed."""
    return await _cut(world, Direction.TO_FUNCTION, most=120)


async def cut_between_batches(world: World) -> bool:
    """Close all connections cleanly, as a load balancer does."""
    world.servers.postgres_proxy.close_all()
    return True


async def packets_delayed(world: World) -> bool:
    """Delay each packet, sometimes past the deadline."""
    await _delayed(world, world.servers.postgres_proxy, 0.05, 2)
    return True


async def packets_lost(world: World) -> bool:
    """Drop all bytes. Connections that lost bytes stay half-open."""
    await _black_hole(world, world.servers.postgres_proxy, 0.3, 2.5)
    return True


async def _cut(world: World, direction: Direction, most: int) -> bool:
    cut = Cut(direction, world.rng.randint(0, most), reset=world.rng.random() < 0.5)
    world.servers.postgres_proxy.cut = cut
    try:
        await asyncio.wait_for(cut.done.wait(), CUT_TIMEOUT_S)
    except TimeoutError:
        world.servers.postgres_proxy.cut = None
    return cut.done.is_set()


async def _refused(world: World, proxy: Proxy, least_s: float, most_s: float) -> None:
    proxy.refuse()
    await world.wait(least_s, most_s)
    await proxy.open()


async def _delayed(world: World, proxy: Proxy, least_s: float, most_s: float) -> None:
    proxy.delay_s = world.rng.uniform(least_s, most_s)
    await world.wait(0.5, 2)
    proxy.delay_s = 0


async def _black_hole(world: World, proxy: Proxy, least_s: float, most_s: float) -> None:
    proxy.black_hole = True
    await world.wait(least_s, most_s)
    proxy.black_hole = False


# The functions


async def process_killed(world: World) -> bool:
    """Kill a function with SIGKILL: in its cold start, in a batch, or idle."""
    _any_function(world).kill()
    return True


async def process_aborted(world: World) -> bool:
    """Let a function abort that may write a core file."""
    functions = world.fleet.functions
    started = [name for name in sorted(functions) if functions[name].started]
    if started:
        functions[world.rng.choice(started)].abort()
    return bool(started)


async def process_frozen(world: World) -> bool:
    """Freeze a function; another function receives its batch; then thaw it."""
    function = _any_function(world)
    function.freeze()
    await world.wait(0.2, 5)
    function.thaw()
    return True


async def process_frozen_for_minutes(world: World) -> bool:
    """Freeze a function for longer than Postgres waits for the rest of a transaction."""
    function = _any_function(world)
    function.freeze()
    await world.wait(61, 150)
    function.thaw()
    return True


def _any_function(world: World) -> Function:
    return world.fleet.functions[world.rng.choice(sorted(world.fleet.functions))]


# Secrets Manager. Each of these forces a cold start, because only that reads secrets.


async def secrets_refused(world: World) -> bool:
    """Refuse connections to Secrets Manager."""
    world.servers.secrets_proxy.refuse()
    await _cold_start(world, 0.3, 2)
    await world.servers.secrets_proxy.open()
    return True


async def secrets_slow(world: World) -> bool:
    """Delay requests to Secrets Manager and their responses."""
    world.servers.secrets_proxy.delay_s = world.rng.uniform(0.2, 2)
    await _cold_start(world, 1, 4)
    world.servers.secrets_proxy.delay_s = 0
    return True


async def secrets_lost(world: World) -> bool:
    """Drop all bytes to and from Secrets Manager."""
    world.servers.secrets_proxy.black_hole = True
    await _cold_start(world, 0.5, 4)
    world.servers.secrets_proxy.black_hole = False
    return True


async def secrets_throttled(world: World) -> bool:
    """Answer every request to Secrets Manager with a ThrottlingException."""
    head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\n"
    length = f"Content-Length: {len(THROTTLED)}\r\nConnection: close\r\n\r\n"
    world.servers.secrets_proxy.canned_response = (head + length).encode() + THROTTLED
    await _cold_start(world, 0.3, 3)
    world.servers.secrets_proxy.canned_response = None
    return True


async def salt_changed(world: World) -> bool:
    """Replace the salt, and restore it: a function that started with the wrong salt ends itself."""
    await asyncio.to_thread(world.servers.store_salt, new_secret())
    await _cold_start(world, 0.5, 2)
    await asyncio.to_thread(world.servers.store_salt)
    return True


async def _cold_start(world: World, least_s: float, most_s: float) -> None:
    world.servers.secrets_proxy.close_all()
    _any_function(world).kill()
    await world.wait(least_s, most_s)


# The vault


async def sealed_values_folded(world: World) -> bool:
    """Fold the vault, without a fault of its own."""
    return await world.migrate.run()


async def fold_killed(world: World) -> bool:
    """Kill migrate with SIGKILL while it starts, migrates or folds."""
    return not await world.migrate.run(rng=world.rng, kill=Kill.PROCESS)


async def fold_terminated(world: World) -> bool:
    """Terminate the session of migrate."""
    return not await world.migrate.run(rng=world.rng, kill=Kill.SESSION)


async def value_erased(world: World) -> bool:
    """Erase a value or the values of a user."""
    return await world.erasures.erase(world.rng)


async def erasure_terminated(world: World) -> bool:
    """Terminate the session that erases."""
    return not await world.erasures.erase(world.rng, world.rng.uniform(0, 0.04))


async def salt_added_and_tokens_replaced(world: World) -> bool:
    """Add a later salt, and resalt; the first runs are killed."""
    servers, migrate = world.servers, world.migrate
    is_early = len(servers.generations.later) > world.history.now() / RESALT_S
    if not migrate.can_resalt or (is_early and not servers.resalt_pending):
        return False
    if not servers.resalt_pending:
        await asyncio.to_thread(servers.add_later_salt)
    for kill in (*world.rng.choices(list(Kill), k=2), None):
        if await migrate.run("resalt", rng=world.rng, kill=kill):
            servers.resalt_pending = False
            return True
        await world.wait(0, 0.5)
    # The end of the run resalts until it succeeds.
    return False


@dataclass(frozen=True)
class FaultGroup:
    """Faults that run one after the other, and the range of the pause between them."""

    name: str
    pause_s: tuple[float, float]
    faults: list[Fault]


FAULT_GROUPS = [
    FaultGroup(
        "server",
        (0.3, 2),
        [
            postgres_killed_and_restarted,
            *[sessions_terminated] * 2,
            too_many_connections,
            read_only_failover,
            disk_full,
            *[deadlock_with_other_session] * 2,
            tables_locked,
            serializable_by_default,
            *[old_day_dropped] * 2,
            password_rotated,
        ],
    ),
    FaultGroup(
        "network",
        (0.1, 1),
        [
            connections_refused,
            *[cut_while_sending] * 4,
            *[cut_while_receiving] * 6,
            cut_between_batches,
            packets_delayed,
            packets_lost,
        ],
    ),
    FaultGroup("functions", (0.1, 1), [*[process_killed] * 3, process_aborted, process_frozen]),
    FaultGroup("long freezes", (20, 40), [process_frozen_for_minutes]),
    FaultGroup(
        "secrets",
        (1, 5),
        [secrets_refused, secrets_slow, secrets_lost, secrets_throttled, salt_changed],
    ),
    FaultGroup("folds", (0.1, 1), [sealed_values_folded, *[fold_killed] * 2, fold_terminated]),
    FaultGroup("erasures", (0.05, 0.4), [*[value_erased] * 3, *[erasure_terminated] * 2]),
]
# It may wait for locks after the other faults are over.
RESALTS = FaultGroup("resalts", (2, 4), [salt_added_and_tokens_replaced])


@dataclass
class Faults:
    """Runs the faults, and counts those that had an effect."""

    servers: ProxiedServers
    fleet: Fleet
    migrate: Migrate
    erasures: Erasures
    history: History
    seed: str
    effective: Counter[str] = field(default_factory=Counter)

    async def run(self, seconds: float, when_over: Callable[[], None]) -> None:
        """Run all groups for a time, then close connections that would stay half-open."""
        async with asyncio.TaskGroup() as last:
            last.create_task(self._run_group(RESALTS, seconds))
            async with asyncio.TaskGroup() as group:
                for faults in FAULT_GROUPS:
                    group.create_task(self._run_group(faults, seconds))
            when_over()
            # Otherwise only TCP keepalive would find these, after minutes.
            self.servers.postgres_proxy.close_all()
            self.servers.secrets_proxy.close_all()
        if self.servers.resalt_pending:
            await self.migrate.finish_resalt()

    async def _run_group(self, group: FaultGroup, seconds: float) -> None:
        rng = random.Random(f"{self.seed} {group.name}")
        world = World(self.servers, self.fleet, self.migrate, self.erasures, self.history, rng)
        while True:
            for fault in rng.sample(group.faults, len(group.faults)):
                pause_s = rng.uniform(*group.pause_s)
                if self.history.now() + pause_s > seconds:
                    return
                await asyncio.sleep(pause_s)
                self.servers.active_faults.add(fault.__name__)
                self.effective[fault.__name__] += await fault(world)
                self.servers.active_faults.discard(fault.__name__)
