//! What processes use: processor time and memory, read from `/proc`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::Path;

use url::Url;

/// Ticks of a second in `/proc/…/stat`: the kernel says 100 to every program, whatever it uses itself.
const TICKS: f64 = 100.0;

/// The processes that are looked at, by what they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes(BTreeMap<&'static str, Vec<u32>>);

impl Processes {
    /// These, in place of those that were called so.
    pub(super) fn add(&mut self, name: &'static str, pids: impl IntoIterator<Item = u32>) {
        self.0.insert(name, pids.into_iter().collect());
    }

    /// Those that are called so are looked at no longer.
    pub(super) fn remove(&mut self, name: &'static str) {
        self.0.remove(name);
    }

    /// Processor time so far, seconds.
    pub(super) fn cpu(&self) -> Cpu {
        let of = |(name, pids): (&&'static str, &Vec<u32>)| {
            let each: Vec<f64> = pids.iter().filter_map(|pid| cpu_of(*pid)).collect();
            (!each.is_empty()).then(|| (*name, each.iter().sum()))
        };
        Cpu(self.0.iter().filter_map(of).collect())
    }

    /// Forgets how much memory the processes had at most.
    pub(super) fn forget_peaks(&self) {
        for pid in self.0.values().flatten() {
            // Where this is not allowed the peak is that since the process began.
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").ok();
        }
    }

    /// The most resident memory since then, MiB: of several, that of the largest.
    pub(super) fn peaks_mib(&self) -> BTreeMap<&'static str, f64> {
        let of = |(name, pids): (&&'static str, &Vec<u32>)| {
            let most = pids.iter().filter_map(|pid| peak_mib(*pid)).max_by(f64::total_cmp)?;
            Some((*name, most))
        };
        self.0.iter().filter_map(of).collect()
    }
}

/// Processor time by process, seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cpu(BTreeMap<&'static str, f64>);

impl Cpu {
    /// What was used since an earlier look, for each 1,000 of something. A process that began meanwhile counts as a whole.
    pub(super) fn since(&self, earlier: &Self, count: u64) -> BTreeMap<&'static str, f64> {
        let thousands = count.max(1) as f64 / 1000.0;
        let used = |(name, seconds): (&&'static str, &f64)| {
            let before = earlier.0.get(name).filter(|before| *before <= seconds).copied().unwrap_or(0.0);
            (*name, (seconds - before) / thousands)
        };
        self.0.iter().map(used).collect()
    }

    /// What all of them used since an earlier look, seconds.
    pub(super) fn sum_since(&self, earlier: &Self) -> f64 {
        self.since(earlier, 1_000).values().sum()
    }
}

fn cpu_of(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    cpu_in(&stat)
}

/// User and system time of a line of `/proc/…/stat`. The name in it may hold anything.
fn cpu_in(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

fn peak_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// The process of the broker at this URL, where it runs on this machine.
///
/// # Errors
/// A sentence: why it is not known.
pub(super) fn broker(url: &Url) -> Result<u32, String> {
    let port = url.port().unwrap_or(if url.scheme() == "amqps" { 5671 } else { 5672 });
    let host = url.host_str().unwrap_or_default();
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses =
        (name, port).to_socket_addrs().map_err(|error| format!("{host} is not known: {error}"))?;
    if !addresses.map(|address: SocketAddr| address.ip()).any(is_ours) {
        return Err(format!("{host} is another machine"));
    }
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .flat_map(|table| listeners(&table, port))
        .collect();
    let pid = holder(&sockets).ok_or_else(|| {
        format!("no process that listens on port {port} may be looked at; it may be another user's, or a container's")
    })?;
    let what = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match what.trim() {
        // RabbitMQ is an Erlang program.
        "beam.smp" => Ok(pid),
        other => Err(format!("on port {port} listens {other}, which is no RabbitMQ itself")),
    }
}

/// Whether an address is one of this machine: only then can a socket have it.
fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// The sockets of a table in `/proc/net` that listen on a port.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
        listens.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    };
    table.lines().skip(1).filter_map(of).collect()
}

/// The process that holds one of these sockets.
fn holder(sockets: &[String]) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.filter_map(Result::ok).find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let held = std::fs::read_dir(process.path().join("fd")).ok()?;
        held.filter_map(Result::ok)
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|target| sockets.iter().any(|socket| target == Path::new(socket)))
            .then_some(pid)
    })
}

/// What is measured on.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Machine {
    /// Cores that this process may use.
    pub(super) cores: usize,
    /// The processor.
    pub(super) processor: String,
    /// Memory, GiB.
    pub(super) memory_gib: f64,
    /// The kernel.
    pub(super) kernel: String,
    /// The file system under the store.
    pub(super) file_system: String,
    /// Whether this is a release build.
    pub(super) release_build: bool,
}

impl Machine {
    /// This one, with the store in this directory.
    pub(super) fn this(store: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory_kib: f64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            memory_gib: (memory_kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/self/mounts"), store),
            release_build: !cfg!(debug_assertions),
        }
    }
}

/// The kind of file system under a path: that of the longest mount point which it begins with.
fn file_system(mounts: &str, path: &Path) -> String {
    let of = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        path.starts_with(&point).then_some((point.len(), kind))
    };
    // Of two at the same place the later one covers the earlier.
    mounts
        .lines()
        .filter_map(of)
        .max_by_key(|(length, _)| *length)
        .map_or("unknown".to_owned(), |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_whatever_a_process_is_called() {
        let stat = "17 (a b) c) S 1 17 17 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_in(stat), Some(3.0));
        assert_eq!(cpu_in("nonsense"), None);
        assert!(cpu_of(std::process::id()).is_some());
        assert!(peak_mib(std::process::id()).is_some_and(|mib| mib > 1.0));
    }

    #[test]
    fn what_was_used_is_counted_for_each_thousand() {
        let earlier = Cpu([("worker", 1.0), ("router", 9.0)].into());
        let later = Cpu([("worker", 3.0), ("router", 0.5), ("sink", 1.0)].into());
        let used = later.since(&earlier, 2_000);
        // The router that used less than before is another process.
        assert_eq!(used, [("router", 0.25), ("sink", 0.5), ("worker", 1.0)].into());
    }

    #[test]
    fn listeners_are_found_by_their_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1628 00000000:0000 0A 00000000:00000000 00:00000000 00000000   109        0 4711 1 0\n\
             1: 0100007F:1628 0100007F:9999 01 00000000:00000000 00:00000000 00000000   109        0 4712 1 0\n\
             2: 0100007F:1629 00000000:0000 0A 00000000:00000000 00:00000000 00000000   109        0 4713 1 0\n";
        assert_eq!(listeners(table, 5672), ["socket:[4711]"]);
        assert!(listeners("", 5672).is_empty());
    }

    #[test]
    fn the_holder_of_a_socket_is_found_among_the_processes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        assert_eq!(holder(&listeners(&table, port)), Some(std::process::id()));
        let url = Url::parse(&format!("amqp://127.0.0.1:{port}")).unwrap();
        assert!(broker(&url).unwrap_err().contains("no RabbitMQ"), "it is this test");
        let far = Url::parse("amqp://192.0.2.1").unwrap();
        assert_eq!(broker(&far).unwrap_err(), "192.0.2.1 is another machine");
    }

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/var/x")), "ext4");
        assert_eq!(file_system(mounts, Path::new("/tmp/x")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/tmpx")), "ext4");
        assert_eq!(file_system("", Path::new("/")), "unknown");
    }
}
