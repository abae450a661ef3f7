//! The broker with a KMS that is not ours: that of `LocalStack`. `make test-localstack` runs these tests, because the
//! emulator of the other tests does not have `DeriveSharedSecret`.
//!
//! This KMS also derives with a disabled key. A test of `kms_failures` has a KMS that refuses it.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::types::{KeySpec, KeyUsageType};
use login_etl_vault::kms::{Kms, KmsFailure};
use login_etl_vault::problem::Problem;
use login_etl_vault::token::Field;
use serde_json::{Value, json};

use crate::support::{Response, Vault, post, reveal_body, reveal_entry};

/// A KMS with a new key, and a vault whose values are sealed to it.
struct System {
    sdk: SdkConfig,
    client: Client,
    key: String,
    vault: Vault,
}

impl System {
    async fn start() -> Self {
        let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
        let client = Client::new(&sdk);
        let key = create_key(&client, KeySpec::EccNistP256, KeyUsageType::KeyAgreement).await;
        let public_key = Kms::new(&sdk).public_key(&key).await.unwrap();
        Self { vault: Vault::create(public_key, &key).await, sdk, client, key }
    }

    /// Reveals a new value. Returns the answer and the entry, without the id of the request to KMS.
    async fn reveal(&self) -> (Response, Value, Option<String>) {
        let tokens = self.vault.write(&[(Field::Ip, "192.0.2.1")]).await;
        let revealed = post(&self.vault.broker(&self.sdk), "/reveal", &reveal_body(&tokens[0])).await;
        let mut entry = self.vault.audit().await.pop().unwrap();
        let request_id = entry["kms_request_id"].as_str().map(ToOwned::to_owned);
        let outcome = entry["outcome"].as_str().unwrap();
        assert_eq!(entry, reveal_entry(&tokens[0], outcome, request_id.as_deref()));
        (revealed, entry["outcome"].take(), request_id)
    }

    /// Reveals a new value, which must fail for this reason.
    async fn assert_fails(&self, failure: KmsFailure) {
        let (failed, outcome, request_id) = self.reveal().await;

        let problem = serde_json::to_value(Problem::kms(failure).of_entry(1)).unwrap();
        assert_eq!((failed.status, failed.body), (503, problem));
        assert_eq!(outcome, "kms-failed");
        assert!(request_id.is_some(), "KMS answered");
    }
}

async fn create_key(client: &Client, spec: KeySpec, usage: KeyUsageType) -> String {
    let request = client.create_key().key_spec(spec).key_usage(usage);
    request.send().await.unwrap().key_metadata.unwrap().arn.unwrap()
}

#[tokio::test]
#[ignore = "make test-localstack runs it"]
async fn values_open_with_the_key_in_kms() {
    let system = System::start().await;

    let (revealed, outcome, request_id) = system.reveal().await;

    assert_eq!((revealed.status, &revealed.body["value"]), (200, &json!("192.0.2.1")));
    assert_eq!(outcome, "done");
    assert_eq!(request_id, revealed.record.kms_request_id);
    assert_eq!(request_id.unwrap().len(), 36);
}

#[tokio::test]
#[ignore = "make test-localstack runs it"]
async fn other_keys_do_not_open() {
    let system = System::start().await;
    let other = create_key(&system.client, KeySpec::EccNistP256, KeyUsageType::KeyAgreement).await;
    system.vault.execute(&format!("UPDATE vault_keys SET kms_key = '{other}'")).await;

    let (refused, outcome, request_id) = system.reveal().await;

    let problem = serde_json::to_value(Problem::unopenable().of_entry(1)).unwrap();
    assert_eq!((refused.status, refused.body), (500, problem));
    assert_eq!(outcome, "unopenable");
    assert!(request_id.is_some());
}

#[tokio::test]
#[ignore = "make test-localstack runs it"]
async fn deletion_of_the_key_can_be_cancelled() {
    let system = System::start().await;
    let deletion = system.client.schedule_key_deletion().key_id(&system.key).pending_window_in_days(7);
    deletion.send().await.unwrap();

    system.assert_fails(KmsFailure::KeyPendingDeletion).await;

    system.client.cancel_key_deletion().key_id(&system.key).send().await.unwrap();
    assert_eq!(system.reveal().await.0.status, 200);
}

#[tokio::test]
#[ignore = "make test-localstack runs it"]
async fn key_that_does_not_exist_is_503() {
    let system = System::start().await;
    let (keys, _) = system.key.rsplit_once('/').unwrap();
    let missing = format!("{keys}/00000000-0000-0000-0000-000000000000");
    system.vault.execute(&format!("UPDATE vault_keys SET kms_key = '{missing}'")).await;

    system.assert_fails(KmsFailure::KeyNotFound).await;
}

#[tokio::test]
#[ignore = "make test-localstack runs it"]
async fn signing_key_is_refused() {
    let system = System::start().await;
    let signing = create_key(&system.client, KeySpec::EccNistP256, KeyUsageType::SignVerify).await;
    system.vault.execute(&format!("UPDATE vault_keys SET kms_key = '{signing}'")).await;

    system.assert_fails(KmsFailure::KeyOfOtherKind).await;

    let error = Kms::new(&system.sdk).public_key(&signing).await.unwrap_err();
    assert_eq!(error.failure, KmsFailure::KeyOfOtherKind);
}
