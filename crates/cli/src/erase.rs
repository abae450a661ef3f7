//! `login-etl erase`: erases values.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::confirmation;
use crate::error::{Error, Outcome};
use crate::input;
use crate::output::{self, Printer};
use crate::stack::StackOptions;
use crate::vault::{self, Field, Purpose, Vault, VaultOptions};

/// Arguments of `erase`.
#[derive(Debug, Args)]
pub(crate) struct EraseArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[command(flatten)]
    pub purpose: Purpose,
    /// Also erase the tokens in the rows of user_logins
    #[arg(long)]
    pub rows: bool,
    /// Never seal these values again
    #[arg(long)]
    pub never_again: bool,
    #[command(flatten)]
    pub vault: VaultOptions,
}

/// What to erase: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TargetArguments {
    /// The token, as it is in the table
    // Not parsed by clap, which would repeat it: somebody may type the value.
    pub token: Option<String>,
    /// The field whose value is typed on standard input
    #[arg(long, value_name = "FIELD")]
    pub field: Option<Field>,
    /// A user id is typed on standard input
    #[arg(long)]
    pub user: bool,
}

#[derive(Serialize)]
struct Request {
    #[serde(flatten)]
    target: Target,
    #[serde(flatten)]
    purpose: Purpose,
    never_again: bool,
    rows: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Target {
    Token { token: String },
    Value { field: Field, value: String },
    User { user_id: String },
}

/// The result, as the vault answers it.
#[derive(Deserialize, Serialize)]
struct Erasure {
    audit_entry: i64,
    erased: Vec<String>,
    /// The tokens that other users have, too.
    shared: Vec<String>,
    /// How many rows of `user_logins` lost a token.
    rows: i64,
}

/// Erases values, after the operator confirmed.
pub(crate) async fn erase(
    options: &StackOptions,
    arguments: EraseArguments,
    printer: Printer,
    yes: bool,
) -> Result<Outcome, Error> {
    let EraseArguments { target, purpose, rows, never_again, vault } = arguments;
    if let Some(token) = &target.token {
        vault::parse_token(token)?;
    }
    let vault = Vault::find(options, vault).await?;
    let change = change(&target, rows);
    let target = read(target).await?;
    confirmation::confirm(&change, yes).await?;
    let request = Request { target, purpose, never_again, rows };
    let erasure: Erasure = vault.post("/erase", &request).await?;
    printer.print(&erasure)?;
    Ok(Outcome::Good)
}

/// Reads what is to be typed.
async fn read(target: TargetArguments) -> Result<Target, Error> {
    Ok(match target {
        TargetArguments { token: Some(token), .. } => Target::Token { token },
        TargetArguments { field: Some(field), .. } => {
            Target::Value { field, value: input::line(field.value()).await? }
        }
        _ => Target::User { user_id: input::line("a user id").await? },
    })
}

fn change(target: &TargetArguments, rows: bool) -> String {
    let what = match target {
        TargetArguments { token: Some(_), .. } => "The value of this token is",
        TargetArguments { field: Some(_), .. } => "This value is",
        _ => "The values that only this user has are",
    };
    let rows = if rows { ", and their tokens in the rows become NULL" } else { "" };
    format!("{what} erased for ever{rows}.")
}

impl fmt::Display for Erasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |token: &String, what: &str| [token.clone(), what.to_owned()];
        let erased = self.erased.iter().map(|token| row(token, "erased"));
        let shared = self.shared.iter().map(|token| row(token, "kept: other users have it"));
        let tokens: Vec<_> = erased.chain(shared).collect();
        if tokens.is_empty() {
            f.write_str("Nothing to erase.")?;
        } else {
            f.write_str(&output::table(["token", "outcome"], tokens))?;
        }
        write!(f, "\n{} rows changed. Audit entry {}.", self.rows, self.audit_entry)
    }
}
