//! A KMS that refuses, is slow or is away.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use login_etl_vault::kms::{Kms, KmsFailure};
use login_etl_vault::problem::Problem;
use login_etl_vault::token::Field;
use serde_json::{Value, json};

use crate::kms_stub::{Behaviour, KEY, KmsStub, REQUEST_ID, sdk_at};
use crate::support::{Response, Vault, post, reveal_body, reveal_entry};

/// Reveals with this KMS. Returns the answer and the entry, whose outcome must be that KMS failed.
async fn reveal(behaviour: Behaviour, kms_request_id: Option<&str>) -> Response {
    let kms = KmsStub::start(behaviour).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&kms.sdk().await);

    let failed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

    assert_eq!(vault.audit().await, [reveal_entry(&tokens[0], "kms-failed", kms_request_id)]);
    failed
}

fn problem(failure: KmsFailure) -> Value {
    serde_json::to_value(Problem::kms(failure).of_entry(1)).unwrap()
}

#[tokio::test]
async fn refusals_of_kms_are_503() {
    for (status, code, failure) in [
        (400, "AccessDeniedException", KmsFailure::AccessDenied),
        (400, "DisabledException", KmsFailure::KeyDisabled),
        (400, "KMSInvalidStateException", KmsFailure::KeyPendingDeletion),
        (400, "NotFoundException", KmsFailure::KeyNotFound),
        (400, "InvalidKeyUsageException", KmsFailure::KeyOfOtherKind),
        (400, "ValidationException", KmsFailure::Failed),
    ] {
        let failed = reveal(Behaviour::Refuse(status, code), Some(REQUEST_ID)).await;

        assert_eq!((failed.status, failed.body), (503, problem(failure)), "{code}");
        assert_eq!(failed.retry_after.is_some(), failure.is_temporary(), "{code}");
        assert!(!format!("{:?}", failed.record).contains("leak-me"));
    }
}

#[tokio::test]
async fn throttling_is_503_after_retries() {
    for code in ["ThrottlingException", "LimitExceededException"] {
        let failed = reveal(Behaviour::Refuse(400, code), Some(REQUEST_ID)).await;

        assert_eq!((failed.status, failed.body), (503, problem(KmsFailure::Throttled)), "{code}");
        assert_eq!(failed.retry_after, Some("5"));
    }
}

#[tokio::test]
async fn silent_kms_is_503_after_three_seconds() {
    let started = Instant::now();

    let failed = reveal(Behaviour::Silent, None).await;

    assert_eq!((failed.status, failed.body), (503, problem(KmsFailure::TimedOut)));
    assert_eq!(failed.retry_after, Some("5"));
    let kms_time = failed.record.kms_time.unwrap();
    assert!((Duration::from_secs(3)..Duration::from_millis(3500)).contains(&kms_time), "{kms_time:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// A second request would be a second use of the key, for which no entry has the id.
#[tokio::test]
async fn slow_kms_is_asked_once() {
    let kms = KmsStub::start(Behaviour::DeriveAfter(Duration::from_secs(2))).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&kms.sdk().await);

    let revealed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

    assert_eq!((revealed.status, kms.requests()), (200, 1));
}

#[tokio::test]
async fn unreachable_kms_is_503() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&sdk_at("http://127.0.0.1:9").await);

    let failed = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;

    assert_eq!((failed.status, failed.body), (503, problem(KmsFailure::Unreachable)));
    assert_eq!(vault.audit().await, [reveal_entry(&tokens[0], "kms-failed", None)]);
}

#[tokio::test]
async fn answers_without_a_coordinate_are_503() {
    for secret in [json!(null), json!(""), json!(STANDARD.encode([1; 31])), json!(STANDARD.encode([1; 65]))] {
        let failed = reveal(Behaviour::Return(json!({ "SharedSecret": secret })), Some(REQUEST_ID)).await;

        assert_eq!((failed.status, failed.body), (503, problem(KmsFailure::Failed)));
    }
}

#[tokio::test]
async fn keys_of_other_kinds_are_refused() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let spki = STANDARD.encode(kms.public_key.to_spki());
    let answer = |spec: &str, usage: &str, key: &str| {
        Behaviour::Return(json!({ "PublicKey": key, "KeySpec": spec, "KeyUsage": usage }))
    };

    assert_eq!(Kms::new(&kms.sdk().await).public_key(KEY).await, Ok(kms.public_key));
    for behaviour in [
        answer("ECC_NIST_P384", "KEY_AGREEMENT", &spki),
        answer("ECC_NIST_P256", "SIGN_VERIFY", &spki),
        answer("ECC_NIST_P256", "KEY_AGREEMENT", "MFkw"),
    ] {
        let other = KmsStub::start(behaviour).await;
        let error = Kms::new(&other.sdk().await).public_key(KEY).await.unwrap_err();
        assert_eq!(error.failure, KmsFailure::KeyOfOtherKind);
    }
}
