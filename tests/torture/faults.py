"""What is done to the servers, the network and the functions. Each fault heals itself.

They come in suits that are played at the same time. Each suit is a deck of cards: shuffled,
dealt to the last card, and shuffled again, so that every fault has its turn.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from psycopg.errors import DeadlockDetected, LockNotAvailable

from torture.functions import Fleet, Function
from torture.network import Cut, Proxy, Way
from torture.proxied_servers import WRITER, ProxiedServers, new_secret
from torture.sqs import Books

TERMINATE = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{WRITER}'"
RELOAD = "SELECT pg_reload_conf()"
# How long a cut waits for bytes to come by.
PATIENCE_S = 3
THROTTLED = b'{"__type":"ThrottlingException","message":"Rate exceeded"}'


@dataclass
class World:
    """What can be broken."""

    servers: ProxiedServers
    fleet: Fleet
    dice: random.Random

    async def do(self, *statements: str) -> None:
        """Do something to the database."""
        await asyncio.to_thread(self.servers.execute, *statements)

    async def wait(self, least_s: float, most_s: float) -> None:
        """Leave it broken for a while."""
        await asyncio.sleep(self.dice.uniform(least_s, most_s))


# A fault says whether it struck.
Fault = Callable[[World], Awaitable[bool]]


# The server


async def postgres_killed_and_restarted(world: World) -> bool:
    """Send SIGKILL to the server, and start it again after a while."""
    await asyncio.to_thread(world.servers.kill_postgres)
    await world.wait(0, 1)
    await asyncio.to_thread(world.servers.start_postgres)
    return True


async def sessions_terminated(world: World) -> bool:
    """End all sessions of the functions, as an administrator may."""
    await world.do(TERMINATE)
    return True


async def too_many_connections(world: World) -> bool:
    """Let no new session in (53300)."""
    await world.do(f"ALTER ROLE {WRITER} CONNECTION LIMIT 0", TERMINATE)
    await world.wait(0.2, 1.5)
    await world.do(f"ALTER ROLE {WRITER} CONNECTION LIMIT -1")
    return True


async def read_only_failover(world: World) -> bool:
    """Make the server one that only reads, as after a failover (25006)."""
    await world.do("ALTER SYSTEM SET default_transaction_read_only = on", RELOAD)
    await world.wait(0.2, 1.5)
    await world.do("ALTER SYSTEM RESET default_transaction_read_only", RELOAD)
    return True


async def disk_full(world: World) -> bool:
    """Leave no room on the server's disk (53100, or a crash where its own log has to grow)."""
    log = world.servers.services.postgres.log
    before = log.stat().st_size
    world.servers.fill_disk()
    await world.wait(0.5, 2)
    await asyncio.to_thread(world.servers.free_disk)
    return b"53100" in log.read_bytes()[before:]


async def deadlock_with_a_rival(world: World) -> bool:
    """Lock the two tables, one after the other, and have the function be the victim (40P01)."""
    tables = world.dice.sample(["user_logins", "processed_messages"], 2)
    return await asyncio.to_thread(_lock, world.servers, tables)


async def tables_locked(world: World) -> bool:
    """Lock the table for longer than some invocations have time, as VACUUM FULL does."""
    seconds = world.dice.uniform(0.5, 2.5)
    return await asyncio.to_thread(_lock, world.servers, ["user_logins"], seconds)


async def serializable_by_default(world: World) -> bool:
    """Have all transactions be serializable for a while, so that some cannot be (40001)."""
    level = world.dice.choice(["serializable", "repeatable read"])
    isolation = f"ALTER ROLE {WRITER} SET default_transaction_isolation ="
    await world.do(f"{isolation} '{level}'", TERMINATE)
    await world.wait(1, 3)
    await world.do(f"{isolation} DEFAULT", TERMINATE)
    return True


