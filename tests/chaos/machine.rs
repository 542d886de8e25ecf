//! What a row needs of the machine: root, namespaces, file systems that break, tools.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether this is root.
pub(crate) fn root() -> bool {
    run("id", ["-u"]).is_ok_and(|id| id == "0")
}

/// What a row needs that this machine lacks; nothing when it has all of it. `root` is a need like a program.
pub(crate) fn lacks(needs: &[&str]) -> Option<String> {
    let lacking: Vec<&str> =
        needs.iter().copied().filter(|need| if *need == "root" { !root() } else { !has(need) }).collect();
    (!lacking.is_empty()).then(|| format!("this machine lacks: {}", lacking.join(", ")))
}

fn has(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(
    program: &str,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{command:?}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The same for a line of words; panics when it fails.
pub(crate) fn must(line: &str) -> String {
    let mut words = line.split_whitespace();
    run(words.next().unwrap(), words).unwrap()
}

/// SIGKILL to a process and to those that it leads, and their end.
pub(crate) fn kill_group(pid: u32) {
    must(&format!("kill -KILL -- -{pid}"));
    for _ in 0..200 {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("process {pid} survives kill -9");
}

/// A network namespace with one line to the rest of the machine, removed with the value.
pub(crate) struct Namespace {
    name: String,
    link: String,
    /// The machine's end of the line: listen here for who is inside.
    pub(crate) outside: IpAddr,
    /// Another address there.
    pub(crate) elsewhere: IpAddr,
}

impl Namespace {
    /// Makes one. Needs root, `ip` and `iptables`.
    pub(crate) fn create() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let process = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pr-{process}-{number}");
        let link = format!("pr{process}x{number}");
        // A network of its own for each, so that two test processes hardly ever meet.
        let (high, low) = (u8::try_from(process % 200).unwrap(), number.wrapping_mul(4));
        let outside = Ipv4Addr::new(10, 99, high, low + 1);
        let elsewhere = Ipv4Addr::new(10, 98, high, low + 1);
        must(&format!("ip netns add {name}"));
        let namespace = Self {
            name: name.clone(),
            link: link.clone(),
            outside: outside.into(),
            elsewhere: elsewhere.into(),
        };
        must(&format!("ip link add {link} type veth peer name inside netns {name}"));
        namespace.exec("ip link set lo up");
        for second in [99, 98] {
            must(&format!("ip addr add 10.{second}.{high}.{}/30 dev {link}", low + 1));
            namespace.exec(&format!("ip addr add 10.{second}.{high}.{}/30 dev inside", low + 2));
        }
        must(&format!("ip link set {link} up"));
        namespace.exec("ip link set inside up");
        namespace
    }

    /// Has names looked up at the machine's end of the line.
    pub(crate) fn resolver(&self) {
        let directory = PathBuf::from("/etc/netns").join(&self.name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("resolv.conf"), format!("nameserver {}\n", self.outside)).unwrap();
    }

    /// What to start a program through so that it runs inside.
    pub(crate) fn through(&self) -> [OsString; 4] {
        ["ip", "netns", "exec", &self.name].map(Into::into)
    }

    /// Runs a line of words inside.
    pub(crate) fn exec(&self, line: &str) -> String {
        must(&format!("ip netns exec {} {line}", self.name))
    }

    /// Leaves it these local ports, the first and the last.
    pub(crate) fn ports(&self, first: u16, last: u16) {
        let setting = format!("net.ipv4.ip_local_port_range={first} {last}");
        run("ip", ["netns", "exec", &self.name, "sysctl", "-q", "-w", &setting]).unwrap();
    }

    /// Drops every packet in both directions: no end of a connection hears of it.
    pub(crate) fn partition(&self) {
        self.exec("iptables -A INPUT -i inside -j DROP");
        self.exec("iptables -A OUTPUT -o inside -j DROP");
    }

    /// Adds a rule of iptables.
    pub(crate) fn rule(&self, rule: &str) {
        self.exec(&format!("iptables -A {rule}"));
    }

    /// Takes all rules away.
    pub(crate) fn heal(&self) {
        self.exec("iptables -F");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run("ip", ["link", "del", &self.link]).ok();
        run("ip", ["netns", "del", &self.name]).ok();
        fs::remove_dir_all(PathBuf::from("/etc/netns").join(&self.name)).ok();
    }
}

/// An ext4 file system of fixed size in a file, unmounted with the value.
pub(crate) struct Disk {
    file: PathBuf,
    /// Where it is mounted.
    pub(crate) path: PathBuf,
    _home: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts one. Needs root and `mkfs.ext4`.
    pub(crate) fn create(mebibytes: u64) -> Self {
        let parent = postrider_testkit::target_dir().join("test-nodes");
        fs::create_dir_all(&parent).unwrap();
        let home = tempfile::Builder::new().prefix("disk-").tempdir_in(parent).unwrap();
        let (file, path) = (home.path().join("image"), home.path().join("mounted"));
        fs::File::create(&file).unwrap().set_len(mebibytes << 20).unwrap();
        fs::create_dir(&path).unwrap();
        run("mkfs.ext4", [OsStr::new("-q"), OsStr::new("-m"), OsStr::new("0"), file.as_os_str()]).unwrap();
        let disk = Self { file, path, _home: home };
        disk.mount();
        disk
    }

    fn mount(&self) {
        run("mount", [OsStr::new("-o"), OsStr::new("loop"), self.file.as_os_str(), self.path.as_os_str()])
            .unwrap();
    }

    /// Loses all that is not on disk and takes nothing more, as when the power is cut: the journal is not flushed.
    pub(crate) fn cut_power(&self) {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
        let script = "import fcntl, os, struct, sys\n\
                      fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run("python3", [OsStr::new("-c"), OsStr::new(script), self.path.as_os_str()]).unwrap();
    }

    /// Mounts it again, after everybody who used it has ended.
    pub(crate) fn come_back(&self) {
        run("umount", [self.path.as_os_str()]).unwrap();
        self.mount();
    }

    /// Fills it up, but for so many bytes.
    pub(crate) fn fill(&self, but_bytes: u64) {
        let free =
            run("df", [OsStr::new("--output=avail"), OsStr::new("-B1"), self.path.as_os_str()]).unwrap();
        let free: u64 = free.lines().last().unwrap().trim().parse().unwrap();
        let length = free.saturating_sub(but_bytes).to_string();
        let filler = self.path.join("filler");
        run("fallocate", [OsStr::new("-l"), OsStr::new(&length), filler.as_os_str()]).unwrap();
    }

    /// Gives back what was filled.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if run("umount", [self.path.as_os_str()]).is_err() {
            // Somebody still has a file open; it goes when they do.
            run("umount", [OsStr::new("-l"), self.path.as_os_str()]).ok();
        }
    }
}

