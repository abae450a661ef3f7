//! Fixtures of the vault: a database with a pinned key, and sessions of the writer and of the broker. Nothing is
//! encrypted: the database never opens a ciphertext.

use std::time::SystemTime;

use login_etl::config::VaultPublicKey;
use login_etl::schema::vault;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use crate::support::{Database, connect, superuser};

pub(crate) const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgtR7oTpydduPtSzJvz9DGrx/BK/KYul+8ZgYDD2x8wGApUmDNbEd3iJ5RujVQX/gFCCn7v+7sCiqYATMbM05iw==";
pub(crate) const OTHER_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAERbKeIz5DEgtl2mlj19TSozgFnnw2aJZQFqrpgxPUG+eu2tpCvnxQC1220KyzShOOyw7becEL+8UGa67gwVpx8A==";

/// The length of an entry whose value has at most 47 bytes.
pub(crate) const ENTRY_LENGTH: i32 = 99;

const TAKE: &str =
    "SELECT state, field, token, public_key, kms_key, enc, sequence, ciphertext FROM vault_take($1)";

pub(crate) struct Vault {
    pub(crate) database: Database,
    pub(crate) writer: Client,
    pub(crate) broker: Client,
}

/// A row of `user_logins`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Login<'l> {
    pub(crate) user: &'l str,
    pub(crate) ip: u8,
    pub(crate) device: u8,
}

/// What a batch seals.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) key: VaultPublicKey,
    pub(crate) stream: u8,
    pub(crate) entry_length: i32,
    pub(crate) body: Vec<u8>,
}

impl Vault {
    pub(crate) async fn create() -> Self {
        let mut database = Database::create().await;
        vault::create(&mut database.admin, "public", &key(KEY), "kms-key").await.unwrap();
        let writer = connect(&database.url().parse().unwrap()).await;
        let broker = broker(&database, "broker").await;
        Self { database, writer, broker }
    }