async def password_rotated(world: World) -> bool:
    """Give the role another password, and the secret a while later."""
    await asyncio.to_thread(world.servers.change_password)
    await world.do(TERMINATE)
    await world.wait(0, 1.5)
    await asyncio.to_thread(world.servers.store_password)
    return True


def _lock(servers: ProxiedServers, tables: list[str], seconds: float = 0.15) -> bool:
    with servers.connect() as rival:
        # The function's session looks for a deadlock first, and who finds it is its victim.
        rival.execute("SET deadlock_timeout = '10s'")
        rival.execute("SET lock_timeout = '2s'")
        rival.execute("BEGIN")
        try:
            for table in tables:
                rival.execute(f"LOCK {table} IN SHARE MODE")
                rival.execute(f"SELECT pg_sleep({seconds})")
        except (LockNotAvailable, DeadlockDetected):
            return False
        finally:
            rival.execute("ROLLBACK")
    return True


# The network


async def connections_refused(world: World) -> bool:
    """Reset the connections, and refuse new ones."""
    await _refused(world, world.servers.postgres_proxy, 0.1, 1)
    return True


async def cut_while_asking(world: World) -> bool:
    """Cut a connection when so many bytes have gone to Postgres: in a login or in a batch."""
    return await _cut(world, Way.UP, most=6000)


async def cut_while_answering(world: World) -> bool:
    """Cut a connection in an answer of Postgres: the commit is done, and nobody knows."""
    return await _cut(world, Way.DOWN, most=120)


async def cut_between_batches(world: World) -> bool:
    """Close all connections in good order, as a load balancer does."""
    world.servers.postgres_proxy.close_all()
    return True


async def packets_delayed(world: World) -> bool:
    """Hold back each packet for a while, sometimes past the deadline."""
    await _delayed(world, world.servers.postgres_proxy, 0.05, 2)
    return True


async def no_answer_at_all(world: World) -> bool:
    """Swallow everything. The connections that lost something stay half open."""
    await _silent(world, world.servers.postgres_proxy, 0.3, 2.5)
    return True


async def _cut(world: World, way: Way, most: int) -> bool:
    cut = Cut(way, world.dice.randint(0, most), reset=world.dice.random() < 0.5)
    world.servers.postgres_proxy.cut = cut
    try:
        await asyncio.wait_for(cut.done.wait(), PATIENCE_S)
    except TimeoutError:
        world.servers.postgres_proxy.cut = None
    return cut.done.is_set()


async def _refused(world: World, proxy: Proxy, least_s: float, most_s: float) -> None:
    proxy.refuse()
    await world.wait(least_s, most_s)
    await proxy.open()


async def _delayed(world: World, proxy: Proxy, least_s: float, most_s: float) -> None:
    proxy.delay_s = world.dice.uniform(least_s, most_s)
    await world.wait(0.5, 2)
    proxy.delay_s = 0


async def _silent(world: World, proxy: Proxy, least_s: float, most_s: float) -> None:
    proxy.silent = True
    await world.wait(least_s, most_s)
    proxy.silent = False


# The functions


async def process_killed(world: World) -> bool:
    """Send SIGKILL to a function, wherever it is: in its cold start, in a batch, or waiting."""
    _any_function(world).kill()
    return True


async def process_frozen(world: World) -> bool:
    """Stop a function where it stands; another gets its batch; then it goes on."""
    function = _any_function(world)
    function.freeze()
    await world.wait(0.2, 5)
    function.thaw()
    return True


async def process_frozen_for_minutes(world: World) -> bool:
    """Stop a function for longer than Postgres waits for the rest of a transaction."""
    function = _any_function(world)
    function.freeze()
    await world.wait(61, 150)
    function.thaw()
    return True


def _any_function(world: World) -> Function:
    return world.fleet.functions[world.dice.choice(sorted(world.fleet.functions))]


# Secrets Manager, always with a cold start


async def secrets_refused(world: World) -> bool:
    """Refuse connections to Secrets Manager."""
    world.servers.secrets_proxy.refuse()
    await _cold_start(world, 0.3, 2)
    await world.servers.secrets_proxy.open()
    return True


