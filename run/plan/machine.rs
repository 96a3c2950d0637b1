//! What this machine has, and what this process takes of it.

use std::{fs, path::Path};

/// Returns the bytes that this process could take: what the system has free, or less where a control group says so.
pub fn available() -> Option<u64> {
    let system = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group =
        groups.lines().filter_map(|line| left_in_group(line, Path::new("/sys/fs/cgroup"))).min();
    Some(group.map_or(system, |group| group.min(system)))
}

/// Returns the bytes of this process that are resident.
pub(super) fn resident() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Returns the most bytes of this process that were ever resident.
pub(in crate::run) fn peak_resident() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Reads a field of so many `kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns what is left under the limits of a control group and of those around it; `line` is of `/proc/self/cgroup`:
/// `0::/path` in version 2, `4:memory:/path` in version 1.
fn left_in_group(line: &str, root: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
    let (root, limit, usage) = match controllers {
        "" => (root.to_owned(), "memory.max", "memory.current"),
        "memory" => (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
        _ => return None,
    };
    let group = root.join(path);
    let around = group.ancestors().take_while(|folder| folder.starts_with(&root));
    around
        .filter_map(|folder| {
            let number =
                |file| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
            // What is mapped or cached of files can be taken back.
            let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let named = |name| {
                statistics
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
            };
            let cached = named("inactive_file ").unwrap_or(0) + named("active_file ").unwrap_or(0);
            Some(number(limit)?.saturating_sub(number(usage)?.saturating_sub(cached)))
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        write("a/memory.max", "1000\n");
        write("a/memory.current", "400\n");
        write("a/memory.stat", "anon 300\ninactive_file 50\nactive_file 50\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "10\n");
        write("memory/c/memory.limit_in_bytes", "70\n");
        write("memory/c/memory.usage_in_bytes", "60\n");
        assert_eq!(left_in_group("0::/a/b", root.path()), Some(700));
        assert_eq!(left_in_group("4:memory:/c", root.path()), Some(10));
        assert_eq!(left_in_group("4:cpu:/c", root.path()), None);
        assert_eq!(left_in_group("0::/nowhere", root.path()), None);
        assert_eq!(left_in_group("nonsense", root.path()), None);
    }

    #[test]
    fn this_process_is_resident_somewhere() {
        let (now, peak) = (resident().expect("Linux"), peak_resident().expect("Linux"));
        assert!(now > 0 && peak >= now / 2, "{now} {peak}");
        assert!(available().expect("Linux") > 0);
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(field("VmRSS:\t  12 MB\n", "VmRSS:"), None);
    }
}