/// `strace` that makes system calls of a running process fail; it lets go with the value.
pub(crate) struct Injected(Child);

impl Injected {
    /// `what` is for `strace -e`: `inject=fdatasync:error=EIO`.
    pub(crate) fn attach(pid: u32, what: &str) -> Self {
        let calls = what.trim_start_matches("inject=").split(':').next().unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-o", "/dev/null", "-e"]).arg(format!("trace={calls}")).args(["-e", what]);
        command
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        // SIGINT has it let go of the process.
        run("kill", ["-INT", &self.0.id().to_string()]).ok();
        self.0.wait().ok();
    }
}

/// A cgroup of the first version with a memory limit, removed with the value.
pub(crate) struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// Makes one. Needs root and the memory controller.
    pub(crate) fn create(name: &str, mebibytes: u64) -> Self {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/postrider-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("memory.limit_in_bytes"), (mebibytes << 20).to_string()).unwrap();
        Self(path)
    }

    /// Puts a process under it.
    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// The most that it has used, MiB, and how often the limit was met.
    pub(crate) fn used(&self) -> (u64, u64) {
        let read =
            |name: &str| -> u64 { fs::read_to_string(self.0.join(name)).unwrap().trim().parse().unwrap() };
        (read("memory.max_usage_in_bytes") >> 20, read("memory.failcnt"))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}
