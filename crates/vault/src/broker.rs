//! Answers requests. A value is returned only after its audit entry was committed twice: before the vault is read, and
//! with the outcome before the answer.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use login::pii::Masker;
use login_etl::aws::secrets::Secrets;
use login_etl::config::SettingError;
use login_etl::deadline::Deadline;
use login_etl::erasures::ErasureList;
use login_etl::store::tls::PendingTls;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::answer::Answer;
use crate::audit::{Ask, Outcome, Verb};
use crate::database::{Database, DatabaseError, Erased, ErasureOptions, Sampled, StoredKey, Taken};
use crate::entries;
use crate::event::{Caller, HttpRequest, TooLarge};
use crate::failure::Failure;
use crate::honey::{self, Honey};
use crate::kms::Kms;
use crate::problem::Problem;
use crate::record::Record;
use crate::requests::{
    AuditRequest, EraseRequest, HoneyRequest, RevealRequest, Target, TokenRequest, VerifyRequest,
};
use crate::salt::Salt;
use crate::settings::Settings;
use crate::token::{Field, Token};
use crate::unseal::{Points, unseal};
use crate::verify::Tally;

/// How long a start waits for the database and the salt. After it, the first request waits.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(4);

/// How much time must be left to try one more value: KMS may need 3 s, and the answer takes time too.
const TIME_FOR_A_VALUE: Duration = Duration::from_secs(8);

/// Opens, erases and masks, for callers that AWS names.
#[derive(Debug)]
pub struct Broker {
    database: Database,
    kms: Kms,
    salt: Salt,
    /// The KMS key of the function's settings.
    kms_key: Option<String>,
    erasures: Option<ErasureList>,
}

/// The answer to [`TokenRequest`].
#[derive(Serialize)]
struct TokenAnswer {
    field: &'static str,
    token: String,
}

/// The answer to [`RevealRequest`].
#[derive(Serialize)]
struct RevealAnswer<'a> {
    field: &'static str,
    token: String,
    value: &'a str,
    audit_entry: i64,
}

/// The answer to [`EraseRequest`].
#[derive(Serialize)]
struct EraseAnswer {
    audit_entry: i64,
    erased: Vec<String>,
    shared: Vec<String>,
    rows: i64,
}

/// A value that was opened.
struct Revealed {
    field: Field,
    value: SecretString,
}

