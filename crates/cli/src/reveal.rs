//! `login-etl reveal`: reveals the value of a token.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Outcome};
use crate::output::{self, Printer};
use crate::stack::StackOptions;
use crate::vault::{self, Purpose, Vault, VaultOptions};

/// Arguments of `reveal`.
#[derive(Debug, Args)]
pub(crate) struct RevealArguments {
    /// The token, as it is in the table
    // Not parsed by clap, which would repeat it: somebody may type the value.
    pub token: String,
    #[command(flatten)]
    pub purpose: Purpose,
    #[command(flatten)]
    pub vault: VaultOptions,
}

#[derive(Serialize)]
struct Request<'r> {
    token: &'r str,
    #[serde(flatten)]
    purpose: Purpose,
}

/// The result, as the vault answers it.
#[derive(Deserialize, Serialize)]
struct Revealed {
    field: String,
    token: String,
    value: String,
    audit_entry: i64,
}

/// Asks the vault for a value.
pub(crate) async fn reveal(
    options: &StackOptions,
    arguments: RevealArguments,
    printer: Printer,
) -> Result<Outcome, Error> {
    let RevealArguments { token, purpose, vault } = arguments;
    let token = vault::parse_token(&token)?;
    let vault = Vault::find(options, vault).await?;
    let revealed: Revealed = vault.post("/reveal", &Request { token, purpose }).await?;
    printer.print(&revealed)?;
    Ok(Outcome::Good)
}

impl fmt::Display for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = [self.field.clone(), self.value.clone(), self.audit_entry.to_string()];
        f.write_str(&output::table(["field", "value", "audit entry"], [row]))
    }
}
