//! The real binary as a child process.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{eventually, http, must, not_run, patience, patience::within, target_dir};

/// The `postrider` binary under test: `POSTRIDER_TEST_BINARY`, else the debug build.
pub fn binary() -> PathBuf {
    let binary = env::var_os("POSTRIDER_TEST_BINARY")
        .map_or_else(|| target_dir().join("debug/postrider"), PathBuf::from);
    assert!(
        binary.is_file(),
        "{} is missing; build it with `cargo build --workspace --all-targets`",
        binary.display()
    );
    binary
}

/// The Python with the packages of `dev/requirements.txt`, made by `dev/setup test`.
///
/// Without it the running test is counted as not run, and the answer is `None`: return from the test then.
pub fn python() -> Option<PathBuf> {
    let python = target_dir().join("python/bin/python");
    if !python.is_file() {
        not_run("there is no Python for the tests; run dev/setup test");
        return None;
    }
    Some(python)
}

/// Where Node finds the packages of `dev/node-packages.txt`, installed by `dev/setup test`: the value of `NODE_PATH`.
///
/// Without them the running test is counted as not run, and the answer is `None`: return from the test then.
pub fn node_path() -> Option<PathBuf> {
    let node = target_dir().join("node");
    if !node.join("packages.txt").is_file() {
        not_run("there are no packages of npm for the tests; install node and npm and run dev/setup test");
        return None;
    }
    Some(node.join("node_modules"))
}

/// A port of 127.0.0.1 that is free now. No two calls get the same, nor do tests that run side by side.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Above the range from which systems take ports for outgoing connections.
    const FIRST: u16 = 61_000;
    const COUNT: u32 = 4_500;
    let start = std::process::id().wrapping_mul(131);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % COUNT;
        let port = FIRST + u16::try_from(offset).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {FIRST} and {}", u32::from(FIRST) + COUNT);
}

/// Runs the binary to its end and returns what it printed; panics when it takes longer than patience lasts.
///
/// It starts with the environment of [`Postrider`].
pub async fn run<'a>(
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    env: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Output {
    let home = must("make a home directory", tempfile::tempdir());
    let mut command = command(&binary(), home.path());
    command.args(args).envs(env).stdin(Stdio::null());
    let what = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    match tokio::time::timeout(patience(), command.output()).await {
        Ok(output) => must(&what, output),
        Err(_) => panic!("{what} did not end within {:?}", patience()),
    }
}

fn command(binary: &Path, home: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("HOME", home).current_dir(home);
    if let Some(path) = env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// How to start the binary.
#[derive(Debug)]
pub struct Start {
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    binary: Option<PathBuf>,
    through: Vec<OsString>,
    output: Option<Stdio>,
}

impl Start {
    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Sets environment variables.
    pub fn envs<'a, V: Into<OsString>>(mut self, env: impl IntoIterator<Item = (&'a str, V)>) -> Self {
        self.env.extend(env.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        self
    }

    /// Takes another binary than that of [`binary`].
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = Some(binary.into());
        self
    }

    /// Starts it by way of another program, which ends up as it: `ip netns exec NAME`, `prlimit --nofile=80`. Signals then
    /// reach it as ever.
    pub fn through(mut self, program: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.through.extend(program.into_iter().map(Into::into));
        self
    }

    /// Sends what it logs there instead of into the log file, which stays empty then.
    pub fn output(mut self, output: impl Into<Stdio>) -> Self {
        self.output = Some(output.into());
        self
    }

    /// Starts it.
    pub fn start(self) -> Postrider {
        must("start the binary", self.try_start())
    }

    fn try_start(self) -> anyhow::Result<Postrider> {
        let home = tempfile::Builder::new().prefix("postrider-").tempdir()?;
        let log = File::create(home.path().join("log")).context("make a log file")?;
        let binary = self.binary.unwrap_or_else(binary);
        let mut line = self.through.into_iter().chain([binary.into_os_string()]).chain(self.args);
        let program = line.next().context("no program")?;
        let mut command = command(Path::new(&program), home.path());
        command.args(line).envs(self.env).stdin(Stdio::null());
        let what = format!("{command:?}");
        match self.output {
            None => command.stdout(log.try_clone()?).stderr(log),
            Some(output) => command.stdout(Stdio::null()).stderr(output),
        };
        let child = command.spawn().context(what.clone())?;
        Ok(Postrider { child: Mutex::new(child), home, what })
    }
}

/// A running `postrider`, killed with the value.
///
/// It starts with a clean environment: `PATH`, and a new `HOME` that is also its working directory.
/// If the test fails, the end of its log goes to the test's output.
#[derive(Debug)]
pub struct Postrider {
    child: Mutex<Child>,
    home: TempDir,
    what: String,
}

impl Postrider {
    /// Describes a start with these arguments.
    pub fn with(args: impl IntoIterator<Item = impl Into<OsString>>) -> Start {
        Start { args: Vec::new(), env: Vec::new(), binary: None, through: Vec::new(), output: None }
            .args(args)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Its home and working directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What it wrote to both outputs so far.
    pub fn log(&self) -> String {
        let bytes = must("read the log", fs::read(self.home.path().join("log")));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// SIGSTOP: it stands still, with its connections open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // Of an ended child the id may belong to somebody else by now.
        if must("look at the child", child.try_wait()).is_some() {
            return;
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = must("the child's process id", pid.context("it is out of range"));
        must("signal the child", kill_process(pid, signal));
    }

    /// Its exit status, if it has ended.
    pub fn exited(&self) -> Option<ExitStatus> {
        must("look at the child", self.child().try_wait())
    }

    /// Waits for its end; panics when it takes longer.
    pub async fn wait_exit(&self, limit: Duration) -> ExitStatus {
        match within(limit, async || self.exited()).await {
            Some(status) => status,
            None => panic!("{} still runs after {limit:?}", self.what),
        }
    }

    /// Waits until `http://address/readyz` answers 200; panics at once when the process ends instead.
    pub async fn wait_ready(&self, address: impl ToString) {
        let url = format!("http://{}/readyz", address.to_string());
        let http = http::client();
        eventually(&format!("{url} answers 200"), async || {
            if let Some(status) = self.exited() {
                panic!("{} ended with {status} instead of becoming ready", self.what);
            }
            http.get(&url).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postrider {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself; nothing may panic here.
        child.kill().ok();
        child.wait().ok();
        drop(child);
        if thread::panicking() {
            show_log(&self.what, &self.home.path().join("log"));
        }
    }
}

#[expect(clippy::print_stderr, reason = "the test harness shows it with the failed test")]
fn show_log(what: &str, log: &Path) {
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(100)..].join("\n");
    eprintln!("--- the last of {} log lines of {what}\n{last}\n---", lines.len());
}