    /// Writes logins and what is sealed with them, as the ingest function does.
    pub(crate) async fn write(&self, logins: &[Login<'_>], sealed: &[Sealed]) -> Result<i64, Error> {
        let statement = "SELECT vault_write_logins($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
        let now = vec![SystemTime::now(); logins.len()];
        let ids: Vec<_> = logins.iter().map(|_| Uuid::from_u128(next_id())).collect();
        let users: Vec<_> = logins.iter().map(|login| login.user).collect();
        let none = vec![None::<&str>; logins.len()];
        let ips: Vec<_> = logins.iter().map(|login| hex(login.ip)).collect();
        let devices: Vec<_> = logins.iter().map(|login| hex(login.device)).collect();
        let versions = vec![None::<i32>; logins.len()];
        let sha256 = sealed.first().map_or(key(KEY), |sealed| sealed.key.clone()).sha256();
        let encs: Vec<_> = sealed.iter().map(|sealed| enc(sealed.stream)).collect();
        let lengths: Vec<_> = sealed.iter().map(|sealed| sealed.entry_length).collect();
        let bodies: Vec<_> = sealed.iter().map(|sealed| &*sealed.body).collect();
        let row = self
            .writer
            .query_one(
                statement,
                &[
                    &now,
                    &ids,
                    &users,
                    &none,
                    &ips,
                    &devices,
                    &none,
                    &versions,
                    &"salt",
                    &&sha256[..],
                    &encs,
                    &lengths,
                    &bodies,
                ],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Writes a login of each user, and seals its two values in one stream.
    pub(crate) async fn write_sealed(&self, stream: u8, logins: &[Login<'_>]) {
        let entries = logins.iter().flat_map(|login| [(b'i', login.ip), (b'd', login.device)]);
        self.write(logins, &[sealed(stream, entries)]).await.unwrap();
    }

    /// Returns the tokens that are sealed and folded, each by its first byte.
    pub(crate) async fn folded(&self) -> Vec<u8> {
        let sql = "SELECT get_byte(token, 0) FROM vault_sealed ORDER BY token";
        let rows = self.database.admin.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| u8::try_from(row.get::<_, i32>(0)).unwrap()).collect()
    }

    pub(crate) async fn fold(&self) -> i64 {
        self.database.admin.query_one("SELECT vault_fold(1000)", &[]).await.unwrap().get(0)
    }

    /// Asks for a reveal, in a transaction of its own.
    pub(crate) async fn ask(&self, byte: u8) -> i64 {
        ask(&self.broker, "reveal", byte).await.unwrap()
    }

    /// Returns the state of a token, and the sequence number and the first byte of the ciphertext.
    pub(crate) async fn reveal(&self, byte: u8) -> (String, Option<i32>, Option<u8>) {
        let entry = self.ask(byte).await;
        let row = take(&self.broker, entry).await.unwrap();
        let ciphertext: Option<&[u8]> = row.get("ciphertext");
        (row.get("state"), row.get("sequence"), ciphertext.map(|bytes| bytes[0]))
    }

    /// Erases a token, and returns whether there was a value and the number of rows.
    pub(crate) async fn erase(&self, byte: u8, never_again: bool, with_rows: bool) -> (bool, i64) {
        let entry = ask(&self.broker, "erase", byte).await.unwrap();
        let sql = "SELECT erased, rows FROM vault_erase($1, $2, $3)";
        let row = self.broker.query_one(sql, &[&entry, &never_again, &with_rows]).await.unwrap();
        (row.get(0), row.get(1))
    }

    pub(crate) async fn outcome(&self, entry: i64) -> Option<String> {
        let sql = "SELECT outcome FROM vault_audit WHERE id = $1";
        self.database.admin.query_one(sql, &[&entry]).await.unwrap().get(0)
    }
}

/// Returns a session of a new member of `login_vault`.
pub(crate) async fn broker(database: &Database, name: &str) -> Client {
    let role = format!("{}_{name}", database.name);
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{role}' IN ROLE login_vault")).await;
    connect(superuser().user(&role).password(&role).dbname(&database.name)).await
}

pub(crate) async fn ask(session: &Client, verb: &str, byte: u8) -> Result<i64, Error> {
    let sql = "SELECT vault_ask('caller', $1, NULL, $2, NULL, 'incident', 'SEC-1')";
    Ok(session.query_one(sql, &[&verb, &&token(byte)[..]]).await?.get(0))
}

pub(crate) async fn take(session: &Client, entry: i64) -> Result<Row, Error> {
    session.query_one(TAKE, &[&entry]).await
}

pub(crate) fn key(text: &str) -> VaultPublicKey {
    text.parse().unwrap()
}

/// Returns a token, all of whose bytes are equal.
pub(crate) fn token(byte: u8) -> [u8; 32] {
    [byte; 32]
}

pub(crate) fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

pub(crate) fn enc(stream: u8) -> Vec<u8> {
    let mut enc = vec![stream; 65];
    enc[0] = 4;
    enc
}

/// Returns an entry, whose ciphertext repeats the last byte of the stream and the sequence number.
pub(crate) fn entry(sequence: u16, field: u8, token: u8, ciphertext: u8) -> Vec<u8> {
    let mut entry = sequence.to_be_bytes().to_vec();
    entry.push(field);
    entry.extend([token; 32]);
    entry.resize(usize::try_from(ENTRY_LENGTH).unwrap(), ciphertext);
    entry
}

/// Returns a body of entries with the sequence numbers 0 and on. The ciphertexts repeat the number of the stream.
pub(crate) fn sealed(stream: u8, entries: impl IntoIterator<Item = (u8, u8)>) -> Sealed {
    let entries = (0..).zip(entries).map(|(sequence, (field, token))| entry(sequence, field, token, stream));
    Sealed { key: key(KEY), stream, entry_length: ENTRY_LENGTH, body: entries.collect::<Vec<_>>().concat() }
}

pub(crate) fn sqlstate<T: std::fmt::Debug>(outcome: Result<T, Error>) -> String {
    outcome.unwrap_err().code().map(SqlState::code).unwrap().to_owned()
}

fn next_id() -> u128 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).into()
}
