//! Legacy iptables and ip6tables, read through getsockopt(2). They announce changes to nobody.
//!
//! Sources: uapi linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h,
//! netfilter/x_tables.h, xt_tcpudp.h, xt_multiport.h.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::firewall::{FirewallRule, Ports, Traffic};
use super::netlink::{ne_u16, ne_u32, string};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: c_int = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: c_int = 65;
/// Bytes of a table's name (`XT_TABLE_MAXNAMELEN`).
const NAME_LEN: usize = 32;
/// Bytes of `struct ipt_getinfo`.
const INFO_LEN: usize = 84;
/// Bytes of `struct ipt_get_entries` before the entries.
const ENTRIES_HEADER_LEN: usize = 40;
/// Bytes of `struct xt_entry_match` and `struct xt_entry_target` before their data.
const EXTENSION_LEN: usize = 32;
/// The verdict of a standard target that accepts: -NF_ACCEPT - 1.
const ACCEPT: u32 = (-2_i32).cast_unsigned();
/// Hooks by their number.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
const FORWARD: usize = 2;
/// A table up to this many bytes is read at every poll, a larger one when its size, number of
/// entries or chains change: replacing one rule of a large table by another of the same size goes
/// unnoticed until then. That matters to warnings only, as such a table is not empty.
const SMALL: usize = 16 * 1024;

/// What differs between the families.
struct Family {
    address_family: AddressFamily,
    level: c_int,
    command: &'static str,
    names: &'static str,
    /// Offsets in `struct ipt_entry`: the protocol, the flags that invert, `target_offset` and the
    /// first match.
    protocol: usize,
    inverted: usize,
    target_offset: usize,
    matches: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        address_family: AddressFamily::Inet,
        level: libc::SOL_IP,
        command: "iptables",
        names: "/proc/thread-self/net/ip_tables_names",
        protocol: 80,
        inverted: 83,
        target_offset: 88,
        matches: 112,
    },
    Family {
        address_family: AddressFamily::Inet6,
        level: libc::SOL_IPV6,
        command: "ip6tables",
        names: "/proc/thread-self/net/ip6_tables_names",
        protocol: 128,
        inverted: 132,
        target_offset: 140,
        matches: 168,
    },
];

