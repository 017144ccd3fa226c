//! Paths that CFITSIO takes for what they are.

use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// CFITSIO keeps names in buffers of 1024 bytes.
const MAX_PATH_BYTES: usize = 1000;

/// A path to an existing file, free of CFITSIO's extended file name syntax. Lives as long as the open file.
pub(super) struct LiteralPath {
    path: PathBuf,
    is_link: bool,
}

impl LiteralPath {
    /// The path itself where it is harmless, else a temporary link to it.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let metadata = path.metadata().map_err(|e| Error::io(format!("cannot be read ({e})"), path))?;
        // A pipe would be waited for without end.
        if !metadata.is_file() {
            let found = if metadata.is_dir() { "a folder, not one of its files" } else { "not a regular file" };
            return Err(Error::io(found, path));
        }
        if metadata.len() == 0 {
            return Err(Error::io("the file is empty", path));
        }
        if is_harmless(path) {
            return Ok(Self { path: path.to_owned(), is_link: false });
        }
        Ok(Self { path: link_to(path)?, is_link: true })
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LiteralPath {
    fn drop(&mut self) {
        if self.is_link {
            // A link that is left over does no harm, and there is nobody to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

pub(super) fn is_harmless(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return false };
    let after_drive = if cfg!(windows) && text.as_bytes().get(1) == Some(&b':') { &text[2..] } else { text };
    let is_plain =
        |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || std::path::is_separator(c) || "._-".contains(c);
    text.len() <= MAX_PATH_BYTES
        && after_drive.chars().all(is_plain)
        && !text.starts_with('-')
        && !text.to_ascii_lowercase().starts_with("stdin")
        && !text.ends_with(".imh")
}

#[cfg(unix)]
fn link_to(path: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let refuse = |why: String| Error::io(format!("a name with special characters needs a temporary link: {why}"), path);
    let target = std::path::absolute(path).map_err(|e| refuse(e.to_string()))?;
    loop {
        let name = format!("skystreak-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let link = std::env::temp_dir().join(name);
        if !is_harmless(&link) {
            return Err(refuse(format!("{} has some too", link.display())));
        }
        match std::os::unix::fs::symlink(&target, &link) {
            Ok(()) => return Ok(link),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(refuse(format!("{} cannot be made ({e})", link.display()))),
        }
    }
}

#[cfg(not(unix))]
fn link_to(path: &Path) -> Result<PathBuf> {
    Err(Error::io("file names may hold only letters, digits and . _ - on this system", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_cfitsio_would_interpret() {
        for name in ["a.fits", "/data/night_1/ä-2.fits.fz", "../x.fits.gz"] {
            assert!(is_harmless(Path::new(name)), "{name}");
        }
        for name in ["a[1].fits", "a(b).fits", "a.fits+1", "http://x/a.fits", "-", "stdin.fits", "~/a", "a b", "x.imh"]
        {
            assert!(!is_harmless(Path::new(name)), "{name}");
        }
    }
}