impl Broker {
    /// Prepares to connect, and sends nothing yet.
    ///
    /// # Errors
    ///
    /// [`SettingError`] if `DATABASE_CA_BUNDLE` is not a file of certificates.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn new(settings: Settings, secrets: Secrets, kms: Kms) -> Result<Self, SettingError> {
        let tls = PendingTls::start(&settings.database)?;
        let salt = Salt::new(secrets.clone(), settings.salt_secret_id);
        let erasures = settings.erasure_bucket.map(|bucket| ErasureList::new(&secrets, &bucket));
        let database = Database::new(settings.database, tls, secrets);
        Ok(Self { database, kms, salt, kms_key: settings.kms_key, erasures })
    }

    /// Connects and fetches the salt before the first request. What fails is done by the first request: at the first
    /// deployment, the login of the broker does not exist yet.
    pub async fn warm_up(&self) {
        let deadline = Deadline::within(WARM_UP_TIMEOUT);
        let salt = deadline.timeout(self.salt.masker(None));
        let (database, salt) = tokio::join!(self.database.warm_up(deadline), salt);
        if let Err(error) = database {
            tracing::warn!(error_type = error.error_type(), error = %error, "started without a connection to Postgres");
        }
        if let Ok(Err(error)) = salt {
            tracing::warn!(error = %error, "started without the salt");
        }
    }

    /// Answers a request, and records what the log says of it.
    pub async fn answer(&self, request: &HttpRequest, deadline: Deadline, record: &mut Record) -> Answer {
        match self.serve(request, deadline, record).await {
            Ok(answer) => answer,
            Err(failure) => {
                let problem = failure.problem();
                record.failure = Some(failure);
                Answer::from(&Problem { audit_entry: record.entry, ..problem })
            }
        }
    }

    async fn serve(
        &self,
        request: &HttpRequest,
        deadline: Deadline,
        record: &mut Record,
    ) -> Result<Answer, Failure> {
        let Some(caller) = &request.caller else { return Err(Problem::unidentified_caller().into()) };
        record.caller = Some(caller.clone());
        let verb = match &*request.path {
            "/token" => Verb::Token,
            "/reveal" => Verb::Reveal,
            "/erase" => Verb::Erase,
            "/audit" => Verb::Audit,
            "/verify" => Verb::Verify,
            "/honey" => Verb::Honey,
            _ => return Err(Problem::not_found().into()),
        };
        record.verb = Some(verb);
        if request.method != "POST" {
            return Err(Problem::method_not_allowed().into());
        }
        let body = request.body.as_deref().map_err(|TooLarge| Problem::too_large())?;
        match verb {
            Verb::Token => self.token(caller, &TokenRequest::read(body)?, record).await,
            Verb::Reveal => self.reveal(caller, &RevealRequest::read(body)?, record).await,
            Verb::Erase | Verb::EraseUser => {
                self.erase(caller, &EraseRequest::read(body)?, deadline, record).await
            }
            Verb::Audit => self.audit(caller, &AuditRequest::read(body)?, record).await,
            Verb::Verify => self.verify(caller, VerifyRequest::read(body)?, deadline, record).await,
            Verb::Honey => self.honey(caller, &HoneyRequest::read(body)?, record).await,
        }
    }

    async fn token(
        &self,
        Caller(caller): &Caller,
        request: &TokenRequest,
        record: &mut Record,
    ) -> Result<Answer, Failure> {
        let field = request.value.field;
        let token = self.mask(field, &request.value.text).await?;
        let (verb, field) = (Verb::Token, Some(field));
        let ask = Ask { caller, verb, field, token: Some(token), subject: None, purpose: None };
        let entry = self.ask(&ask, record).await?;
        self.database.tell(entry, Outcome::Done, None).await?;
        Ok(Answer::ok(&TokenAnswer { field: request.value.field.name(), token: token.to_text() }))
    }

    async fn reveal(
        &self,
        Caller(caller): &Caller,
        RevealRequest { token, purpose }: &RevealRequest,
        record: &mut Record,
    ) -> Result<Answer, Failure> {
        record.purpose = Some(purpose.clone());
        let (verb, purpose) = (Verb::Reveal, Some(purpose));
        let ask = Ask { caller, verb, field: None, token: Some(*token), subject: None, purpose };
        let entry = self.ask(&ask, record).await?;
        let revealed = self.open(entry, token, record).await;
        if let Err(Failure::Unknown | Failure::Erased) = &revealed {
            self.note_honey(entry, record).await;
        }
        let outcome = revealed.as_ref().map_or_else(Failure::outcome, |_| Outcome::Done);
        let told = self.database.tell(entry, outcome, record.kms_request_id.as_deref()).await;
        let Revealed { field, value } = match (revealed, told) {
            (Ok(revealed), Ok(())) => revealed,
            // The value stays here: the entry does not say that it was revealed.
            (Ok(_), Err(error)) => return Err(error.into()),
            (Err(failure), told) => {
                log_untold(entry, told);
                return Err(failure);
            }
        };
        Ok(Answer::ok(&RevealAnswer {
            field: field.name(),
            token: token.to_text(),
            value: value.expose_secret(),
            audit_entry: entry,
        }))
    }

    /// Takes and opens the value for which an entry asked.
    async fn open(&self, entry: i64, token: &Token, record: &mut Record) -> Result<Revealed, Failure> {
        let sealed = match self.database.take(entry).await? {
            Taken::Sealed(sealed) => sealed,
            Taken::Unknown => return Err(Failure::Unknown),
            Taken::Erased => return Err(Failure::Erased),
        };
        // Before KMS, so that each use of the key can end in a value.
        let points = Points::of(&sealed)?;
        let mut masker = self.masker().await?;
        let started = Instant::now();
        let derived = self.kms.derive(&sealed.kms_key, &points.encapsulated).await;
        record.kms_time = Some(started.elapsed());
        record.kms_request_id = match &derived {
            Ok(derived) => derived.request_id.clone(),
            Err(error) => error.request_id.clone(),
        };
        let value = unseal(&sealed, &points, &derived?.coordinate, token, &mut masker)?;
        Ok(Revealed { field: sealed.field, value })
    }

    async fn erase(
        &self,
        Caller(caller): &Caller,
        request: &EraseRequest,
        deadline: Deadline,
        record: &mut Record,
    ) -> Result<Answer, Failure> {
        let EraseRequest { target, purpose, never_again, rows } = request;
        let list = self.erasures.as_ref();
        let options = ErasureOptions { never_again: *never_again, with_rows: *rows, list };
        record.purpose = Some(purpose.clone());
        let purpose = Some(purpose);
        let ask = Ask { caller, verb: Verb::Erase, field: None, token: None, subject: None, purpose };
        let (entry, erased) = match target {
            Target::User(user_id) => {
                record.verb = Some(Verb::EraseUser);
                let subject = self.masker().await?.hash_user_id(user_id.as_str());
                let ask = Ask { verb: Verb::EraseUser, subject: Some(&subject), ..ask };
                let entry = self.ask(&ask, record).await?;
                let user_id = user_id.as_str();
                (entry, self.database.erase_user(entry, user_id, options, deadline).await)
            }
            Target::Token(token) => {
                let entry = self.ask(&Ask { token: Some(*token), ..ask }, record).await?;
                (entry, self.database.erase(entry, token, options, deadline).await)
            }
            Target::Value(value) => {
                let token = self.mask(value.field, &value.text).await?;
                let ask = Ask { field: Some(value.field), token: Some(token), ..ask };
                let entry = self.ask(&ask, record).await?;
                (entry, self.database.erase(entry, &token, options, deadline).await)
            }
        };
        if let (Target::Token(_), Ok(_)) = (target, &erased) {
            self.note_honey(entry, record).await;
        }
        match erased {
            Ok(Erased { tokens, shared, rows }) => {
                Ok(Answer::ok(&EraseAnswer { audit_entry: entry, erased: tokens, shared, rows }))
            }
            // Postgres may still do it, and then writes the outcome itself.
            Err(DatabaseError::Silent) => Err(Failure::ErasureUnknown),
            Err(error) => {
                log_untold(entry, self.database.tell(entry, Outcome::Failed, None).await);
                Err(error.into())
            }
        }
    }

    /// Returns what masks as the tokens in the database are masked.
    async fn masker(&self) -> Result<Masker, Failure> {
        let accepted = self.database.salt().await?;
        Ok(self.salt.masker(accepted.as_ref()).await?)
    }

    async fn audit(
        &self,
        Caller(caller): &Caller,
        request: &AuditRequest,
        record: &mut Record,
    ) -> Result<Answer, Failure> {
        let verb = Verb::Audit;
        let ask = Ask { caller, verb, field: None, token: None, subject: None, purpose: None };
        let entry = self.ask(&ask, record).await?;
        match entries::page(&self.database, entry, request).await {
            Ok(page) => {
                self.database.tell(entry, Outcome::Done, None).await?;
                Ok(Answer::ok(&page))
            }
            Err(error) => {
                log_untold(entry, self.database.tell(entry, Outcome::Failed, None).await);
                Err(error.into())
            }
        }
    }

    /// Opens values that the database chooses. No value and no token leaves this function.
    async fn verify(
        &self,
        Caller(caller): &Caller,
        request: VerifyRequest,
        deadline: Deadline,
        record: &mut Record,
    ) -> Result<Answer, Failure> {
        let sample = self.database.sample(caller, request.sample).await?;
        record.sampled = sample.iter().map(|sampled| sampled.entry).collect();
        let mut tally = Tally::default();
        let mut kms_time = Duration::ZERO;
        for Sampled { entry, token, key } in sample {
            if deadline.left() < TIME_FOR_A_VALUE {
                break;
            }
            if tally.kms_failed(key) {
                self.database.tell(entry, Outcome::Failed, None).await?;
                continue;
            }
            (record.kms_request_id, record.kms_time) = (None, None);
            let opened = self.open(entry, &token, record).await;
            kms_time += record.kms_time.unwrap_or_default();
            let outcome = opened.as_ref().map_or_else(Failure::outcome, |_| Outcome::Done);
            let told = self.database.tell(entry, outcome, record.kms_request_id.as_deref()).await;
            tally.count(key, &opened);
            record.unopenable = tally.unopenable();
            match opened {
                Err(failure @ (Failure::Database(_) | Failure::Salt(_))) => {
                    log_untold(entry, told);
                    return Err(failure);
                }
                _ => told?,
            }
        }
        (record.kms_request_id, record.kms_time) = (None, Some(kms_time));
        let keys = self.database.keys(true).await?;
        let settings_have_current_key = self.settings_have(keys.iter().find(|key| key.is_current)).await;
        Ok(Answer::ok(&tally.report(record.sampled.clone(), keys, settings_have_current_key)))
    }

    /// Whether the key of the function's settings is this key; `None` if KMS does not say it.
    async fn settings_have(&self, current: Option<&StoredKey>) -> Option<bool> {
        let public_key = self.kms.public_key(self.kms_key.as_ref()?).await.ok()?;
        let sha256 = base16ct::lower::encode_string(digest(&SHA256, &public_key.to_spki()).as_ref());
        Some(current.is_some_and(|current| current.sha256 == sha256))
    }

    async fn honey(
        &self,
        Caller(caller): &Caller,
        HoneyRequest { count, purpose }: &HoneyRequest,
        record: &mut Record,
    ) -> Result<Answer, Failure> {
        record.purpose = Some(purpose.clone());
        let (verb, purpose) = (Verb::Honey, Some(purpose));
        let ask = Ask { caller, verb, field: None, token: None, subject: None, purpose };
        let entry = self.ask(&ask, record).await?;
        let tokens = honey::tokens(*count).map_err(|_| Problem::bug())?;
        if let Err(error) = self.database.plant(entry, &tokens).await {
            log_untold(entry, self.database.tell(entry, Outcome::Failed, None).await);
            return Err(error.into());
        }
        let tokens = tokens.iter().map(Token::to_text).collect();
        Ok(Answer::ok(&Honey { audit_entry: entry, tokens }))
    }

    /// Notes whether the token of an entry is a honey token. The answer is the same for each token, and takes as long.
    async fn note_honey(&self, entry: i64, record: &mut Record) {
        match self.database.is_honey(entry).await {
            Ok(is_honey) => record.is_honey = is_honey,
            Err(error) => {
                let error_type = error.error_type();
                tracing::error!(audit_entry = entry, error_type, error = %error, "the honey tokens are not known");
            }
        }
    }

    async fn mask(&self, field: Field, value: &str) -> Result<Token, Failure> {
        let mut masker = self.masker().await?;
        field.mask(value, &mut masker).ok_or_else(|| Problem::bad_request("the field value is blank").into())
    }

    async fn ask(&self, ask: &Ask<'_>, record: &mut Record) -> Result<i64, Failure> {
        let entry = self.database.ask(ask).await?;
        record.entry = Some(entry);
        Ok(entry)
    }
}

/// Logs that the outcome of a failed request is missing in its audit entry.
fn log_untold(entry: i64, told: Result<(), DatabaseError>) {
    if let Err(error) = told {
        let error_type = error.error_type();
        tracing::error!(audit_entry = entry, error_type, error = %error, "the audit entry has no outcome");
    }
}
