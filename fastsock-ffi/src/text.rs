//! What crosses the border as text, bytes and numbers, and the checks on the way in.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    slice,
};

use bytes::Bytes;
pub(crate) use fastsock::unix_ms;
use fastsock::{ClientId, Payload};
use macro_rules_attribute::apply;
use safer_ffi::{derive_ReprC, layout};

use crate::{
    guard::c_abi,
    status::{Failure, fastsock_status},
};

/// Bytes that belong to the library, not NUL-terminated. Print them with "%.*s". Without content, `ptr` may be NULL.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_str {
    /// The first byte.
    pub ptr: *const c_char,
    /// How many bytes there are.
    pub len: usize,
}

/// How a message travels over the WebSocket.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_kind {
    /// As TEXT; what is not UTF-8 becomes U+FFFD.
    TEXT = 0,
    /// As BINARY.
    BINARY = 1,
}

impl fastsock_str {
    pub(crate) const EMPTY: Self = Self {
        ptr: std::ptr::null(),
        len: 0,
    };

    pub(crate) fn of(text: impl AsRef<[u8]>) -> Self {
        let bytes = text.as_ref();
        Self {
            ptr: bytes.as_ptr().cast(),
            len: bytes.len(),
        }
    }
}

/// Frees a string that a function of this library returned. NULL is nothing to free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_string_free(string: *mut c_char) -> fastsock_status {
    if !string.is_null() {
        // SAFETY: by contract it came from `give`.
        drop(unsafe { CString::from_raw(string) });
    }
    Ok(())
}

/// The enumerator with this number.
pub(crate) fn checked<T: layout::ReprC<CLayout: From<u32>>>(number: u32) -> Option<T> {
    let raw = T::CLayout::from(number);
    // SAFETY: `is_valid` says that it is one of the enumerators.
    <T as layout::ReprC>::is_valid(&raw).then(|| unsafe { layout::from_raw_unchecked(raw) })
}

/// The bytes of an argument. Nothing (NULL, 0) is empty; (NULL, 7) is a mistake.
///
/// # Safety
/// `ptr` is NULL or points to `len` bytes that do not change during the call.
pub(crate) unsafe fn bytes<'a>(
    ptr: *const c_void,
    len: usize,
    what: &str,
) -> Result<&'a [u8], Failure> {
    if ptr.is_null() {
        return match len {
            0 => Ok(&[]),
            _ => Err(Failure::null(what)),
        };
    }
    if len > isize::MAX as usize {
        return Err(Failure::argument(format!(
            "{what}: the length {len} is not possible"
        )));
    }
    // SAFETY: not NULL, not longer than an object can be; the rest is the caller's contract.
    Ok(unsafe { slice::from_raw_parts(ptr.cast(), len) })
}

/// The text of a NUL-terminated argument.
///
/// # Safety
/// `ptr` is NULL or points to a NUL-terminated string that does not change during the call.
pub(crate) unsafe fn utf8<'a>(ptr: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if ptr.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: not NULL; the rest is the caller's contract.
    unsafe { CStr::from_ptr(ptr) }
        .to_str()
        .map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
}

/// A text with its length that C could also have given with a NUL at its end.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn without_nul<'a>(
    ptr: *const c_char,
    len: usize,
    what: &str,
) -> Result<&'a str, Failure> {
    // SAFETY: the same contract.
    let bytes = unsafe { bytes(ptr.cast(), len, what) }?;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(Failure::argument(format!(
            "{what}: there is a NUL in it, after {at} bytes"
        )));
    }
    std::str::from_utf8(bytes).map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
}

/// The reason of a refusal or a close.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn reason<'a>(
    ptr: *const c_char,
    len: usize,
    most: usize,
) -> Result<&'a str, Failure> {
    // SAFETY: the same contract.
    let bytes = unsafe { bytes(ptr.cast(), len, "reason") }?;
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() <= most);
    text.ok_or_else(|| Failure::argument(format!("reason: give at most {most} bytes of UTF-8")))
}

/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn client_id(ptr: *const c_char, len: usize) -> Result<ClientId, Failure> {
    // SAFETY: the same contract.
    let bytes = unsafe { bytes(ptr.cast(), len, "client_id") }?;
    std::str::from_utf8(bytes)
        .ok()
        .and_then(ClientId::new)
        .ok_or_else(|| Failure::argument("client_id: give 1 to 8192 bytes of UTF-8"))
}

/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn payload(
    kind: u32,
    ptr: *const c_void,
    len: usize,
) -> Result<Payload, Failure> {
    let kind = checked::<fastsock_kind>(kind)
        .ok_or_else(|| Failure::argument(format!("kind: {kind} is no fastsock_kind")))?;
    // SAFETY: the same contract.
    let given = unsafe { bytes(ptr, len, "data") }?;
    let mut owned = Vec::new();
    owned.try_reserve_exact(len).map_err(|_| {
        let text = format!("there is no memory for a message of {len} bytes");
        Failure::new(fastsock_status::MEMORY, text)
    })?;
    owned.extend_from_slice(given);
    let bytes = Bytes::from(owned);
    Ok(match kind {
        fastsock_kind::TEXT => Payload::text_lossy(bytes),
        fastsock_kind::BINARY => Payload::binary(bytes),
    })
}

/// Where a call puts its result; written only on success.
///
/// # Safety
/// `out` is NULL or valid for writing one `T`.
pub(crate) unsafe fn out<'a, T>(out: *mut T, what: &str) -> Result<Out<'a, T>, Failure> {
    if out.is_null() {
        return Err(Failure::null(what));
    }
    Ok(Out(out, std::marker::PhantomData))
}

/// A checked out-parameter.
pub(crate) struct Out<'a, T>(*mut T, std::marker::PhantomData<&'a mut T>);

impl<T> Out<'_, T> {
    pub(crate) fn put(self, value: T) {
        // SAFETY: checked and promised in `out`. What was there may be uninitialised, so it is not dropped.
        unsafe { self.0.write(value) }
    }
}

/// Hands a string over to C; `fastsock_string_free` takes it back.
pub(crate) fn give(text: impl Into<Vec<u8>>) -> Result<*mut c_char, Failure> {
    CString::new(text)
        .map(CString::into_raw)
        .map_err(|_| Failure::new(fastsock_status::OTHER, "the answer holds a NUL"))
}
