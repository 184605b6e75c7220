//! What the control groups of this process leave it: the limits by which Linux confines a container or a service.
//!
//! Two versions exist, and a machine may have both mounted; the kernel's Documentation/admin-guide has them in
//! cgroup-v1/memory.rst and cgroup-v2.rst. A group is a folder of text files, and a group inside another is
//! held by the limits of both. A file that is missing or says something unknown limits nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// How to find and read the groups of one version.
struct Version {
    /// The type of the file system that shows them.
    file_system: &'static str,
    /// What `/proc/self/cgroup` and the mount call the hierarchy that counts memory: of version 2 there is one
    /// hierarchy, without a name.
    controller: &'static str,
    /// Files with a number of bytes that the group is held to, by refusal or by being slowed down.
    limits: &'static [&'static str],
    /// The file with the bytes that the group occupies, the page cache among them.
    used: &'static str,
    /// The file with the most bytes that the group has ever occupied.
    peak: &'static str,
    /// Lines of `memory.stat` with the bytes of page cache, which the kernel takes back before it refuses
    /// memory. A model that was mapped before is among the active ones.
    page_cache: [&'static str; 2],
}

/// What version 1 has for no limit is above this, and no machine's memory is.
const NO_LIMIT: u64 = 1 << 62;

static VERSIONS: [Version; 2] = [
    Version {
        file_system: "cgroup",
        controller: "memory",
        limits: &["memory.limit_in_bytes"],
        used: "memory.usage_in_bytes",
        peak: "memory.max_usage_in_bytes",
        page_cache: ["total_inactive_file", "total_active_file"],
    },
    Version {
        file_system: "cgroup2",
        controller: "",
        limits: &["memory.max", "memory.high"],
        used: "memory.current",
        peak: "memory.peak",
        page_cache: ["inactive_file", "active_file"],
    },
];

/// Bytes that the groups of this process leave it, the least of all, and up to `own_bytes` of what is taken; `None`
/// without a limit.
pub(super) fn available_bytes(own_bytes: u64) -> Option<u64> {
    least_left(own_bytes, &|path| fs::read_to_string(path).ok())
}

/// The most bytes that the innermost control group with a limit has ever occupied, of those that this process is in, with
/// everything in it and the page cache that it brought in; `None` without a limit.
pub fn peak_bytes() -> Option<u64> {
    peak(&|path| fs::read_to_string(path).ok())
}

fn peak(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut groups = groups(read).into_iter();
    groups.find_map(|(version, folder)| {
        let number = |name: &str| number(&read(&folder.join(name))?);
        version.limit(&number).and_then(|_| number(version.peak))
    })
}

/// The same, with the system's files as `read` has them.
fn least_left(own_bytes: u64, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = groups(read).into_iter();
    groups.filter_map(|(version, folder)| version.left(own_bytes, &|name| read(&folder.join(name)))).min()
}

/// The groups of this process that can be seen, and their folders: of each version the innermost first.
fn groups(read: &dyn Fn(&Path) -> Option<String>) -> Vec<(&'static Version, PathBuf)> {
    let files = read(Path::new("/proc/self/cgroup")).zip(read(Path::new("/proc/self/mountinfo")));
    let Some((memberships, mounts)) = files else { return Vec::new() };
    let folders = |version: &'static Version| {
        version.folders(&memberships, &mounts).into_iter().map(move |f| (version, f))
    };
    VERSIONS.iter().flat_map(folders).collect()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

impl Version {
    /// The folders of the process's group and of all groups around it that can be seen.
    fn folders(&self, memberships: &str, mounts: &str) -> Vec<PathBuf> {
        let Some(group) = memberships.lines().find_map(|line| self.group(line)) else { return Vec::new() };
        let mounts = mounts.lines().filter_map(|line| self.mount(line));
        let folders = mounts.flat_map(|(root, point)| {
            let inside = group.strip_prefix(root).map(|path| point.join(path));
            let inside = inside.iter().flat_map(|folder| folder.ancestors());
            inside.take_while(|folder| folder.starts_with(point)).map(Path::to_owned).collect::<Vec<_>>()
        });
        folders.collect()
    }

