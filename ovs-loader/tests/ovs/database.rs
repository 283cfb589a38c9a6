//! Transactions.

use std::time::{Duration, Instant};

use ovs_loader::bridge::ovs::db::{Client, Condition, Error, Mutation, Transaction};
use ovs_loader::bridge::ovs::jsonrpc;
use ovs_loader::bridge::ovs::value::{Atom, Datum, Row};

use crate::switch::Switch;

const WAIT: Duration = Duration::from_secs(10);

/// `ovs-vsctl add-br NAME`.
fn add_bridge(name: &str) -> Transaction {
    let interface = Row::new([("name", name.into()), ("type", "internal".into())]);
    let port = Row::new([("name", name.into()), ("interfaces", Atom::Named("i".into()).into())]);
    let bridge = Row::new([("name", name.into()), ("ports", Atom::Named("p".into()).into())]);
    Transaction::new()
        .insert_named("Interface", &interface, "i")
        .insert_named("Port", &port, "p")
        .insert_named("Bridge", &bridge, "b")
        .mutate("Open_vSwitch", &[], &[Mutation::insert("bridges", Atom::Named("b".into()))])
}

#[tokio::test]
async fn rows_that_are_inserted_changed_and_deleted_are_ovs_vsctls() {
    let switch = Switch::database_only();
    let mut client = Client::connect(switch.rundir()).await.unwrap();
    let outcomes = client.transact(add_bridge("br-ex")).await.unwrap();
    assert_eq!(switch.vsctl("list-br"), "br-ex\n");

    let port = outcomes[1].uuid.clone().expect("the port's row");
    let ids = [("container_id", "c"), ("container_iface", "eth0")];
    let change = Transaction::new()
        .update("Port", &[Condition::row(&port)], &Row::new([("tag", 5.into())]))
        .mutate(
            "Interface",
            &[Condition::equal("name", "br-ex")],
            &[Mutation::insert("external_ids", Datum::map(ids))],
        );
    assert_eq!(client.transact(change).await.unwrap()[0].count, 1);
    assert_eq!(switch.vsctl("get port br-ex tag"), "5\n");

    let with_id = [Condition::includes("external_ids", Datum::map([("container_id", "c")]))];
    let found = Transaction::new().select("Interface", &with_id, &["name", "external_ids"]);
    let rows = &client.transact(found).await.unwrap()[0].rows;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].text("name"), "br-ex");
    assert_eq!(rows[0].value("external_ids", "container_iface"), Some("eth0"));

    let all = client.transact(Transaction::new().select("Bridge", &[], &["_uuid"])).await.unwrap();
    let bridge = all[0].rows[0].uuids("_uuid").next().expect("the bridge's row").clone();
    let unname = Mutation::delete("bridges", bridge);
    client.transact(Transaction::new().mutate("Open_vSwitch", &[], &[unname])).await.unwrap();
    assert_eq!(switch.vsctl("list-br"), "");
    let left = client.transact(Transaction::new().select("Interface", &[], &["name"])).await;
    assert_eq!(left.unwrap()[0].rows, []);
}

#[tokio::test]
async fn a_refused_transaction_changes_nothing_and_keeps_ovsdbs_words() {
    let switch = Switch::database_only();
    let mut client = Client::connect(switch.rundir()).await.unwrap();
    let no_column = Row::new([("colour", "red".into())]);
    let bad = add_bridge("br-ex").update("Bridge", &[], &no_column);
    let error = client.transact(bad).await.unwrap_err().to_string();
    assert!(error.starts_with("OVSDB refused update of table Bridge: "), "{error}");
    assert!(error.contains("colour"), "{error}");
    assert_eq!(switch.vsctl("list-br"), "");

    // Found only when the whole is committed: two bridges of one name.
    let error = client.transact(add_bridge("br-ex")).await.map(|_| ());
    assert!(error.is_ok(), "{error:?}");
    let twice = client.transact(add_bridge("br-ex")).await.unwrap_err();
    let Error::Refused { operation, error, .. } = twice else { panic!("{twice}") };
    assert_eq!((operation.as_str(), error.as_str()), ("the transaction", "constraint violation"));
}

#[tokio::test]
async fn a_check_within_a_transaction_fails_it() {
    let switch = Switch::database_only();
    let mut client = Client::connect(switch.rundir()).await.unwrap();
    let named = [Condition::equal("name", "br-ex")];
    let absent =
        || Transaction::new().wait_for_rows("Bridge", &named, &["name"], &[], Duration::ZERO);
    client.transact(absent()).await.unwrap();
    client.transact(add_bridge("br-ex")).await.unwrap();
    let error = client.transact(absent()).await.unwrap_err().to_string();
    assert!(error.starts_with("OVSDB refused wait of table Bridge: timed out"), "{error}");
}

#[tokio::test]
async fn a_change_is_waited_for_until_ovs_vswitchd_has_configured_it() {
    let switch = Switch::new();
    let mut client = Client::connect(switch.rundir()).await.unwrap();
    client.transact_and_wait(add_bridge("br-ex"), WAIT).await.unwrap();
    let ofport = Transaction::new().select("Interface", &[], &["name", "ofport", "error"]);
    let row = client.transact(ofport).await.unwrap()[0].rows[0].clone();
    assert_eq!((row.text("name"), row.integer("ofport")), ("br-ex", Some(65534)));
    assert!(switch.appctl("fdb/show br-ex").contains("MAC"));
}

#[tokio::test]
async fn without_ovs_vswitchd_the_wait_ends_at_its_deadline_and_the_rows_are_there() {
    let switch = Switch::database_only();
    let mut client = Client::connect(switch.rundir()).await.unwrap();
    let limit = Duration::from_millis(200);
    let start = Instant::now();
    let error = client.transact_and_wait(add_bridge("br-ex"), limit).await.unwrap_err();
    assert!(matches!(error, Error::NotTakenUp { .. }), "{error}");
    assert!(start.elapsed() >= limit);
    assert_eq!(switch.vsctl("list-br"), "br-ex\n");
}

#[tokio::test]
async fn where_nobody_listens_the_error_names_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::connect(directory.path()).await.unwrap_err();
    assert!(matches!(error, Error::Connection(jsonrpc::Error::Connect { .. })));
    let socket = directory.path().join("db.sock");
    assert_eq!(
        error.to_string(),
        format!("cannot connect to {}: is Open vSwitch running?", socket.display())
    );
}
