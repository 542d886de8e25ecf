//! `postrider completions` and `postrider man`: what a shell and `man` need to know of the command.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Context;
use crate::args::Cli;
use crate::exit::{Exit, Failure};

/// Prints the script for a shell.
///
/// # Errors
/// When standard output cannot be written.
pub fn completions(context: &Context, shell: Shell) -> Result<Exit, Failure> {
    context.out.text(script(shell).trim_end())?;
    Ok(Exit::Ok)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "postrider", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes a page for each command into a directory.
///
/// # Errors
/// [`Failure`] when a file cannot be written.
pub fn man(context: &Context, dir: &Path) -> Result<Exit, Failure> {
    write_pages(dir).map_err(|error| {
        Failure::new(Exit::Other, format!("cannot write the manual to {}", dir.display()), error)
            .next("give --dir a directory that you may write to")
    })?;
    context.out.note(&format!(
        "the manual is in {}: man {}",
        dir.display(),
        dir.join("postrider.1").display()
    ));
    Ok(Exit::Ok)
}

fn write_pages(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    /// The pages of a command and of those below it.
    fn pages(command: &clap::Command, name: &str, all: &mut Vec<String>) {
        all.push(format!("{name}.1"));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            pages(below, &format!("{name}-{}", below.get_name()), all);
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let man = dir.path().join("share/man1");
        write_pages(&man).unwrap();
        let mut expected = Vec::new();
        pages(&Cli::command(), "postrider", &mut expected);
        expected.sort();
        let files = std::fs::read_dir(&man).unwrap();
        let mut written: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        written.sort();
        assert_eq!(written, expected);
        assert!(written.contains(&"postrider-webhook-rotate-secret.1".to_owned()), "{written:?}");
        let page = std::fs::read_to_string(man.join("postrider-webhook-rotate-secret.1")).unwrap();
        assert!(page.contains(".TH") && page.contains("overlap"), "{page}");
    }

    #[test]
    fn bash_takes_its_script() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postrider.bash");
        std::fs::write(&file, script(Shell::Bash)).unwrap();
        let checked = std::process::Command::new("bash").arg("-n").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && said.is_empty(), "{said}");
        // Sourced, it completes what is there.
        let complete = format!(
            ". '{}'; COMP_WORDS=(postrider topo); COMP_CWORD=1; _postrider postrider topo postrider; echo \"${{COMPREPLY[*]}}\"",
            file.display()
        );
        let completed = std::process::Command::new("bash").arg("-c").arg(complete).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "topology", "{completed:?}");
    }

    #[test]
    fn every_shell_has_a_script_with_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }
}
