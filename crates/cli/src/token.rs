//! `login-etl token`: computes the tokens of values.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Outcome};
use crate::input;
use crate::output::{self, Printer};
use crate::stack::StackOptions;
use crate::vault::{Field, Vault, VaultOptions};

/// Arguments of `token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    /// The field whose values are typed
    #[arg(long, value_name = "FIELD")]
    pub field: Field,
    #[command(flatten)]
    pub vault: VaultOptions,
}

#[derive(Serialize)]
struct Request<'r> {
    field: Field,
    value: &'r str,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

/// The result: the token of each line. It does not repeat the values.
#[derive(Serialize)]
struct Tokens {
    field: Field,
    /// `None` for a blank line: a blank value is NULL in the table.
    tokens: Vec<Option<String>>,
}

/// Sends the values to the vault, one by one.
pub(crate) async fn token(
    options: &StackOptions,
    arguments: TokenArguments,
    printer: Printer,
) -> Result<Outcome, Error> {
    let TokenArguments { field, vault } = arguments;
    let vault = Vault::find(options, vault).await?;
    let values = input::lines(field.value()).await?;
    let mut tokens = Vec::with_capacity(values.len());
    for (value, number) in values.iter().zip(1..) {
        if value.trim().is_empty() {
            tokens.push(None);
            continue;
        }
        let answer = vault.post::<Answer>("/token", &Request { field, value }).await;
        let answer = answer.inspect_err(|_| {
            output::progress(format_args!("Line {number} of standard input has no token:"));
        })?;
        tokens.push(Some(answer.token));
    }
    if tokens.iter().all(Option::is_none) {
        return Err(Error::Usage(format!("standard input is empty: type {} there", field.value())));
    }
    printer.print(&Tokens { field, tokens })?;
    Ok(Outcome::Good)
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.iter().zip(1_usize..);
        let rows = tokens.map(|(token, number)| [number.to_string(), token.clone().unwrap_or_default()]);
        f.write_str(&output::table(["line", "token"], rows))
    }
}
