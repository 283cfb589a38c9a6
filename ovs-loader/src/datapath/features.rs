//! What the running kernel can do.

use nix::sys::utsname::uname;

/// Whether `bpf_skb_adjust_room` knows `BPF_F_ADJ_ROOM_DECAP_L3_*`: since Linux 6.3.
pub(super) fn decap_l3() -> bool {
    at_least(6, 3)
}

fn at_least(major: u32, minor: u32) -> bool {
    let Ok(uts) = uname() else { return false };
    let release = uts.release().to_string_lossy();
    parse(&release).is_some_and(|version| version >= (major, minor))
}

/// Major and minor of a release such as `6.12.9+deb13-amd64`.
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn releases_are_read_whatever_follows_the_minor() {
        assert_eq!(parse("6.12.9+deb13-amd64"), Some((6, 12)));
        assert_eq!(parse("6.3-rc1"), Some((6, 3)));
        assert_eq!(parse("5.15"), Some((5, 15)));
        assert_eq!(parse("linux"), None);
    }
}
