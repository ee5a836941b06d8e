//! The embedded profile as a whole: one folder, both stores.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::sync::Arc;

use acb_ports::{
    ManualClock,
    metadata::{AgentSpec, Registration},
};
use acb_store_embedded::{EmbeddedConfig, EmbeddedProfile};
use acb_types::{ClassId, ErrorCode, PartitionId, TenantId, Timestamp};

async fn open(folder: &tempfile::TempDir) -> Result<EmbeddedProfile, acb_ports::StoreError> {
    EmbeddedProfile::open(EmbeddedConfig::new(folder.path().join("acb-data")), Arc::new(ManualClock::default())).await
}

#[tokio::test]
async fn both_stores_open_close_and_open_again_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let tenant: TenantId = "default".parse().unwrap();
    let partition = PartitionId { tenant: tenant.clone(), class: ClassId::INBOX, partition: 0 };
    let profile = open(&folder).await.unwrap();
    profile.metadata.tenant_create(&tenant, "Default", Timestamp(1)).await.unwrap();
    let spec = AgentSpec::new("w1".parse().unwrap());
    let registration = Registration::new(spec, "key:1".parse().unwrap(), Timestamp(1));
    let made = profile.metadata.agent_register(&tenant, registration).await.unwrap();
    let mut opened = profile.log.open(&partition).await.unwrap();
    opened.log.stage_state("state".into(), acb_ports::SnapshotPart::Whole).unwrap();
    opened.log.close().unwrap();
    drop(opened);
    profile.close().await.unwrap();

    let profile = open(&folder).await.unwrap();
    let subscriptions = profile.metadata.subscription_list_all(&tenant).await.unwrap();
    assert_eq!(subscriptions, made.implicit.into_iter().map(|made| made.row).collect::<Vec<_>>());
    assert_eq!(profile.log.partitions().await.unwrap(), std::slice::from_ref(&partition));
    assert_eq!(profile.log.open(&partition).await.unwrap().state, ["state"]);
}

#[tokio::test]
async fn a_second_server_in_the_folder_is_refused_before_it_touches_anything() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder).await.unwrap();
    let error = open(&folder).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidState, "{error}");
    assert!(error.message.contains("in use by another acb-server"), "{error}");
    first.close().await.unwrap();
    // Free as soon as the first is gone.
    open(&folder).await.unwrap();
}

#[tokio::test]
async fn an_open_partition_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let profile = open(&folder).await.unwrap();
    let partition = PartitionId { tenant: "a".parse().unwrap(), class: ClassId::TOPICS, partition: 0 };
    let opened = profile.log.open(&partition).await.unwrap();
    profile.close().await.unwrap();
    assert_eq!(open(&folder).await.unwrap_err().code, ErrorCode::InvalidState);
    drop(opened);
    open(&folder).await.unwrap();
}
