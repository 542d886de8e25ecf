//! Secrets: read from files that only their owner can read, made where none was given, never shown.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

/// The most bytes that are read of a file with a secret.
const MAX_SECRET_BYTES: u64 = 16 * 1024;

/// Text that shows nothing of itself and is wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Refuses a file that others than its owner and its group may read or write.
pub(super) fn check_mode(path: &Path, file: &File) -> Result<(), Failure> {
    let mode = file.metadata().map_err(|error| unreadable(path, &error))?.mode();
    if mode & 0o006 == 0 {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{} holds a secret and everybody may read it", path.display()),
        format!("its mode is {:04o}", mode & 0o7777),
    )
    .next(format!("chmod 600 {}", path.display())))
}

/// Reads a secret from a file, without the line's end.
pub(super) fn read(path: &Path) -> Result<Secret, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    check_mode(path, &file)?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_SECRET_BYTES).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(Failure::usage(format!("{} should hold a secret", path.display()), "it is empty"));
    }
    Ok(Secret::new(secret))
}

/// Reads a secret from a file or, with `-`, from standard input.
pub fn read_file_or_stdin(path: &Path) -> Result<Secret, Failure> {
    if path != Path::new("-") {
        return read(path);
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .take(MAX_SECRET_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage("cannot read the secret from standard input", error))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(Failure::usage("standard input should hold a secret", "it is empty"));
    }
    Ok(Secret::new(secret))
}

/// Writes a secret to a new file that only its owner may read.
pub fn write_new(path: &Path, secret: &Secret) -> Result<(), Failure> {
    let unwritten = |error| Failure::new(Exit::Other, format!("cannot write {}", path.display()), error);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unwritten)?;
    file.write_all(secret.reveal().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .map_err(unwritten)
}

/// A random admin token.
pub fn new_token() -> Secret {
    let random: [u8; 32] = rand::random();
    Secret::new(format!("pat_{}", URL_SAFE_NO_PAD.encode(random)))
}

/// A random master key.
pub fn new_master_key() -> Secret {
    let random: [u8; 32] = rand::random();
    Secret::new(STANDARD.encode(random))
}

/// The directory in which a single machine keeps its store, its admin token and its master key.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// This directory, which may not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of the admin token.
    pub fn admin_token_file(&self) -> PathBuf {
        self.0.join("admin-token")
    }

    /// The file of the master key.
    pub fn master_key_file(&self) -> PathBuf {
        self.0.join("master-key")
    }

    /// The embedded store.
    pub fn store_file(&self) -> PathBuf {
        self.0.join("postrider.db")
    }

    /// Makes the directory, for its owner alone.
    pub fn create(&self) -> Result<(), Failure> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(|error| {
            Failure::new(Exit::Other, format!("cannot make the state directory {}", self.0.display()), error)
                .next("point POSTRIDER_STATE_DIR at a directory that this user may write")
        })
    }

    /// The secret in `path`, made by `make` if there is none; true when it was made.
    pub fn read_or_make(&self, path: &Path, make: fn() -> Secret) -> Result<(Secret, bool), Failure> {
        if path.exists() {
            return Ok((read(path)?, false));
        }
        self.create()?;
        let secret = make();
        write_new(path, &secret)?;
        Ok((secret, true))
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(***)");
    }

    #[test]
    fn a_file_that_everybody_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        write_new(&path, &Secret::new("t0ken")).unwrap();
        assert_eq!(read(&path).unwrap().reveal(), "t0ken");
        for mode in [0o644, 0o604, 0o602] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let failure = read(&path).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.next.unwrap().starts_with("chmod 600 "), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).is_ok());
    }

    #[test]
    fn secrets_are_made_once_with_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("a/b"));
        let file = state.master_key_file();
        let (made, new) = state.read_or_make(&file, new_master_key).unwrap();
        assert!(new);
        assert!(postrider_core::seal::MasterKey::parse(made.reveal()).is_ok());
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(state.path()).unwrap().mode() & 0o777, 0o700);
        let (again, new) = state.read_or_make(&file, new_master_key).unwrap();
        assert!(!new && again == made);
    }

    #[test]
    fn an_empty_file_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        write_new(&path, &Secret::new("")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("it is empty"));
    }
}
