//! Structs that come with their size, so that an older or newer host and this library understand each other.

use std::{mem::MaybeUninit, ptr, slice};

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

/// Copies a struct of the host that begins with its size: zeros where the host's version is older than ours. Also whether a field is
/// set that ours does not have, which [`unknown_field`] refuses.
///
/// # Safety
/// `from` points to a struct of as many bytes as its first field says, a `usize`; all zeros is a value of `T`.
pub(crate) unsafe fn read_sized<T: Copy>(
    from: *const T,
    least: usize,
    what: &str,
) -> Result<(T, bool), Failure> {
    // SAFETY: the size is the first field in every version.
    let given = unsafe { from.cast::<usize>().read() };
    if !(least..=MOST_BYTES).contains(&given) {
        return Err(Failure::argument(format!(
            "{what}: the struct_size {given} is not that of any version"
        )));
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    let known = given.min(size_of::<T>());
    // SAFETY: `given` bytes can be read, `size_of` can be written; by contract all zeros is a value.
    let copy = unsafe {
        ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast(), known);
        copy.assume_init()
    };
    // SAFETY: as above; these are the fields of a newer header.
    let unknown = unsafe { slice::from_raw_parts(from.cast::<u8>().add(known), given - known) };
    Ok((copy, unknown.iter().any(|byte| *byte != 0)))
}

/// A field that only a newer version has: what it asks for would not happen.
pub(crate) fn unknown_field(is_set: bool, what: &str) -> Result<(), Failure> {
    if !is_set {
        return Ok(());
    }
    Err(Failure::argument(format!(
        "{what}: a field is set that this version of the library does not have"
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

/// Writes a result that the host may not want: it then gave NULL.
///
/// # Safety
/// `to` is NULL or can be written.
pub(crate) unsafe fn write_if_wanted<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: by contract.
        unsafe { to.write(value) };
    }
}

/// No version of a struct will be longer.
const MOST_BYTES: usize = 4096;
