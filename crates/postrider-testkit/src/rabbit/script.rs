use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::workspace_dir;

/// Runs `dev/broker` and returns what it prints.
pub(super) fn broker(action: &str, options: &[&str], directory: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(workspace_dir().join("dev/broker"));
    command.arg(action).args(options).arg(directory);
    output(&mut command).with_context(|| format!("dev/broker {action}"))
}

/// The same without blocking the runtime.
pub(super) async fn broker_async(
    action: &'static str,
    options: Vec<String>,
    directory: &Path,
) -> anyhow::Result<String> {
    let directory = directory.to_owned();
    let run = move || {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        broker(action, &options, &directory)
    };
    tokio::task::spawn_blocking(run).await?
}

/// Runs the `rabbitmqctl` of the node in a directory and returns what it prints.
pub(super) async fn ctl(directory: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(workspace_dir().join("dev/broker"));
    command.arg("ctl").arg(directory).args(arguments);
    let what = format!("dev/broker ctl {}", arguments.join(" "));
    tokio::task::spawn_blocking(move || output(&mut command).context(what)).await?
}

/// Runs a shell command of the tester's own and returns what it prints.
pub(super) async fn shell(line: String) -> anyhow::Result<String> {
    let run = move || {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&line);
        output(&mut command).with_context(|| format!("`{line}`"))
    };
    tokio::task::spawn_blocking(run).await?
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
