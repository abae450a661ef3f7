//! Requests that are refused, and sealed values that were changed. Each test asserts the whole answer and the entry.

use login_etl_vault::problem::Problem;
use login_etl_vault::token::{Field, Token};
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub, REQUEST_ID};
use crate::support::{Sealed, Stream, Vault, event, post, reveal_body, reveal_entry, send, token_of};

const LEAK: &str = "192.0.2.1";

/// Returns the body of a problem without an entry.
fn problem(problem: &Problem) -> Value {
    serde_json::to_value(problem).unwrap()
}

fn problem_of_entry(problem: Problem, entry: i64) -> Value {
    serde_json::to_value(problem.of_entry(entry)).unwrap()
}

#[tokio::test]
async fn refused_bodies_leave_no_entry() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    let token = token_of(Field::Ip, LEAK).to_text();
    let ticket = "the field ticket is not the number of a ticket, such as SEC-1: 2 to 10 capital letters and digits, a \
                  hyphen, 1 to 9 digits";
    let reason = "the field reason is none of incident, fraud, legal, data-subject, support and test";

    for (path, body, detail) in [
        (
            "/reveal",
            json!({ "token": "none", "reason": "fraud", "ticket": "SEC-1" }),
            "the field token is not 64 lowercase hexadecimal digits",
        ),
        (
            "/reveal",
            json!({ "token": LEAK, "reason": "fraud", "ticket": "SEC-1" }),
            "the field token is not 64 lowercase hexadecimal digits",
        ),
        (
            "/reveal",
            json!({ "token": token.to_uppercase(), "reason": "fraud", "ticket": "SEC-1" }),
            "the field token is not 64 lowercase hexadecimal digits",
        ),
        (
            "/erase",
            json!({ "token": LEAK, "reason": "fraud", "ticket": "SEC-1" }),
            "the field token is not 64 lowercase hexadecimal digits",
        ),
        (
            "/reveal",
            json!({ "token": token, "reason": format!("{LEAK} was rude"), "ticket": "SEC-1" }),
            reason,
        ),
        ("/reveal", json!({ "token": token, "ticket": "SEC-1" }), "the field reason is missing"),
        ("/reveal", json!({ "token": token, "reason": "fraud" }), "the field ticket is missing"),
        ("/reveal", json!({ "token": token, "reason": "fraud", "ticket": format!("about {LEAK}") }), ticket),
        ("/erase", json!({ "token": token, "reason": "legal", "ticket": format!("about {LEAK}") }), ticket),
        (
            "/reveal",
            json!({ "token": token, "reason": "fraud", "ticket": "SEC-1", LEAK: 1 }),
            "the body has a field that is none of token, reason and ticket",
        ),
        ("/token", json!({ "field": LEAK, "value": LEAK }), "the field field is neither ip nor device_id"),
        ("/token", json!({ "field": "ip", "value": [LEAK] }), "the field value is not a string"),
        ("/token", json!([LEAK]), "the body is not a JSON object"),
    ] {
        let refused = post(&broker, path, &body).await;

        assert_eq!((refused.status, &refused.body), (400, &problem(&Problem::bad_request(detail))));
        assert!(!format!("{:?}", refused.record).contains(LEAK));
    }
    assert_eq!(vault.audit().await, [] as [Value; 0]);
}

