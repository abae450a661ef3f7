//! Values that are revealed, and tokens that are computed.

use login_etl_vault::token::Field;
use serde_json::json;

use crate::kms_stub::{Behaviour, KEY, KmsStub, REQUEST_ID};
use crate::support::{CALLER, Vault, event, post, reveal_body, reveal_entry, send, token_of};

#[tokio::test]
async fn revealed_value_has_a_complete_entry() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1"), (Field::DeviceId, "593-47-5928")]).await;
    let broker = vault.broker(&kms.sdk().await);

    let ip = post(&broker, "/reveal", &reveal_body(&tokens[0])).await;
    let device_id = post(&broker, "/reveal", &reveal_body(&tokens[1])).await;

    let answer = |number: usize, field: &str, value: &str| {
        let token = tokens[number].to_text();
        json!({ "field": field, "token": token, "value": value, "audit_entry": number + 1 })
    };
    assert_eq!((ip.status, ip.body), (200, answer(0, "ip", "192.0.2.1")));
    assert_eq!((device_id.status, device_id.body), (200, answer(1, "device_id", "593-47-5928")));
    let entries = tokens.iter().map(|token| reveal_entry(token, "done", Some(REQUEST_ID)));
    assert_eq!(vault.audit().await, entries.collect::<Vec<_>>());
    assert_eq!(kms.requests(), 2);
}

#[tokio::test]
async fn each_reveal_asks_kms() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let tokens = vault.write(&[(Field::Ip, "192.0.2.1")]).await;
    let broker = vault.broker(&kms.sdk().await);

    for number in 1..=3 {
        assert_eq!(post(&broker, "/reveal", &reveal_body(&tokens[0])).await.status, 200);
        assert_eq!(kms.requests(), number);
    }
    assert_eq!(vault.audit().await.len(), 3);
}

#[tokio::test]
async fn folded_values_of_all_lengths_open() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let mut stream = vault.stream();
    let broker = vault.broker(&kms.sdk().await);

    for length in [1, 47, 48, 63, 64, 127, 128, 1500] {
        let value = "é".repeat(length / 2) + &"x".repeat(length % 2);
        let sealed = stream.seal(Field::DeviceId, &value);
        vault.insert_folded(&stream, &sealed).await;

        let revealed = post(&broker, "/reveal", &reveal_body(&sealed.token)).await;

        assert_eq!((revealed.status, &revealed.body["value"]), (200, &json!(value)), "{length} bytes");
    }
}

#[tokio::test]
async fn last_value_of_a_stream_opens() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let mut stream = vault.stream();
    let sealed: Vec<_> =
        (0..1000).map(|number| stream.seal(Field::DeviceId, &format!("device {number}"))).collect();
    vault.insert_in_inbox(&stream, &sealed).await;
    let broker = vault.broker(&kms.sdk().await);

    for number in [0, 255, 256, 999] {
        let revealed = post(&broker, "/reveal", &reveal_body(&sealed[number].token)).await;

        assert_eq!(revealed.body["value"], format!("device {number}"));
    }
}

#[tokio::test]
async fn asking_for_a_token_leaves_an_entry() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);

    let asked = post(&broker, "/token", &json!({ "field": "ip", "value": " ::ffff:192.0.2.1" })).await;

    let token = token_of(Field::Ip, "192.0.2.1").to_text();
    assert_eq!((asked.status, asked.body), (200, json!({ "field": "ip", "token": token })));
    let entry = json!({
        "caller": CALLER, "verb": "token", "field": "ip", "token": token, "subject": null, "reason": null,
        "ticket": null, "is_taken": false, "outcome": "done", "kms_request_id": null,
    });
    assert_eq!(vault.audit().await, [entry]);
    assert_eq!(kms.requests(), 0);
}

#[tokio::test]
async fn encoded_body_behind_a_stage_is_read() {
    let kms = KmsStub::start(Behaviour::Derive).await;
    let vault = Vault::create(kms.public_key, KEY).await;
    let broker = vault.broker(&kms.sdk().await);
    // {"field": "ip", "value": "192.0.2.1"}
    let mut event = event("/prod/token", "eyJmaWVsZCI6ICJpcCIsICJ2YWx1ZSI6ICIxOTIuMC4yLjEifQ==");
    event["isBase64Encoded"] = true.into();
    event["requestContext"]["stage"] = "prod".into();

    let asked = send(&broker, event).await;

    assert_eq!(asked.body["token"], token_of(Field::Ip, "192.0.2.1").to_text());
}
