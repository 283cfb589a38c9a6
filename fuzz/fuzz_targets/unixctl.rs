//! What ovs-vswitchd prints on its control socket: `fdb/show` and `bridge/dump-flows`. Any text is
//! understood or an error; nothing in it is passed over.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ovs_loader::bridge::ovs::text;

fuzz_target!(|text: &str| {
    match text::stations(text) {
        Ok(stations) => {
            assert!(stations.is_sorted());
            assert_eq!(stations.len(), text.lines().count() - 1, "a station for each line");
        }
        Err(unknown) => assert!(text.contains(&unknown.line)),
    }
    match text::other_flows(text) {
        Ok(None) => {
            let mut flows = text.lines().filter(|line| !line.is_empty());
            let plain =
                |line: &str| line.starts_with("table_id=") || line.ends_with("actions=NORMAL");
            assert!(flows.all(plain), "a flow that is not NORMAL's was passed over");
        }
        Ok(Some(why)) => assert!(!why.detail.is_empty()),
        Err(unknown) => assert!(text.contains(&unknown.line)),
    }
});