#[tokio::test]
async fn refused_bodies_of_watchers_leave_no_entry() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    let ticket = "the field ticket is not the number of a ticket, such as SEC-1: 2 to 10 capital letters and digits, a \
                  hyphen, 1 to 9 digits";

    for (path, body, detail) in [
        ("/audit", json!({ "to": "2026-11-27T00:00:00Z" }), "the field from is missing"),
        (
            "/audit",
            json!({ "from": LEAK, "to": "2026-11-27T00:00:00Z" }),
            "the field from is not a time, such as 2026-11-27T00:00:00Z",
        ),
        (
            "/audit",
            json!({ "from": "2026-11-27T00:00:00Z", "to": "2026-11-27" }),
            "the field to is not a time, such as 2026-11-27T00:00:00Z",
        ),
        (
            "/audit",
            json!({ "from": "2026-11-27T00:00:00Z", "to": "2026-11-27T00:00:00Z" }),
            "the field from is not before the field to",
        ),
        (
            "/audit",
            json!({ "from": "2026-11-27T00:00:00Z", "to": "2026-11-28T00:00:00Z", "after": LEAK }),
            "the field after is not a whole number",
        ),
        (
            "/audit",
            json!({ "from": "2026-11-27T00:00:00Z", "to": "2026-11-28T00:00:00Z", "after": u64::MAX }),
            "the field after is too large",
        ),
        (
            "/audit",
            json!({ "from": "2026-11-27T00:00:00Z", "to": "2026-11-28T00:00:00Z", LEAK: 1 }),
            "the body has a field that is none of from, to and after",
        ),
        ("/verify", json!([LEAK]), "the body is not a JSON object"),
        ("/verify", json!({ "sample": LEAK }), "the field sample is not a whole number"),
        ("/verify", json!({ "sample": -1 }), "the field sample is not a whole number"),
        ("/verify", json!({ "sample": 0 }), "the field sample is not 1 to 100"),
        ("/verify", json!({ "sample": 101 }), "the field sample is not 1 to 100"),
        ("/verify", json!({ "token": LEAK }), "the body has a field that is none of sample"),
        ("/honey", json!({ "reason": "test", "ticket": "SEC-1" }), "the field count is missing"),
        (
            "/honey",
            json!({ "count": 0, "reason": "test", "ticket": "SEC-1" }),
            "the field count is not 1 to 100",
        ),
        (
            "/honey",
            json!({ "count": 101, "reason": "test", "ticket": "SEC-1" }),
            "the field count is not 1 to 100",
        ),
        (
            "/honey",
            json!({ "count": 1.5, "reason": "test", "ticket": "SEC-1" }),
            "the field count is not a whole number",
        ),
        ("/honey", json!({ "count": 1, "ticket": "SEC-1" }), "the field reason is missing"),
        ("/honey", json!({ "count": 1, "reason": "test", "ticket": format!("about {LEAK}") }), ticket),
        (
            "/honey",
            json!({ "count": 1, "reason": "test", "ticket": "SEC-1", "token": LEAK }),
            "the body has a field that is none of count, reason and ticket",
        ),
    ] {
        let refused = post(&broker, path, &body).await;

        assert_eq!((refused.status, &refused.body), (400, &problem(&Problem::bad_request(detail))));
        assert!(!format!("{:?}", refused.record).contains(LEAK));
    }
    assert_eq!(vault.audit().await, [] as [Value; 0]);
    let planted = "SELECT count(*) FROM vault_honey";
    assert_eq!(vault.admin.query_one(planted, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert_eq!(kms.requests(), 0);
}

#[tokio::test]
async fn large_body_is_refused_unread() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    let body = |length: usize| json!({ "field": "ip", "value": "1".repeat(length) });

    for path in ["/token", "/reveal", "/erase", "/audit", "/verify", "/honey"] {
        let refused = post(&broker, path, &body(1 << 20)).await;

        assert_eq!((refused.status, refused.body), (413, problem(&Problem::too_large())));
    }
    assert_eq!(post(&broker, "/token", &body(4096 - 25)).await.status, 200);
    assert_eq!(post(&broker, "/token", &body(4096 - 24)).await.status, 413);
    assert_eq!(vault.audit().await.len(), 1);
}

#[tokio::test]
async fn caller_without_a_name_is_refused() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, LEAK)]).await;
    let broker = vault.broker(&kms.sdk().await);

    for path in ["/token", "/reveal", "/erase", "/audit", "/verify", "/honey", "/other"] {
        let mut event = event(path, &reveal_body(&tokens[0]).to_string());
        event["requestContext"]["authorizer"] = json!(null);

        let refused = send(&broker, event).await;

        assert_eq!((refused.status, refused.body), (403, problem(&Problem::unidentified_caller())));
    }
    assert_eq!(vault.audit().await, [] as [Value; 0]);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);

    for path in ["/", "", "/Reveal", "/reveal/", "/reveal/192.0.2.1"] {
        let refused = send(&broker, event(path, "{}")).await;
        assert_eq!((refused.status, refused.body), (404, problem(&Problem::not_found())));
    }
    for method in ["GET", "post", "PUT"] {
        let mut event = event("/reveal", "{}");
        event["requestContext"]["http"]["method"] = method.into();
        let refused = send(&broker, event).await;
        assert_eq!((refused.status, refused.body), (405, problem(&Problem::method_not_allowed())));
    }
    assert_eq!(vault.audit().await, [] as [Value; 0]);
}

