//! How a file that has changed is told from one that has not, without reading it.

use std::{
    fs,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    path::Path,
    time::SystemTime,
};

/// What changes when the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// A hash of its path without symbolic links.
    pub(crate) target: u64,
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
    /// When its name, its permissions or its content changed last; nobody can set it back.
    pub(crate) changed: (i64, i64),
    /// Whether that was after its content did.
    pub(crate) is_moved: bool,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let target = fs::canonicalize(path)?;
        let metadata = fs::metadata(&target)?;
        #[cfg(unix)]
        let (inode, changed, is_moved) = {
            use std::os::unix::fs::MetadataExt;
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            let is_moved = changed > (metadata.mtime(), metadata.mtime_nsec());
            (metadata.ino(), changed, is_moved)
        };
        #[cfg(not(unix))]
        let (inode, changed, is_moved) = (0, (0, 0), false);
        Ok(Self {
            target: BuildHasherDefault::<DefaultHasher>::default().hash_one(target),
            inode,
            bytes: metadata.len(),
            modified: metadata.modified()?,
            changed,
            is_moved,
        })
    }
}
