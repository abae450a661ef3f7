//! `login-etl page`: serves the analysts' page on this machine.
//!
//! A browser cannot sign requests with AWS credentials, so this program does. Nobody else may use the page with the
//! credentials of the analyst: the program listens on the loopback interface only, and answers only requests whose path
//! begins with a random segment, which it prints once.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::error::{Error, Outcome};
use crate::output::{self, Printer};
use crate::signed_api::{SignedApi, Site};
use crate::stack::StackOptions;

use self::proxy::Proxy;

mod problem;
mod proxy;

/// Arguments of `page`.
#[derive(Debug, Args)]
pub(crate) struct PageArguments {
    /// Port of this machine; 0 stands for any free port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Address to use instead of the stack's output AnalystsUrl; needs no right to describe the stack
    #[arg(long, value_name = "URL", conflicts_with_all = ["env", "stack"])]
    pub url: Option<Site>,
}

/// Where the page is.
#[derive(Debug, Serialize)]
struct Report {
    url: String,
}

/// Serves the page until a signal ends the program.
pub(crate) async fn page(
    options: &StackOptions,
    arguments: PageArguments,
    printer: Printer,
) -> Result<Outcome, Error> {
    let absent = "no page: deploy it with the parameter Analysts=true";
    let api = SignedApi::find(options, arguments.url, "AnalystsUrl", absent).await?;
    let cannot_listen =
        |error| Error::Failed(format!("port {} of 127.0.0.1 cannot be used: {error}", arguments.port));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).await.map_err(cannot_listen)?;
    let port = listener.local_addr().map_err(cannot_listen)?.port();
    let proxy = Arc::new(Proxy::new(api, port)?);
    printer.print(&Report { url: proxy.url() })?;
    output::progress("Whoever has this address can use the page as you. Ctrl-C ends it.");
    let router = Router::new().fallback(proxy::respond).with_state(proxy);
    axum::serve(listener, router).await.map_err(cannot_listen)?;
    Ok(Outcome::Good)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}
