//! `login-etl rotate`: gives the roles that log in with a password a new one.
//!
//! An interruption at any place leaves secrets that work: the function logs in with the current password of the secret
//! or with the one before, and the database has one of them.

use std::fmt;

use aws_sdk_secretsmanager::Client as SecretsManager;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::aws;
use crate::confirmation;
use crate::error::{Error, Outcome};
use crate::invoke::Invoker;
use crate::output::{self, Printer};
use crate::signals::Signals;
use crate::stack::Stack;

/// The roles with a password, and the outputs that name their secrets.
const ROLES: [(&str, &str); 5] = [
    ("login_writer", "WriterSecretArn"),
    ("login_analyst", "ReaderSecretArn"),
    ("login_api", "ApiSecretArn"),
    ("login_export", "ExportSecretArn"),
    ("login_vault", "VaultSecretArn"),
];
const PASSWORD_LENGTH: i64 = 64;

/// The result.
#[derive(Debug, Serialize)]
struct Rotated {
    stack: String,
    roles: Vec<&'static str>,
}

/// Sets new passwords, after the operator confirmed.
pub(crate) async fn rotate(
    stack: &Stack,
    printer: Printer,
    signals: &mut Signals,
    yes: bool,
) -> Result<Outcome, Error> {
    let secrets: Vec<_> =
        ROLES.iter().filter_map(|(role, output)| Some((*role, stack.optional_output(output)?))).collect();
    if secrets.is_empty() {
        let reason = "there is nothing to rotate: the function logs in by IAM, without a password";
        return Err(Error::Failed(reason.to_owned()));
    }
    let roles: Vec<_> = secrets.iter().map(|(role, _)| *role).collect();
    let change = format!("{} gets a new password for {}.", stack.name, roles.join(", "));
    signals.interrupt(confirmation::confirm(&change, yes)).await?;
    let invoker = Invoker::new(&stack.aws);
    output::progress("Setting the current passwords in the database…");
    // After an interrupted rotation, only the previous password works. Another change of the secret would remove it,
    // so the current password must be set first.
    signals.interrupt(set_passwords(&invoker, stack)).await.map_err(|error| match error {
        Error::Failed(reason) => {
            Error::Failed(format!("migrate failed, so no password was changed: {reason}"))
        }
        other => other,
    })?;
    let change = async {
        let client = stack.aws.secrets();
        for (role, secret) in secrets {
            output::progress(format_args!("Writing a new password for {role} to its secret…"));
            put_new_password(&client, role, secret).await?;
        }
        output::progress("Setting the new passwords in the database…");
        set_passwords(&invoker, stack).await
    };
    if let Err(error) = signals.interrupt(change).await {
        output::progress(
            "A secret may have a new password that the database does not have yet. The function logs in with the old \
             password until the next run of migrate sets the new one: run rotate again.",
        );
        return Err(error);
    }
    printer.print(&Rotated { stack: stack.name.clone(), roles })?;
    Ok(Outcome::Good)
}

/// Lets `migrate` set the passwords that the secrets hold.
async fn set_passwords(invoker: &Invoker, stack: &Stack) -> Result<(), Error> {
    invoker.migrate::<Value>(stack, &json!({ "action": "rotate" })).await.map(drop)
}

/// Puts a secret with a new password and the other keys of the old secret.
async fn put_new_password(client: &SecretsManager, role: &str, secret: &str) -> Result<(), Error> {
    let old = client.get_secret_value().secret_id(secret).send().await;
    let old = old.map_err(|error| aws::failure("GetSecretValue", &error))?;
    // The parser's error is dropped: it may quote the secret.
    let mut credentials: Map<String, Value> =
        serde_json::from_str(old.secret_string().unwrap_or_default())
            .map_err(|_| Error::Failed(format!("the secret of {role} is not a JSON object")))?;
    let random = client.get_random_password().password_length(PASSWORD_LENGTH).exclude_punctuation(true);
    let random = random.send().await.map_err(|error| aws::failure("GetRandomPassword", &error))?;
    let password = random.random_password().filter(|password| !password.is_empty());
    let password = password.ok_or_else(|| Error::Failed("Secrets Manager made no password".to_owned()))?;
    credentials.insert("password".to_owned(), password.into());
    let new = Value::Object(credentials).to_string();
    let put = client.put_secret_value().secret_id(secret).secret_string(new).send().await;
    put.map_err(|error| aws::failure("PutSecretValue", &error))?;
    Ok(())
}

impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has a new password for {}.", self.stack, self.roles.join(", "))?;
        write!(f, " The function fetches it when it next has to log in; open connections stay open.")
    }
}