    /// The group that a line `ID:CONTROLLERS:GROUP` of `/proc/self/cgroup` names, if it is of this version.
    fn group<'a>(&self, line: &'a str) -> Option<&'a Path> {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == self.controller).then_some(Path::new(group))
    }

    /// Of a line of `/proc/self/mountinfo` for this version: the group that is mounted, and where.
    fn mount<'a>(&self, line: &'a str) -> Option<(&'a Path, &'a Path)> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut kind = kind.split(' ');
        let is_ours = kind.next()? == self.file_system
            && (self.controller.is_empty() || kind.nth(1)?.split(',').any(|name| name == self.controller));
        is_ours.then_some((Path::new(place.next()?), Path::new(place.next()?)))
    }

    /// The least of a group's limits.
    fn limit(&self, number: &dyn Fn(&str) -> Option<u64>) -> Option<u64> {
        self.limits.iter().filter_map(|name| number(name)).filter(|limit| *limit < NO_LIMIT).min()
    }

    /// Bytes that one group leaves: its limit less what is used, is not the process's own, and can't be taken back.
    fn left(&self, own_bytes: u64, file: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
        let number = |name: &str| number(&file(name)?);
        let limit = self.limit(&number)?;
        let stat = file("memory.stat").unwrap_or_default();
        let lines = stat.lines().filter_map(|line| line.split_once(' '));
        let page_cache = lines.filter(|(name, _)| self.page_cache.contains(name));
        let reclaimable = page_cache.filter_map(|(_, n)| n.trim().parse().ok()).fold(0, u64::saturating_add);
        let spare = reclaimable.saturating_add(own_bytes);
        Some(limit.saturating_sub(number(self.used).unwrap_or(0).saturating_sub(spare)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2_MOUNT: &str = "24 30 0:21 / /sys rw - sysfs sysfs rw\n\
        29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_MOUNT: &str = "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    /// What is left with these files.
    fn left(files: &[(&str, &str)]) -> Option<u64> {
        left_with(0, files)
    }

    fn left_with(own_bytes: u64, files: &[(&str, &str)]) -> Option<u64> {
        least_left(own_bytes, &|path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        })
    }

    fn left_of_v2(files: &[(&str, &str)]) -> Option<u64> {
        let system = [("/proc/self/cgroup", "0::/a/b\n"), ("/proc/self/mountinfo", V2_MOUNT)];
        left(&[&system, files].concat())
    }

    #[test]
    fn version_2_counts_the_page_cache_as_free() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "1000\n"),
            ("/sys/fs/cgroup/a/b/memory.current", "700\n"),
            ("/sys/fs/cgroup/a/b/memory.stat", "anon 90\ninactive_file 300\nactive_file 50\nslab 9\n"),
        ];
        assert_eq!(left_of_v2(&files), Some(650));
        // Without the later files the limit alone is known, or the limit and what is used.
        assert_eq!(left_of_v2(&files[..2]), Some(300));
        assert_eq!(left_of_v2(&files[..1]), Some(1000));
        assert_eq!(left_of_v2(&files[1..]), None);
    }

    #[test]
    fn version_1_reads_its_own_files() {
        let files = [
            ("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/a\n1:cpu:/other\n0::/\n"),
            ("/proc/self/mountinfo", V1_MOUNT),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "900\n"),
            (
                "/sys/fs/cgroup/memory/a/memory.stat",
                "inactive_file 1\ntotal_inactive_file 200\ntotal_active_file 0\n",
            ),
            // What version 1 says where there is no limit.
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n"),
        ];
        assert_eq!(left(&files), Some(300));
        assert_eq!(left(&files[..2]), None);
        // What the process itself took is not more than all that is taken.
        assert_eq!(left_with(100, &files), Some(400));
        assert_eq!(left_with(5000, &files), Some(1000));
    }

    #[test]
    fn the_tightest_of_nested_groups_holds() {
        let inner = [("/sys/fs/cgroup/a/b/memory.max", "1000"), ("/sys/fs/cgroup/a/b/memory.current", "100")];
        let outer = [("/sys/fs/cgroup/a/memory.max", "5000"), ("/sys/fs/cgroup/a/memory.current", "4500")];
        assert_eq!(left_of_v2(&inner), Some(900));
        assert_eq!(left_of_v2(&[inner, outer].concat()), Some(500));
        assert_eq!(left_of_v2(&[inner[0], inner[1], ("/sys/fs/cgroup/memory.high", "800")]), Some(800));
    }

    #[test]
    fn no_limit_is_none_and_the_soft_one_counts() {
        let max = ("/sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(left_of_v2(&[max, ("/sys/fs/cgroup/a/b/memory.high", "max\n")]), None);
        assert_eq!(left_of_v2(&[max, ("/sys/fs/cgroup/a/b/memory.high", "70\n")]), Some(70));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root_of_the_mount() {
        let mount = "32 30 0:28 /docker/0a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let limit = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "77");
        for (group, expected) in [("/docker/0a", Some(77)), ("/docker/0a/in", Some(77)), ("/docker/0b", None)]
        {
            let memberships = format!("4:memory:{group}\n");
            let files = [("/proc/self/cgroup", memberships.as_str()), ("/proc/self/mountinfo", mount), limit];
            assert_eq!(left(&files), expected, "{group}");
        }
        // The path that the host knows, under a mount that shows the group alone.
        let host = [("/proc/self/cgroup", "4:memory:/docker/0a"), ("/proc/self/mountinfo", V1_MOUNT), limit];
        assert_eq!(left(&host), Some(77));
    }

    #[test]
    fn the_peak_is_that_of_the_innermost_group_with_a_limit() {
        let files = [
            ("/proc/self/cgroup", "4:memory:/a/b\n"),
            ("/proc/self/mountinfo", V1_MOUNT),
            ("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/a/b/memory.max_usage_in_bytes", "5\n"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/a/memory.max_usage_in_bytes", "900\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
            ("/sys/fs/cgroup/memory/memory.max_usage_in_bytes", "1900\n"),
        ];
        let of = |files: &[(&str, &str)]| {
            peak(&|path| {
                files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned())
            })
        };
        assert_eq!(of(&files), Some(900));
        assert_eq!(of(&files[..4]), None);
        assert_eq!(of(&files[6..]), None);
    }

    #[test]
    fn malformed_files_limit_nothing() {
        let limit = ("/sys/fs/cgroup/a/b/memory.max", "1000");
        for text in ["", "-1", "1e9", "18446744073709551616", "\0", "max max"] {
            assert_eq!(left_of_v2(&[("/sys/fs/cgroup/a/b/memory.max", text)]), None, "{text:?}");
            assert_eq!(left_of_v2(&[limit, ("/sys/fs/cgroup/a/b/memory.current", text)]), Some(1000));
            let used = ("/sys/fs/cgroup/a/b/memory.current", "400");
            assert_eq!(left_of_v2(&[limit, used, ("/sys/fs/cgroup/a/b/memory.stat", text)]), Some(600));
        }
        let stat = "inactive_file\ninactive_file x\nactive_file 18446744073709551615\ninactive_file 1\n";
        let used = ("/sys/fs/cgroup/a/b/memory.current", "1200");
        assert_eq!(left_of_v2(&[limit, used]), Some(0));
        assert_eq!(left_of_v2(&[limit, used, ("/sys/fs/cgroup/a/b/memory.stat", stat)]), Some(1000));
        for memberships in ["", "0", "0:", "::", "0::/a/b:c\n\n:", "4:memory:/"] {
            for mounts in ["", " - ", "- cgroup2", "1 2 3 - cgroup2 cgroup2 rw", "1 2 3 / - cgroup", V1_MOUNT]
            {
                let system = [("/proc/self/cgroup", memberships), ("/proc/self/mountinfo", mounts), limit];
                assert_eq!(left(&system), None, "{memberships:?} {mounts:?}");
            }
        }
    }
}
