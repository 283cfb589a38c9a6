//! The first file system of the virtual machine: busybox, the modules that mount the host's root,
//! and the scripts.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

const INIT: &str = include_str!("init.sh");
const BUSYBOX: &str = "/bin/busybox";
/// What mounts the host's root; the rest is loaded from there.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// The archive for a kernel with these modules, in the format that kernels unpack (`newc` of
/// cpio(5)). It runs `script` on the host's root.
pub(super) fn build(modules: &Path, script: &str) -> Result<Vec<u8>> {
    let busybox = fs::read(BUSYBOX)
        .with_context(|| format!("cannot read {BUSYBOX} of package busybox-static"))?;
    ensure!(
        !busybox.windows(3).take(4096).any(|bytes| bytes == b"ld-"),
        "{BUSYBOX} needs shared libraries: install busybox-static in its place"
    );
    let mut archive = Archive::default();
    for directory in ["bin", "proc", "sys", "dev", "host", "changes", "root", "modules"] {
        archive.add(directory, 0o040_755, &[]);
    }
    archive.add("bin/busybox", 0o100_755, &busybox);
    archive.add("bin/sh", 0o120_777, b"busybox");
    archive.add("init", 0o100_755, INIT.as_bytes());
    archive.add("script", 0o100_755, script.as_bytes());
    archive.add("modules/directory", 0o100_644, modules.as_os_str().as_encoded_bytes());
    let mut order = String::new();
    for file in in_order(modules, &MODULES)? {
        let name = file.file_name().expect("a module's file has a name").to_string_lossy();
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        archive.add(&format!("modules/{name}"), 0o100_644, &content);
        order.push_str(&name);
        order.push('\n');
    }
    archive.add("modules/order", 0o100_644, order.as_bytes());
    Ok(archive.finish())
}

/// The files of modules and of all that they depend on, each after what it depends on. What is
/// built into the kernel has none.
fn in_order(directory: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let mut done = BTreeSet::new();
    let mut files = Vec::new();
    for name in names {
        if builtin.lines().any(|path| module_name(path) == *name) {
            continue;
        }
        let line = dependencies.lines().filter_map(|line| line.split_once(':'));
        let (path, needs) = line
            .clone()
            .find(|(path, _)| module_name(path) == *name)
            .with_context(|| format!("{} has no module {name}", directory.display()))?;
        // depmod lists what is to be loaded first last.
        for file in needs.split_whitespace().rev().chain([path]) {
            if done.insert(file.to_owned()) {
                files.push(directory.join(file));
            }
        }
    }
    Ok(files)
}

/// `kernel/fs/9p/9p.ko.xz` -> `9p`.
fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file)
}

/// An archive being written.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a file, directory or symbolic link: the kind is in the mode.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("files are far below 4 GB");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        // Inode, mode, owner, group, links, time, size, device, device of a node, length of the
        // name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0]
            .map(|field| format!("{field:08x}"));
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend_from_slice(fields.concat().as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn cpio_lists_what_was_added() {
        let mut archive = Archive::default();
        archive.add("bin", 0o040_755, &[]);
        archive.add("bin/odd", 0o100_755, b"12345");
        archive.add("bin/sh", 0o120_777, b"busybox");
        let mut cpio = Command::new(BUSYBOX);
        cpio.args(["cpio", "-tv"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        cpio.stderr(Stdio::null());
        let mut child = cpio.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let output = child.wait_with_output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        for (line, (mode, rest)) in listed.lines().zip([
            ("drwxr-xr-x", " bin"),
            ("-rwxr-xr-x", " bin/odd"),
            ("lrwxrwxrwx", " bin/sh -> busybox"),
        ]) {
            assert!(line.starts_with(mode) && line.ends_with(rest), "{line}");
        }
        assert_eq!(listed.lines().count(), 3);
    }

    #[test]
    fn modules_come_after_what_they_need_and_without_what_is_built_in() {
        let directory = std::env::temp_dir().join(format!("modules-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let dependencies = "k/net/9pnet.ko:\nk/fs/9p.ko.xz: k/net/9pnet.ko k/lib/netfs.ko\n";
        fs::write(directory.join("modules.dep"), dependencies).unwrap();
        fs::write(directory.join("modules.builtin"), "k/virtio/virtio_pci.ko\n").unwrap();
        let files = in_order(&directory, &["virtio_pci", "9p"]);
        let missing = in_order(&directory, &["overlay"]);
        fs::remove_dir_all(&directory).unwrap();
        let names = ["k/lib/netfs.ko", "k/net/9pnet.ko", "k/fs/9p.ko.xz"];
        assert_eq!(files.unwrap(), names.map(|name| directory.join(name)));
        assert!(missing.unwrap_err().to_string().contains("no module overlay"));
    }
}
