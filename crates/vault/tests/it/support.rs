//! Fixtures: a database with a vault, values that another implementation sealed, and requests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client as SecretsManager;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hpke::aead::{AeadCtxS, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::DhP256HkdfSha256;
use hpke::{Deserializable, Kem, OpModeS, Serializable};
use login::pii::sealer::INFO;
use login::pii::{Masker, Salts};
use login_etl::aws::secrets::Secrets;
use login_etl::deadline::Deadline;
use login_etl::point::Point;
use login_etl::schema;
use login_etl::schema::WriterLogin;
use login_etl_vault::answer::Answer;
use login_etl_vault::broker::Broker;
use login_etl_vault::event::{Event, HttpRequest};
use login_etl_vault::kms::Kms;
use login_etl_vault::record::Record;
use login_etl_vault::settings::Settings;
use login_etl_vault::token::{Field, Token};
use serde_json::{Value, json};
use tokio_postgres::{Client, Config, NoTls};

use crate::kms_stub::KEY;

pub(crate) const CALLER: &str = "arn:aws:sts::123456789012:assumed-role/fraud/ann";
const SALT: &str = "0123456789abcdef0123456789abcdef";

/// A migrated database for one test, with a login role of the same name that has the rights of `login_vault`.
pub(crate) struct Vault {
    pub(crate) name: String,
    /// A session of the superuser in this database.
    pub(crate) admin: Client,
    pub(crate) secrets: Secrets,
    /// The address of the server, and the login of its superuser.
    server: Config,
    public_key: Point,
}

/// A stream of values that the crate `hpke` seals.
pub(crate) struct Stream {
    pub(crate) encapsulated: Vec<u8>,
    sender: AeadCtxS<AesGcm256, HkdfSha256, DhP256HkdfSha256>,
    sequence: u16,
}

/// A sealed value.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) sequence: u16,
    pub(crate) field: Field,
    pub(crate) token: Token,
    pub(crate) ciphertext: Vec<u8>,
}

impl Vault {
    /// Creates a database whose current key is this one, and a secret with the salt.
    pub(crate) async fn create(public_key: Point, kms_key: &str) -> Self {
        Box::pin(Self::create_on(superuser(), public_key, kms_key)).await
    }

    /// As [`create`](Self::create), on another server.
    pub(crate) async fn create_on(server: Config, public_key: Point, kms_key: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vault_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        connect(&server).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let mut admin = connect(server.clone().dbname(&name)).await;
        schema::migrate(&mut admin, "public", &WriterLogin::Unchanged).await.unwrap();
        let key = STANDARD.encode(public_key.to_spki()).parse().unwrap();
        schema::vault::create(&mut admin, "public", &key, kms_key).await.unwrap();
        let role = format!("CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE login_vault");
        admin.batch_execute(&role).await.unwrap();
        let secrets = Secrets::from_env().await;
        let manager = SecretsManager::new(secrets.sdk_config());
        manager.create_secret().name(&name).secret_string(SALT).send().await.unwrap();
        Self { name, admin, secrets, server, public_key }
    }

    /// Returns the database of the same name on a server that is a copy of this one.
    pub(crate) async fn copy_on(&self, server: Config) -> Self {
        let Self { name, secrets, public_key, .. } = self;
        let admin = connect(server.clone().dbname(name)).await;
        Self { name: name.clone(), admin, secrets: secrets.clone(), server, public_key: *public_key }
    }

    /// Accepts a newer key, to which values are sealed from now on.
    pub(crate) async fn accept(&mut self, public_key: Point, kms_key: &str) {
        let key = STANDARD.encode(public_key.to_spki()).parse().unwrap();
        schema::vault::accept_key(&mut self.admin, "public", &key, kms_key).await.unwrap();
        self.public_key = public_key;
    }

    pub(crate) fn url(&self) -> String {
        let (name, port) = (&self.name, self.server.get_ports()[0]);
        format!("postgresql://{name}:{name}@localhost:{port}/{name}?sslmode=disable")
    }

    /// Returns a broker that logs in to this database.
    pub(crate) fn broker(&self, kms: &SdkConfig) -> Broker {
        self.broker_at(&self.url(), &self.name, kms)
    }

    pub(crate) fn broker_at(&self, url: &str, salt_secret_id: &str, kms: &SdkConfig) -> Broker {
        self.broker_with(&[("DATABASE_URL", url), ("SALT_SECRET_ID", salt_secret_id)], kms)
    }

