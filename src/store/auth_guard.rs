//! Refuses a server's method of authentication, before the client sends anything of the password.
//!
//! The Postgres client uses the method that the server requires, also if the server requires the password in clear
//! text. libpq has the parameter `require_auth` against this. Here, the client reads through a stream that fails if
//! [the server's first message][messages] names a method that is not permitted.
//!
//! [messages]: https://www.postgresql.org/docs/current/protocol-message-formats.html

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use postgres_native_tls::{MakeTlsConnector, TlsConnector, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream as PostgresTlsStream};

use crate::config::AuthMethod;

/// The bytes of the first message that name the method: its type, its length, and the number of the method.
const HEAD_LENGTH: usize = 9;

/// Makes TLS connections that permit only some methods of authentication.
#[derive(Clone)]
pub(super) struct GuardedTls<T = MakeTlsConnector> {
    tls: T,
    permitted: Arc<[AuthMethod]>,
}

/// A stream that fails if the server's first message names a method that is not permitted.
pub(super) struct GuardedStream<S> {
    stream: S,
    permitted: Arc<[AuthMethod]>,
    /// The start of the server's first message, as far as it was received.
    head: Vec<u8>,
}

/// The server uses a method of authentication that is not permitted.
#[derive(Debug, thiserror::Error)]
#[error("the server {}, or permit {_0} by require_auth in DATABASE_URL", remedy(*_0))]
pub(super) struct MethodRefused(AuthMethod);

impl GuardedTls {
    pub(super) fn new(tls: MakeTlsConnector, permitted: Arc<[AuthMethod]>) -> Self {
        Self { tls, permitted }
    }
}

impl MakeTlsConnect<Socket> for GuardedTls {
    type Stream = GuardedStream<TlsStream<Socket>>;
    type TlsConnect = GuardedTls<TlsConnector>;
    type Error = native_tls::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let tls = MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls, host)?;
        Ok(GuardedTls { tls, permitted: Arc::clone(&self.permitted) })
    }
}

impl TlsConnect<Socket> for GuardedTls<TlsConnector> {
    type Stream = GuardedStream<TlsStream<Socket>>;
    type Error = native_tls::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, Self::Error>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let Self { tls, permitted } = self;
        tls.connect(socket)
            .map(|stream| {
                Ok(GuardedStream { stream: stream?, permitted, head: Vec::with_capacity(HEAD_LENGTH) })
            })
            .boxed()
    }
}

impl<S> GuardedStream<S> {
    /// Reads the next bytes of the server's first message. The client acts on the message only after all of its bytes,
    /// so the method is known before the client responds.
    fn check(&mut self, received: &[u8]) -> io::Result<()> {
        let missing = HEAD_LENGTH - self.head.len();
        self.head.extend(received.iter().take(missing));
        match *self.head {
            [b'R', _, _, _, _, a, b, c, d] => self.check_method(u32::from_be_bytes([a, b, c, d])),
            // The method is not received yet, or the server sent an error, after which the client ends the connection.
            [] | [b'R' | b'E', ..] => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn check_method(&self, number: u32) -> io::Result<()> {
        let method = match number {
            0 => AuthMethod::None,
            3 => AuthMethod::Password,
            5 => AuthMethod::Md5,
            // SASL, of which the client has only SCRAM.
            10 => AuthMethod::ScramSha256,
            // The client's own text for a method that it lacks.
            _ => return Err(io::Error::other("unsupported authentication method")),
        };
        if self.permitted.contains(&method) { Ok(()) } else { Err(io::Error::other(MethodRefused(method))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.head.len() < HEAD_LENGTH {
            self.check(&buffer.filled()[before..])?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl PostgresTlsStream for GuardedStream<TlsStream<Socket>> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// Returns what the server does, and how to change it.
fn remedy(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::None => {
            "requires no password: configure scram-sha-256 in pg_hba.conf or in the connection pooler"
        }
        AuthMethod::Password => {
            "requires the password in clear text: configure scram-sha-256 in pg_hba.conf or in the connection pooler"
        }
        AuthMethod::Md5 => {
            "requires the password as an MD5 hash: set the password again with password_encryption = scram-sha-256"
        }
        AuthMethod::ScramSha256 => "requires scram-sha-256: remove require_auth",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const CLEAR_TEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
    const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    const GSS: &[u8] = b"R\0\0\0\x08\0\0\0\x07";
    const ERROR: &[u8] = b"E\0\0\0\x05\0";
    const NOTICE: &[u8] = b"N\0\0\0\x05\0";

    /// Reads the message in fragments, and returns how many of its bytes the client received.
    async fn received(message: &[u8], fragment: usize, permitted: &[AuthMethod]) -> (usize, Option<String>) {
        let mut stream = GuardedStream { stream: message, permitted: permitted.into(), head: Vec::new() };
        let mut buffer = vec![0; fragment];
        let mut count = 0;
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return (count, None),
                Ok(read) => count += read,
                Err(error) => return (count, Some(error.to_string())),
            }
        }
    }

    #[tokio::test]
    async fn method_is_refused_before_its_last_byte() {
        for (message, method) in [
            (OK, AuthMethod::None),
            (CLEAR_TEXT, AuthMethod::Password),
            (MD5, AuthMethod::Md5),
            (SASL, AuthMethod::ScramSha256),
        ] {
            let others: Vec<_> = AuthMethod::ALL.into_iter().filter(|other| *other != method).collect();
            let refusal = MethodRefused(method).to_string();
            for (fragment, before_refusal) in [(1, 8), (8, 8), (64, 0)] {
                assert_eq!(received(message, fragment, &[method]).await, (message.len(), None));
                assert_eq!(
                    received(message, fragment, &others).await,
                    (before_refusal, Some(refusal.clone()))
                );
            }
        }
    }

    #[tokio::test]
    async fn first_message_has_a_method_or_error() {
        let later_messages = [SASL, CLEAR_TEXT].concat();
        for (message, expected) in [
            (ERROR, (6, None)),
            (&later_messages, (later_messages.len(), None)),
            (GSS, (0, Some("unsupported authentication method".to_owned()))),
            (NOTICE, (0, Some("invalid data".to_owned()))),
        ] {
            assert_eq!(received(message, 64, &AuthMethod::ALL).await, expected);
        }
    }

    #[test]
    fn refusal_names_the_method_to_permit() {
        for method in AuthMethod::ALL {
            let refusal = MethodRefused(method).to_string();

            let name = format!("{method:?}").to_lowercase().replace("scramsha256", "scram-sha-256");
            assert!(
                refusal.ends_with(&format!(", or permit {name} by require_auth in DATABASE_URL")),
                "{refusal}"
            );
        }
    }
}