#[tokio::test]
async fn unknown_token_is_404_with_an_entry() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    let token = token_of(Field::Ip, LEAK);

    let unknown = post(&broker, "/reveal", &reveal_body(&token)).await;

    let expected = json!({
        "type": "urn:login-etl:unknown-token", "title": "The token is unknown", "status": 404,
        "detail": "the vault has no value of this token", "audit_entry": 1,
    });
    assert_eq!((unknown.status, unknown.body), (404, expected));
    assert_eq!(vault.audit().await, [reveal_entry(&token, "unknown", None)]);
    assert_eq!(kms.requests(), 0);
}

/// A sealed value, changed by somebody who can write to the tables.
struct Changed {
    what: &'static str,
    token: Token,
    /// Whether KMS is asked before the change shows.
    asks_kms: bool,
}

#[tokio::test]
async fn changed_values_are_500_with_an_entry() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    let mut stream = vault.stream();
    let mut number = 0;
    let mut next = |stream: &mut Stream| {
        number += 1;
        stream.seal(Field::Ip, &format!("192.0.2.{number}"))
    };
    let changed = |what, token| Changed { what, token, asks_kms: true };
    let mut all = Vec::new();

    let (of_other, moved) = (next(&mut stream), next(&mut stream));
    vault.insert_folded(&stream, &Sealed { token: moved.token, ..of_other.clone() }).await;
    all.push(changed("moved to another token", moved.token));
    let other_field = next(&mut stream);
    vault.insert_folded(&stream, &Sealed { field: Field::DeviceId, ..other_field.clone() }).await;
    all.push(changed("moved to another field", other_field.token));
    let (first, second) = (next(&mut stream), next(&mut stream));
    vault.insert_folded(&stream, &Sealed { sequence: second.sequence, ..first.clone() }).await;
    all.push(changed("at another position", first.token));
    let mut flipped = next(&mut stream);
    flipped.ciphertext[20] ^= 1;
    vault.insert_folded(&stream, &flipped).await;
    all.push(changed("flipped", flipped.token));
    for length in [0, 15, 63] {
        let mut cut = next(&mut stream);
        cut.ciphertext.truncate(length);
        vault.insert_folded(&stream, &cut).await;
        all.push(changed("cut", cut.token));
    }
    let of_stream = next(&mut stream);
    vault.insert_folded(&vault.stream(), &of_stream).await;
    all.push(changed("in another stream", of_stream.token));
    let forged = stream.seal_as(token_of(Field::Ip, "198.51.100.1"), Field::Ip, LEAK);
    vault.insert_folded(&stream, &forged).await;
    all.push(changed("sealed beside another token", forged.token));
    let unpadded = stream.seal_bytes(token_of(Field::Ip, "198.51.100.2"), Field::Ip, b"198.51.100.2");
    vault.insert_folded(&stream, &unpadded).await;
    all.push(changed("not padded", unpadded.token));
    let blank = stream.seal_as(token_of(Field::Ip, "198.51.100.3"), Field::Ip, " ");
    vault.insert_folded(&stream, &blank).await;
    all.push(changed("blank", blank.token));
    let pointless = next(&mut stream);
    let mut without_point = vault.stream();
    without_point.encapsulated = vec![4; 64];
    vault.insert_folded(&without_point, &pointless).await;
    all.push(Changed { asks_kms: false, ..changed("without a point", pointless.token) });

    for (entry, Changed { what, token, .. }) in (1..).zip(&all) {
        let refused = post(&broker, "/reveal", &reveal_body(token)).await;

        let expected = problem_of_entry(Problem::unopenable(), entry);
        assert_eq!((refused.status, refused.body), (500, expected), "{what}");
    }
    let entries = all.iter().map(|Changed { token, asks_kms, .. }| {
        reveal_entry(token, "unopenable", asks_kms.then_some(REQUEST_ID))
    });
    assert_eq!(vault.audit().await, entries.collect::<Vec<_>>());
}

/// What the salt masked before it was changed cannot be checked, so it is not returned.
#[tokio::test]
async fn value_of_another_salt_is_not_returned() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, LEAK)]).await;
    let other = Vault::create(kms.public_key, KEY).await;
    let manager = aws_sdk_secretsmanager::Client::new(other.secrets.sdk_config());
    let salt = "another salt of at least 32 bytes, of this test";
    manager.put_secret_value().secret_id(&other.name).secret_string(salt).send().await.unwrap();
    let broker = vault.broker_at(&vault.url(), &other.name, &kms.sdk().await);

    let refused = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

    assert_eq!((refused.status, refused.body), (500, problem_of_entry(Problem::unopenable(), 1)));
    assert_eq!(vault.audit().await, [reveal_entry(&tokens[0], "unopenable", Some(REQUEST_ID))]);
}
