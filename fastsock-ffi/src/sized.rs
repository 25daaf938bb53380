//! Structs that come with their size, so that an older or newer host and this library understand each other.

use std::ptr;

use crate::status::Failure;

/// Checks that a struct of the host has at least the fields of the first version.
pub(crate) fn whole(given: usize, least: usize, what: &str) -> Result<(), Failure> {
    if (least..=MOST_BYTES).contains(&given) {
        return Ok(());
    }
    Err(Failure::argument(format!(
        "{what}: the size {given} is not that of any version"
    )))
}

/// Writes what the host's version of a struct has room for, and zeros where it is newer than we are.
///
/// # Safety
/// `size` bytes at `to` can be written.
pub(crate) unsafe fn write_sized<T: Copy>(from: &T, to: *mut T, size: usize) {
    let known = size.min(size_of::<T>());
    // SAFETY: by contract, and `known` bytes can be read.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(from).cast::<u8>(), to.cast(), known);
        ptr::write_bytes(to.cast::<u8>().add(known), 0, size - known);
    }
}

/// No version of a struct will be longer.
const MOST_BYTES: usize = 4096;
