//! Mistakes in the configuration file.

use std::{fs, time::Duration};

use anyhow::Result;
use ovs_ebpf_tests::lab::{Lab, Loader};

use super::complaint;
use crate::support::State;

const VXLAN: &str = "tunnel = \"vxlan\"\nremotes = [\"192.0.2.2\"]\n";

#[test]
fn a_mistake_is_shown_with_file_line_and_remedy_and_changes_nothing() -> Result<()> {
    let lab = Lab::pair()?;
    let before = State::of(lab.host(0));
    let file = lab.host(0).files().join("config.toml");
    let new = |rest: &str| format!("[[bridge]]\nname = \"br-new\"\n{rest}");
    let mistakes = [
        ("[accelerate]\n\nlease_secs = 9\n".to_owned(), 3, "lease_seconds"),
        ("[acelerate]\n".to_owned(), 1, "accelerate"),
        ("[accelerate]\nlease_seconds = 2\n".to_owned(), 2, "from 3 to 3600"),
        (new(&format!("key = 1\nlocal = \"192.0.2\"\n{VXLAN}")), 4, "for example \"192.0.2.1\""),
        (new(&format!("key = 16777216\n{VXLAN}")), 3, "from 0 to 16777215"),
        (new("\n[[bridge]]\nname = \"br-new\"\n"), 5, "one name"),
        (new("ports = [\"v1\", \"v1\"]\n"), 3, "one place"),
        (new("name"), 3, ""),
    ];
    for (text, line, remedy) in mistakes {
        let mut loader = Loader::spawn(lab.host(0), Some(&text), &[])?;
        let status = loader.wait_exit(Duration::from_secs(5))?;
        let said = loader.log();
        assert_eq!(status.code(), Some(1), "{text}: {said}");
        assert!(
            said.contains(&format!("{}:{line}", file.display())),
            "line {line} of {text}{said}"
        );
        assert!(said.contains(remedy), "{remedy} for {text}{said}");
        assert!(!loader.socket().exists() && !loader.bpffs().exists(), "{text}");
    }
    before.is_unchanged();
    Ok(())
}

#[test]
fn check_finds_the_same_mistakes() -> Result<()> {
    let lab = Lab::pair()?;
    fs::create_dir_all(lab.host(0).files())?;
    let file = lab.host(0).files().join("wrong.toml");
    fs::write(&file, "[accelerate]\nlease_secs = 9\n")?;
    let file = file.to_string_lossy();
    let error = crate::support::ovs_loader(lab.host(0), &["check", "--config", &file]);
    let error = format!("{:#}", error.expect_err("a mistake"));
    assert!(error.contains(&format!("{file}:2")) && error.contains("lease_seconds"), "{error}");
    Ok(())
}

#[test]
fn a_missing_file_is_named() -> Result<()> {
    let lab = Lab::pair()?;
    let before = State::of(lab.host(0));
    for command in ["run", "check"] {
        let said = complaint(lab.host(0), &[command, "--config", "/nowhere/ovs.toml"]);
        assert!(said.contains("/nowhere/ovs.toml") && said.contains("no such file"), "{said}");
    }
    before.is_unchanged();
    Ok(())
}
