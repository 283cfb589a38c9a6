//! The configuration file: any text gives a configuration within its bounds, or a mistake that can
//! be shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ovs_loader::config::{Config, Error};

fuzz_target!(|text: &str| {
    match Config::parse("fuzz.toml", text) {
        Ok(config) => check(&config),
        Err(error) => {
            // A mistake points into the text, and says what to write instead.
            let Error::Invalid(invalid) = &error else { panic!("{error}") };
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&invalid.line), "line {} of {lines}", invalid.line);
            assert!(!invalid.problem.is_empty() && !invalid.help.is_empty());
            let shown = format!("{:?}", miette::Report::new(error));
            assert!(shown.contains("fuzz.toml"), "{shown}");
        }
    }
});

/// What the rest of the daemon relies on without looking again.
fn check(config: &Config) {
    let accelerate = &config.accelerate;
    assert!((3..=3600).contains(&accelerate.lease_seconds));
    assert!((1..=3600).contains(&accelerate.revalidate_seconds));
    assert!((1024..=4_194_304).contains(&accelerate.fdb_capacity));
    assert!(accelerate.bridges.as_ref().is_none_or(|names| !names.is_empty()));
    let bridges = config.bridges.iter().map(|bridge| &bridge.name);
    let names = bridges.chain(config.bridges.iter().flat_map(|bridge| &bridge.ports));
    for name in names.chain(accelerate.bridges.iter().flatten()) {
        assert!((1..=15).contains(&name.len()), "{name:?} is no name of an interface");
        assert!(!name.contains(['/', '\0', ' ']), "{name:?} is no name of an interface");
    }
}