    /// Returns a broker with an erasure list, which is in S3 at this address.
    pub(crate) fn broker_with_list(&self, bucket: &str, s3: &str, kms: &SdkConfig) -> Broker {
        let (url, salt) = (&*self.url(), &*self.name);
        let list = [("VAULT_ERASURE_BUCKET", bucket), ("AWS_ENDPOINT_URL_S3", s3)];
        self.broker_with(&[&[("DATABASE_URL", url), ("SALT_SECRET_ID", salt)], &list[..]].concat(), kms)
    }

    fn broker_with(&self, variables: &[(&str, &str)], kms: &SdkConfig) -> Broker {
        let settings = Settings::read(|name| {
            let set = variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| *value);
            set.or((name == "VAULT_KMS_KEY").then_some(KEY)).map(ToOwned::to_owned)
        });
        Broker::new(settings.unwrap(), self.secrets.clone(), Kms::new(kms)).unwrap()
    }

    pub(crate) fn stream(&self) -> Stream {
        let recipient = <DhP256HkdfSha256 as Kem>::PublicKey::from_bytes(self.public_key.as_bytes()).unwrap();
        let sender = hpke::setup_sender::<AesGcm256, HkdfSha256, DhP256HkdfSha256>;
        let (encapsulated, sender) = sender(&OpModeS::Base, &recipient, INFO).unwrap();
        Stream { encapsulated: encapsulated.to_bytes().to_vec(), sender, sequence: 0 }
    }

    /// Seals values, and writes them as a batch does.
    pub(crate) async fn write(&self, values: &[(Field, &str)]) -> Vec<Token> {
        let mut stream = self.stream();
        let sealed: Vec<_> = values.iter().map(|(field, value)| stream.seal(*field, value)).collect();
        for sealed in &sealed {
            self.insert_in_inbox(&stream, std::slice::from_ref(sealed)).await;
        }
        sealed.iter().map(|sealed| sealed.token).collect()
    }

    /// Writes a body of entries of one length.
    pub(crate) async fn insert_in_inbox(&self, stream: &Stream, sealed: &[Sealed]) {
        let body: Vec<u8> = sealed.iter().flat_map(Sealed::entry).collect();
        let length = i32::try_from(body.len() / sealed.len()).unwrap();
        let sql = "INSERT INTO vault_inbox (key_id, enc, entry_length, body) 
            SELECT id, $1, $2, $3 FROM vault_keys WHERE is_current";
        self.admin.execute(sql, &[&stream.encapsulated, &length, &body]).await.unwrap();
    }

    /// Writes an entry where the folding writes it. It may have any bytes.
    pub(crate) async fn insert_folded(&self, stream: &Stream, sealed: &Sealed) {
        let sql = "
            WITH stream AS (
                INSERT INTO vault_streams (key_id, enc) VALUES (1, $1)
                ON CONFLICT (enc) DO UPDATE SET enc = excluded.enc RETURNING id
            )
            INSERT INTO vault_sealed (token, field, stream_id, key_id, sequence, ciphertext)
            SELECT $2, $3, id, 1, $4, $5 FROM stream";
        let field = i8::try_from(sealed.field.name().as_bytes()[0]).unwrap();
        let sequence = i16::try_from(sealed.sequence).unwrap();
        let token = sealed.token.as_bytes();
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&stream.encapsulated, &token, &field, &sequence, &sealed.ciphertext];
        self.admin.execute(sql, &parameters).await.unwrap();
    }

    /// Returns the audit entries: what was asked and what was told, without the numbers and times.
    pub(crate) async fn audit(&self) -> Vec<Value> {
        let sql = "
            SELECT (to_jsonb(audit) - '{id,at,xid,db_user,taken_at,told_at}'::text[] || jsonb_build_object(
                'token', encode(token, 'hex'), 'subject', encode(subject, 'hex'), 'is_taken', taken_at IS NOT NULL
            ))::text
            FROM vault_audit AS audit ORDER BY id";
        let rows = self.admin.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect()
    }

    /// Makes the salt the accepted salt, as the first batch does.
    pub(crate) async fn accept_salt(&self) {
        let fingerprint = Masker::new(&SALT.into()).unwrap().salt_fingerprint();
        let insert = "INSERT INTO salt_fingerprint (fingerprint) VALUES ($1)";
        self.admin.execute(insert, &[&fingerprint.as_str()]).await.unwrap();
    }

    /// Adds a later salt to the secret, and returns all its salts.
    pub(crate) async fn add_later_salt(&self, later: &str) -> Salts {
        let text = json!({ "salt": SALT, "later_salts": [later] }).to_string();
        let manager = SecretsManager::new(self.secrets.sdk_config());
        manager.put_secret_value().secret_id(&self.name).secret_string(text).send().await.unwrap();
        self.secrets.salts(&self.name).await.unwrap()
    }

    pub(crate) async fn execute(&self, statements: &str) {
        self.admin.batch_execute(statements).await.unwrap();
    }

    /// Ends the broker's sessions and refuses new ones, as a database does that is away.
    pub(crate) async fn take_away(&self) {
        let statements = format!(
            "ALTER ROLE {0} NOLOGIN;
             SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{0}'",
            self.name
        );
        self.execute(&statements).await;
    }
}

