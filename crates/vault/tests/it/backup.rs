//! A base backup from before erasures, restored: a server of its own, because a base backup is that of a whole server.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use login_etl::deadline::Deadline;
use login_etl::schema::vault::replay::{self, Replayed};
use login_etl_vault::token::{Field, Token};
use serde_json::json;
use tokio_postgres::{Client, Config, NoTls};

use crate::erasure_list::{List, endpoint, erase_body};
use crate::kms_stub::{Behaviour, KEY, KmsStub};
use crate::support::{Vault, post, reveal_body, variable};

const PASSWORD: &str = "hunter2";

/// A folder that the user who runs the server owns.
struct Folder {
    path: PathBuf,
    /// User and group; Postgres refuses to run as root.
    user: Option<(u32, u32)>,
}

/// A running server.
struct Server {
    process: Child,
    port: u16,
}

impl Folder {
    fn create() -> Self {
        let path = std::env::temp_dir().join(format!("login-etl-backup-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let user = id(&["-u"]).filter(|id| *id == 0).map(|_| {
            let name = if id(&["-u", "postgres"]).is_some() { "postgres" } else { "nobody" };
            (id(&["-u", name]).unwrap(), id(&["-g", name]).unwrap())
        });
        if let Some((user, group)) = user {
            chown(&path, Some(user), Some(group)).unwrap();
        }
        Self { path, user }
    }