/// The sockets the tables are read through, and what was read last.
pub(super) struct Xtables {
    families: Vec<(&'static Family, OwnedFd)>,
    tables: BTreeMap<(&'static str, String), Table>,
}

/// What was read of a table.
#[derive(Clone, Default)]
struct Table {
    info: Vec<u8>,
    /// It has rules, chains of users, or a policy other than ACCEPT.
    used: bool,
    rules: Vec<FirewallRule>,
}

/// What legacy iptables has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Legacy {
    pub(super) ruleset: Option<String>,
    pub(super) firewall: Vec<FirewallRule>,
}

impl Xtables {
    pub(super) fn open() -> io::Result<Self> {
        let mut families = Vec::new();
        for family in &FAMILIES {
            match socket(family.address_family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) {
                Ok(fd) => families.push((family, fd)),
                // Without IPv6 there is no ip6tables.
                Err(Errno::EAFNOSUPPORT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { families, tables: BTreeMap::new() })
    }

    /// Reads the tables that exist in the calling thread's network namespace. Asking for another
    /// would create it.
    pub(super) fn read(&mut self) -> io::Result<Legacy> {
        let mut legacy = Legacy::default();
        let mut tables = BTreeMap::new();
        for (family, fd) in &self.families {
            for name in table_names(family.names)? {
                let key = (family.command, name);
                let Some(table) = family.read_table(fd, &key.1, self.tables.remove(&key))? else {
                    continue;
                };
                if table.used && legacy.ruleset.is_none() {
                    legacy.ruleset = Some(format!("{} table {}", family.command, key.1));
                }
                legacy.firewall.extend(table.rules.iter().cloned());
                tables.insert(key, table);
            }
        }
        self.tables = tables;
        Ok(legacy)
    }
}

fn table_names(path: &str) -> io::Result<Vec<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Family {
    /// Reads a table; `None` where it went meanwhile.
    fn read_table(
        &self,
        fd: &OwnedFd,
        name: &str,
        before: Option<Table>,
    ) -> io::Result<Option<Table>> {
        loop {
            let Some(info) = self.get(fd, GET_INFO, name, INFO_LEN)? else { return Ok(None) };
            let size = ne_u32(&info, 80).unwrap_or(0);
            match before {
                Some(before) if before.info == info && size as usize > SMALL => {
                    return Ok(Some(before));
                }
                _ => {}
            }
            let mut request = vec![0; ENTRIES_HEADER_LEN + size as usize];
            request[NAME_LEN..NAME_LEN + 4].copy_from_slice(&size.to_ne_bytes());
            request[..name.len()].copy_from_slice(name.as_bytes());
            match getsockopt(fd, self.level, GET_ENTRIES, &mut request) {
                Ok(()) => {
                    let entries = &request[ENTRIES_HEADER_LEN..];
                    return Ok(Some(self.parse(name, info, entries)));
                }
                // It changed in between.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn get(
        &self,
        fd: &OwnedFd,
        option: c_int,
        name: &str,
        length: usize,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; length];
        if name.len() >= NAME_LEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        buffer[..name.len()].copy_from_slice(name.as_bytes());
        match getsockopt(fd, self.level, option, &mut buffer) {
            Ok(()) => Ok(Some(buffer)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(&self, name: &str, info: Vec<u8>, entries: &[u8]) -> Table {
        // struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
        let field = |offset| ne_u32(&info, offset).unwrap_or(0);
        let hooks: Vec<(usize, usize)> = (0..HOOKS.len())
            .filter(|hook| field(32) & (1 << hook) != 0)
            .map(|hook| (hook, field(56 + 4 * hook) as usize))
            .collect();
        // Each chain of the kernel's has its policy as last entry; the table ends with one more.
        let used = field(76) as usize > hooks.len() + 1
            || hooks.iter().any(|(_, policy)| !self.accepts(entries, *policy));

        let mut rules = Vec::new();
        let mut chain = None;
        let mut offset = 0;
        while let Some(entry) = self.entry(entries, offset) {
            let target = self.target(entry);
            if string(&target[2..EXTENSION_LEN - 1]) == "ERROR" {
                // A user's chain begins with its name.
                chain = target.get(EXTENSION_LEN..).map(string);
            } else if let Some((hook, _)) = hooks
                .iter()
                .find(|(hook, policy)| (field(36 + 4 * hook) as usize..=*policy).contains(&offset))
            {
                chain = (*hook != FORWARD).then(|| HOOKS[*hook].to_owned());
            }
            if let (Some(chain), Some(traffic)) = (&chain, self.traffic(entry)) {
                let place = format!("{} table {name}, chain {chain}", self.command);
                rules.push(FirewallRule { place, traffic });
            }
            offset += entry.len();
        }
        Table { info, used, rules }
    }

    /// The entry at `offset`, up to the next one, if it is well-formed.
    fn entry<'a>(&self, entries: &'a [u8], offset: usize) -> Option<&'a [u8]> {
        let rest = entries.get(offset..)?;
        let target = usize::from(ne_u16(rest, self.target_offset)?);
        let next = usize::from(ne_u16(rest, self.target_offset + 2)?);
        (target >= self.matches && next >= target + EXTENSION_LEN).then(|| rest.get(..next))?
    }

    /// The target of a well-formed entry.
    fn target<'a>(&self, entry: &'a [u8]) -> &'a [u8] {
        &entry[usize::from(ne_u16(entry, self.target_offset).unwrap_or(0))..]
    }

    /// Whether the policy at `offset` is ACCEPT.
    fn accepts(&self, entries: &[u8], offset: usize) -> bool {
        self.entry(entries, offset)
            .is_some_and(|entry| ne_u32(self.target(entry), EXTENSION_LEN) == Some(ACCEPT))
    }

    /// What an entry names, if that is UDP ports or GRE.
    fn traffic(&self, entry: &[u8]) -> Option<Traffic> {
        /// `IPT_INV_PROTO` and `IP6T_INV_PROTO`.
        const INVERTED_PROTOCOL: u8 = 0x40;
        if entry[self.inverted] & INVERTED_PROTOCOL != 0 {
            return None;
        }
        match i32::from(ne_u16(entry, self.protocol)?) {
            libc::IPPROTO_GRE => Some(Traffic::Gre),
            libc::IPPROTO_UDP => {
                let mut ports = Ports::all();
                let end = entry.len() - self.target(entry).len();
                let mut matches = &entry[self.matches..end];
                while let Some(size) = ne_u16(matches, 0) {
                    let extension = matches.get(..usize::from(size))?;
                    let name = string(extension.get(2..EXTENSION_LEN - 1)?);
                    let revision = u32::from(*extension.get(EXTENSION_LEN - 1)?);
                    let data = &extension[EXTENSION_LEN..];
                    if let Some(named) = destination_ports(&name, revision, data) {
                        ports = ports.intersect(&named);
                    }
                    matches = &matches[extension.len()..];
                }
                (ports != Ports::all()).then_some(Traffic::Udp(ports))
            }
            _ => None,
        }
    }
}

/// The destination ports that an xtables match names: none where it negates, `None` where it is
/// not about ports. Ports are in host byte order here.
pub(super) fn destination_ports(name: &str, revision: u32, info: &[u8]) -> Option<Ports> {
    match (name, revision) {
        // struct xt_udp: spts[2], dpts[2], invflags.
        ("udp", 0) => {
            const INVERTED: u8 = 0x02;
            let range = (ne_u16(info, 4)?, ne_u16(info, 6)?);
            let inverted = info.get(8)? & INVERTED != 0;
            Some(Ports::new(if inverted { vec![] } else { vec![range] }))
        }
        // struct xt_multiport_v1: flags, count, ports[15], pflags[15], invert.
        ("multiport", 1) => {
            const SOURCE: u8 = 0;
            let count = usize::from(*info.get(1)?);
            if *info.first()? == SOURCE {
                return None;
            }
            if *info.get(47)? != 0 {
                return Some(Ports::new(vec![]));
            }
            let mut ranges = Vec::new();
            let mut index = 0;
            while index < count {
                let first = ne_u16(info, 2 + 2 * index)?;
                // A port with a flag begins a range that the next one ends.
                index += usize::from(*info.get(32 + index)? != 0);
                ranges.push((first, ne_u16(info, 2 + 2 * index)?));
                index += 1;
            }
            Some(Ports::new(ranges))
        }
        _ => None,
    }
}

/// getsockopt(2) into a buffer of exactly the option's length.
fn getsockopt(fd: &OwnedFd, level: c_int, option: c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: pointer and length are those of an exclusively borrowed buffer, and the kernel writes
    // at most that many bytes into it.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