impl Stream {
    pub(crate) fn seal(&mut self, field: Field, value: &str) -> Sealed {
        self.seal_as(token_of(field, value), field, value)
    }

    /// Seals a value beside any token.
    pub(crate) fn seal_as(&mut self, token: Token, field: Field, value: &str) -> Sealed {
        let mut padded = [value.as_bytes(), &[0x80]].concat();
        let length = if value.len() < 48 { 48 } else { (value.len() / 64 + 1) * 64 };
        padded.resize(length, 0);
        self.seal_bytes(token, field, &padded)
    }

    pub(crate) fn seal_bytes(&mut self, token: Token, field: Field, padded: &[u8]) -> Sealed {
        let ciphertext = self.sender.seal(padded, token.associated(field).as_bytes()).unwrap();
        let sequence = self.sequence;
        self.sequence += 1;
        Sealed { sequence, field, token, ciphertext }
    }
}

impl Sealed {
    fn entry(&self) -> Vec<u8> {
        let field = &self.field.name().as_bytes()[..1];
        [&self.sequence.to_be_bytes()[..], field, self.token.as_bytes(), &self.ciphertext].concat()
    }
}

/// An answer, without what all answers have.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) retry_after: Option<&'static str>,
    pub(crate) record: Record,
}

pub(crate) fn token_of(field: Field, value: &str) -> Token {
    field.mask(value, &mut Masker::new(&SALT.into()).unwrap()).unwrap()
}

pub(crate) fn reveal_body(token: &Token) -> Value {
    json!({ "token": token.to_text(), "reason": "fraud", "ticket": "SEC-1" })
}

/// The audit entry of [`reveal_body`].
pub(crate) fn reveal_entry(token: &Token, outcome: &str, kms_request_id: Option<&str>) -> Value {
    json!({
        "caller": CALLER, "verb": "reveal", "field": null, "token": token.to_text(), "subject": null,
        "reason": "fraud", "ticket": "SEC-1", "is_taken": true, "outcome": outcome, "kms_request_id": kms_request_id,
    })
}

/// An audit entry without a token, a reason and a ticket.
pub(crate) fn bare_entry(verb: &str, outcome: &str) -> Value {
    json!({
        "caller": CALLER, "verb": verb, "field": null, "token": null, "subject": null, "reason": null, "ticket": null,
        "is_taken": true, "outcome": outcome, "kms_request_id": null,
    })
}

pub(crate) fn event(path: &str, body: &str) -> Value {
    json!({
        "version": "2.0",
        "rawPath": path,
        "requestContext": {
            "authorizer": { "iam": { "userArn": CALLER } },
            "http": { "method": "POST" },
            "stage": "$default",
        },
        "body": body,
        "isBase64Encoded": false,
    })
}

pub(crate) fn request(event: Value) -> HttpRequest {
    match Event::read(event).unwrap() {
        Event::Http(request) => request,
        Event::PublicKey(_) => panic!("the event is of CloudFormation"),
    }
}

pub(crate) async fn post(broker: &Broker, path: &str, body: &Value) -> Response {
    send(broker, event(path, &body.to_string())).await
}

pub(crate) async fn send(broker: &Broker, event: Value) -> Response {
    send_within(Duration::from_secs(20), broker, event).await
}

pub(crate) async fn send_within(time: Duration, broker: &Broker, event: Value) -> Response {
    let mut record = Record::start();
    let deadline = Deadline::within(time);
    let answer = broker.answer(&request(event), deadline, &mut record).await;
    let Answer { status_code: status, headers, body, .. } = &answer;
    assert_eq!(headers["cache-control"], "no-store");
    let is_problem = headers["content-type"] == "application/problem+json";
    assert_eq!(is_problem, *status >= 400);
    let body: Value = serde_json::from_str(body).unwrap();
    if is_problem {
        assert_eq!(body["status"], *status);
    }
    Response { status: *status, body, retry_after: headers.get("retry-after").copied(), record }
}

pub(crate) fn superuser() -> Config {
    variable("TEST_DATABASE_URL").parse().unwrap()
}

/// Returns an environment variable that `make test` sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `make test` sets it"))
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