async def secrets_slow(world: World) -> bool:
    """Delay what goes to and comes from Secrets Manager."""
    world.servers.secrets_proxy.delay_s = world.dice.uniform(0.2, 2)
    await _cold_start(world, 1, 4)
    world.servers.secrets_proxy.delay_s = 0
    return True


async def secrets_silent(world: World) -> bool:
    """Swallow what goes to Secrets Manager."""
    world.servers.secrets_proxy.silent = True
    await _cold_start(world, 0.5, 4)
    world.servers.secrets_proxy.silent = False
    return True


async def secrets_throttled(world: World) -> bool:
    """Answer every request to Secrets Manager with a ThrottlingException."""
    head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\n"
    length = f"Content-Length: {len(THROTTLED)}\r\nConnection: close\r\n\r\n"
    world.servers.secrets_proxy.instead = (head + length).encode() + THROTTLED
    await _cold_start(world, 0.3, 3)
    world.servers.secrets_proxy.instead = None
    return True


async def salt_changed(world: World) -> bool:
    """Put another salt into the secret, and back; then start all functions anew, as one must."""
    await asyncio.to_thread(world.servers.store_salt, new_secret())
    await _cold_start(world, 0.5, 2)
    await asyncio.to_thread(world.servers.store_salt, world.servers.salt)
    for function in world.fleet.functions.values():
        function.kill()
    return True


async def _cold_start(world: World, least_s: float, most_s: float) -> None:
    world.servers.secrets_proxy.close_all()
    _any_function(world).kill()
    await world.wait(least_s, most_s)


@dataclass(frozen=True)
class Suit:
    """Faults of one sort, and the seconds between one and the next."""

    name: str
    pause_s: tuple[float, float]
    cards: list[Fault]


SUITS = [
    Suit(
        "server",
        (0.3, 2),
        [
            postgres_killed_and_restarted,
            *[sessions_terminated] * 2,
            too_many_connections,
            read_only_failover,
            disk_full,
            *[deadlock_with_a_rival] * 2,
            tables_locked,
            serializable_by_default,
            password_rotated,
        ],
    ),
    Suit(
        "network",
        (0.1, 1),
        [
            connections_refused,
            *[cut_while_asking] * 4,
            *[cut_while_answering] * 6,
            cut_between_batches,
            packets_delayed,
            no_answer_at_all,
        ],
    ),
    Suit("functions", (0.1, 1), [*[process_killed] * 3, process_frozen]),
    Suit("long freezes", (20, 40), [process_frozen_for_minutes]),
    Suit(
        "secrets",
        (1, 5),
        [secrets_refused, secrets_slow, secrets_silent, secrets_throttled, salt_changed],
    ),
]


@dataclass
class Faults:
    """All faults, counted."""

    servers: ProxiedServers
    fleet: Fleet
    books: Books
    seed: str
    struck: Counter[str] = field(default_factory=Counter)

    async def run(self, seconds: float) -> None:
        """Play all suits at once for a while, and heal what does not heal by itself."""
        async with asyncio.TaskGroup() as group:
            for suit in SUITS:
                group.create_task(self._play(suit, seconds))
        # Half-open connections, which a server's keepalive finds in the end.
        self.servers.postgres_proxy.close_all()
        self.servers.secrets_proxy.close_all()

    async def _play(self, suit: Suit, seconds: float) -> None:
        dice = random.Random(f"{self.seed} {suit.name}")
        world = World(self.servers, self.fleet, dice)
        while True:
            for fault in dice.sample(suit.cards, len(suit.cards)):
                pause_s = dice.uniform(*suit.pause_s)
                if self.books.now() + pause_s > seconds:
                    return
                await asyncio.sleep(pause_s)
                self.servers.trouble.add(fault.__name__)
                self.struck[fault.__name__] += await fault(world)
                self.servers.trouble.discard(fault.__name__)
