//! A disk for tests that fails, fills up, and forgets what was not synced.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use fastrand::Rng;
use redb::StorageBackend;

use crate::locks::Mutex;

use super::{DataFile, builder};

/// A disk in memory: what was written and not synced is lost at a power cut, in parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    bytes: Mutex<Bytes>,
    is_failing: AtomicBool,
    /// Writes until the power is cut; 0 for never.
    writes_left: AtomicU64,
    /// Blocks that it has; 0 for no end of them.
    blocks: AtomicU64,
    /// Of these, what the reserve takes.
    reserved: AtomicU64,
}

#[derive(Debug, Default)]
struct Bytes {
    /// What the system shows.
    seen: Vec<u8>,
    /// What is on the platter.
    synced: Vec<u8>,
    /// Since the last sync: where and what. `None`: the length was changed to that.
    pending: Vec<(u64, Option<Vec<u8>>)>,
    /// Blocks that were ever written: files have holes.
    used: HashSet<u64>,
}

impl Disk {
    /// A file on it.
    pub(crate) fn file(&self, what: &'static str) -> DataFile {
        let (disk, with_reserve) = (self.clone(), self.clone());
        let open = move || Ok(builder().create_with_backend(disk.clone())?);
        DataFile::opened_by(what, open, move |is_kept| with_reserve.reserve(is_kept))
    }

    /// From now on it takes nothing, or does again.
    pub(crate) fn fail(&self, is_failing: bool) {
        self.0.is_failing.store(is_failing, Relaxed);
    }

    /// From now on it has so many bytes, written ones included.
    pub(crate) fn has_bytes(&self, bytes: u64) {
        self.0.blocks.store(bytes / BLOCK_BYTES, Relaxed);
    }

    /// As much as there is, up to a limit.
    fn reserve(&self, is_kept: bool) {
        let bytes = self.0.bytes.lock();
        let blocks = self.0.blocks.load(Relaxed);
        let free = blocks.saturating_sub(bytes.used.len() as u64);
        let most = RESERVE_BLOCKS.min(blocks / 4);
        let reserved = if is_kept { free.min(most) } else { 0 };
        self.0.reserved.store(reserved, Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.is_failing.load(Relaxed) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn count_write(&self) -> io::Result<()> {
        self.check()?;
        if self.0.writes_left.load(Relaxed) > 0 && self.0.writes_left.fetch_sub(1, Relaxed) == 1 {
            self.0.is_failing.store(true, Relaxed);
            return Err(io::Error::other("the power is cut"));
        }
        Ok(())
    }

    pub(crate) fn cut_power_after(&self, writes: u64) {
        self.0.writes_left.store(writes, Relaxed);
    }

    /// Some of what was not synced is there, some is not, one piece is torn.
    pub(crate) fn come_back(&self, rng: &mut Rng) {
        let mut bytes = self.0.bytes.lock();
        let mut disk = std::mem::take(&mut bytes.synced);
        for (offset, data) in std::mem::take(&mut bytes.pending) {
            let offset = offset as usize;
            match data {
                None => disk.resize(offset, 0),
                Some(_) if rng.bool() => {}
                Some(mut data) => {
                    if rng.u8(..4) == 0 {
                        data.truncate(rng.usize(..=data.len()));
                    }
                    if disk.len() < offset + data.len() {
                        disk.resize(offset + data.len(), 0);
                    }
                    disk[offset..offset + data.len()].copy_from_slice(&data);
                }
            }
        }
        bytes.seen = disk.clone();
        bytes.synced = disk;
        self.0.writes_left.store(0, Relaxed);
        self.0.is_failing.store(false, Relaxed);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        let bytes = self.0.bytes.lock();
        let offset = offset as usize;
        let from = bytes.seen.get(offset..offset + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.count_write()?;
        let mut bytes = self.0.bytes.lock();
        bytes.seen.resize(len as usize, 0);
        bytes.pending.push((len, None));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.count_write()?;
        let mut bytes = self.0.bytes.lock();
        bytes.synced = bytes.seen.clone();
        bytes.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.count_write()?;
        let mut bytes = self.0.bytes.lock();
        let end = offset + data.len() as u64;
        let blocks = offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        let more = blocks.clone().filter(|b| !bytes.used.contains(b)).count();
        let has = self.0.blocks.load(Relaxed);
        let taken = bytes.used.len() as u64 + self.0.reserved.load(Relaxed);
        if has > 0 && more > 0 && taken + more as u64 > has {
            return Err(io::ErrorKind::StorageFull.into());
        }
        bytes.used.extend(blocks);
        let start = offset as usize;
        bytes.seen[start..start + data.len()].copy_from_slice(data);
        bytes.pending.push((offset, Some(data.to_vec())));
        Ok(())
    }
}

const BLOCK_BYTES: u64 = 4096;
const RESERVE_BLOCKS: u64 = super::RESERVE_BYTES / BLOCK_BYTES;