    /// Returns a program of Postgres.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(&variable("TEST_POSTGRES_BIN")).join(name));
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("PGPASSWORD", PASSWORD)
            .current_dir(&self.path);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) {
        let output = self.program(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a server whose data are in a folder of this folder.
    async fn start(&self, data: &str) -> Server {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let port_setting = format!("port={port}");
        let settings = [
            &*port_setting,
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "autovacuum=off",
        ];
        let mut command = self.program("postgres");
        command.args(["-D", data]).args(settings.iter().flat_map(|setting| ["-c", setting]));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Server { process, port };
        for _ in 0..200 {
            if server.config().connect(NoTls).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not start");
    }

    /// Returns which parts of the data hold one of these bytes: the tables (`base`), the log (`pg_wal`), or others.
    fn parts_with(&self, data: &str, wanted: &[Vec<u8>]) -> Vec<String> {
        let mut parts = Vec::new();
        let mut folders = vec![self.path.join(data)];
        while let Some(home) = folders.pop() {
            for entry in std::fs::read_dir(home).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if let Ok(content) = std::fs::read(entry.path())
                    && wanted.iter().any(|bytes| contains(&content, bytes))
                {
                    let path = entry.path();
                    let part = path.strip_prefix(self.path.join(data)).unwrap();
                    parts.push(part.iter().next().unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        parts.sort();
        parts.dedup();
        parts
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

impl Server {
    fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").password(PASSWORD).dbname("postgres");
        config
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

fn contains(content: &[u8], wanted: &[u8]) -> bool {
    let first = wanted[0];
    let mut from = 0;
    while let Some(place) = content[from..].iter().position(|byte| *byte == first) {
        if content[from + place..].starts_with(wanted) {
            return true;
        }
        from += place + 1;
    }
    false
}

async fn texts(admin: &Client, sql: &str) -> Vec<String> {
    admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn statuses(vault: &Vault, kms: &KmsStub, tokens: &[Token]) -> Vec<u16> {
    let broker = vault.broker(&kms.sdk().await);
    let mut statuses = Vec::new();
    for token in tokens {
        statuses.push(post(&broker, "/reveal", &reveal_body(token)).await.status);
    }
    statuses
}

async fn replay_on(vault: &mut Vault, list: &List) -> Replayed {
    let deadline = Deadline::within(Duration::from_mins(1));
    replay::replay(&mut vault.admin, "public", &list.list, deadline).await.unwrap()
}

#[tokio::test]
async fn restored_backup_reveals_nothing_erased() {
    let home = Folder::create();
    std::fs::write(home.path.join("password"), PASSWORD).unwrap();
    let initdb = ["-D", "data", "-U", "postgres", "--pwfile=password", "-A", "scram-sha-256", "--no-sync"];
    home.run("initdb", &initdb);
    let server = home.start("data").await;
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create_on(server.config(), kms.public_key, KEY).await;
    let list = List::create(&vault).await;

    // Values that are folded, and values in the inbox. Each of the first three is erased in another way.
    let folded =
        vault.write(&[(Field::Ip, "192.0.2.1"), (Field::Ip, "192.0.2.2"), (Field::Ip, "192.0.2.8")]).await;
    vault.execute("SELECT vault_fold(100)").await;
    let in_inbox = vault.write(&[(Field::DeviceId, "device 3"), (Field::Ip, "192.0.2.9")]).await;
    let erased = [folded[0], folded[1], in_inbox[0]];
    let kept = [folded[2], in_inbox[1]];
    let rows: Vec<_> = erased
        .iter()
        .chain(&kept)
        .zip(["bob", "bob", "ann", "eve", "eve"])
        .map(|(token, user)| {
            let column = if *token == in_inbox[0] { "masked_device_id" } else { "masked_ip" };
            format!(
                "INSERT INTO user_logins (user_id, {column}, create_date) VALUES ('{user}', '{}', now())",
                token.to_text()
            )
        })
        .collect();
    vault.execute(&rows.join(";")).await;
    let secret = "SELECT encode(ciphertext, 'hex') FROM vault_sealed WHERE encode(token, 'hex') = ANY ($1)
        UNION ALL SELECT encode(substr(body, 36), 'hex') FROM vault_inbox WHERE encode(substr(body, 4, 32), 'hex') = ANY ($1)";
    let erased_texts: Vec<_> = erased.iter().map(Token::to_text).collect();
    let secret = vault.admin.query(secret, &[&erased_texts]).await.unwrap();
    let ciphertexts: Vec<Vec<u8>> = secret.iter().map(|row| decode(row.get(0))).collect();
    assert_eq!(ciphertexts.len(), 3);

    let port = server.port.to_string();
    let base_backup =
        ["-D", "restored", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", "fast", "--no-sync"];
    home.run("pg_basebackup", &base_backup);
    let broker = vault.broker_with_list(&list.bucket, &endpoint(), &kms.sdk().await);
    for target in [
        json!({ "token": erased[0].to_text(), "rows": true }),
        json!({ "field": "ip", "value": "192.0.2.2", "rows": true, "never_again": true }),
        json!({ "user_id": "ann", "rows": true }),
    ] {
        assert_eq!(post(&broker, "/erase", &erase_body(target)).await.status, 200);
    }
    let erasures = "SELECT encode(token, 'hex') || ' ' || never_again || ' ' || erased_at FROM vault_erased ORDER BY token";
    let erasures_before = texts(&vault.admin, erasures).await;
    assert_eq!(statuses(&vault, &kms, &erased).await, [410; 3]);
    drop(server);
    let restored_server = home.start("restored").await;
    let mut restored = vault.copy_on(restored_server.config()).await;

    // The fault: the backup has everything.
    assert_eq!(statuses(&restored, &kms, &erased).await, [200; 3]);
    let replayed = replay_on(&mut restored, &list).await;
    let again = replay_on(&mut restored, &list).await;

    assert_eq!((replayed.erasures, replayed.tokens, replayed.rows, &*replayed.left), (3, 3, 3, &[][..]));
    assert_eq!((again.listed, again.erasures), (3, 0));
    assert_eq!(statuses(&restored, &kms, &erased).await, [410; 3]);
    assert_eq!(statuses(&restored, &kms, &kept).await, [200; 2]);
    restored.execute("SELECT vault_fold(100)").await;
    assert_eq!(statuses(&restored, &kms, &erased).await, [410; 3]);
    assert_eq!(statuses(&restored, &kms, &kept).await, [200; 2]);
    let left =
        "SELECT token FROM user_logins, LATERAL (VALUES (masked_ip), (masked_device_id)) AS tokens (token)
        WHERE token IS NOT NULL ORDER BY 1";
    let left = texts(&restored.admin, left).await;
    let mut kept_texts: Vec<_> = kept.iter().map(Token::to_text).collect();
    kept_texts.sort();
    assert_eq!(left, kept_texts);
    assert_eq!(texts(&restored.admin, erasures).await, erasures_before);

    // What the files still hold: dead rows until a vacuum has rewritten the tables, and the log until it is reused.
    restored.execute("CHECKPOINT").await;
    let before_vacuum = home.parts_with("restored", &ciphertexts);
    for statement in
        ["VACUUM FULL vault_sealed", "VACUUM FULL vault_inbox", "VACUUM FULL user_logins", "CHECKPOINT"]
    {
        restored.execute(statement).await;
    }
    let after_vacuum = home.parts_with("restored", &ciphertexts);
    assert_eq!(
        (before_vacuum, after_vacuum),
        (vec!["base".to_owned(), "pg_wal".into()], vec!["pg_wal".into()])
    );
}

fn decode(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
