//! `login-etl vault honey`: makes tokens that belong to no value.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Outcome};
use crate::output::{self, Printer};
use crate::stack::StackOptions;
use crate::vault::{Purpose, Vault, VaultOptions};

/// Arguments of `vault honey`.
#[derive(Debug, Args)]
pub(crate) struct HoneyArguments {
    /// Number of tokens, 1 to 100
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    count: u16,
    #[command(flatten)]
    purpose: Purpose,
    #[command(flatten)]
    vault: VaultOptions,
}

#[derive(Serialize)]
struct Request {
    count: u16,
    #[serde(flatten)]
    purpose: Purpose,
}

/// The result, as the vault answers it.
#[derive(Deserialize, Serialize)]
struct Honey {
    audit_entry: i64,
    tokens: Vec<String>,
}

/// Asks the vault for tokens.
pub(crate) async fn honey(
    options: &StackOptions,
    arguments: HoneyArguments,
    printer: Printer,
) -> Result<Outcome, Error> {
    let HoneyArguments { count, purpose, vault } = arguments;
    let vault = Vault::find(options, vault).await?;
    let honey: Honey = vault.post("/honey", &Request { count, purpose }).await?;
    printer.print(&honey)?;
    Ok(Outcome::Good)
}

impl fmt::Display for Honey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.tokens.iter().map(|token| [token.clone()]);
        write!(f, "{}\nAudit entry {}.", output::table(["honey token"], rows), self.audit_entry)
    }
}
