//! Legacy ebtables: whether one of its tables may have rules.
//!
//! A table is a module of the kernel's (net/bridge/netfilter/ebtable_*.c), loaded when somebody first uses it.
//! To ask for its entries (`EBT_SO_GET_INFO`) would make the table in a network namespace that has none, and
//! its hooks with it: that a table is loaded has to do.

use std::path::Path;

/// Where the kernel lists its modules.
pub(super) const MODULES: &str = "/sys/module";

const TABLES: [&str; 3] = ["ebtable_broute", "ebtable_filter", "ebtable_nat"];

/// Names the tables that are loaded, if any.
pub(super) fn loaded(modules: &Path) -> Option<String> {
    let tables = TABLES.into_iter().filter(|table| modules.join(table).exists());
    let names = tables.collect::<Vec<_>>().join(", ");
    let words = format!("legacy ebtables has loaded {names}: rmmod what has no rules");
    (!names.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaded_tables_are_named() {
        let modules = tempfile::tempdir().unwrap();
        std::fs::create_dir(modules.path().join("ebtables")).unwrap();
        assert_eq!(loaded(modules.path()), None);
        for table in ["ebtable_nat", "ebtable_filter"] {
            std::fs::create_dir(modules.path().join(table)).unwrap();
        }
        let words = loaded(modules.path()).unwrap();
        assert!(words.contains("loaded ebtable_filter, ebtable_nat:"), "{words}");
    }
}
