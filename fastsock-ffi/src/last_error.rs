//! What a failed call leaves to be read: the word for its status, and its line.

use std::ffi::c_char;

use macro_rules_attribute::apply;

use crate::{
    guard::{self, c_value},
    status::fastsock_status,
    text,
};

/// Returns the word for a status: "ok", "config", … Static; "unknown" for any other number.
#[apply(c_value)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_status_name(status: u32) -> *const c_char {
    text::checked::<fastsock_status>(status)
        .map_or(c"unknown", |s| s.name())
        .as_ptr()
}

/// Returns the line of the last failed call of this thread: which setting, address or argument, and why.
/// NULL when no call has failed yet, and in atexit handlers and destructors of statics. Valid until the next call of this thread
/// fails, or the thread ends; a call that succeeds, and END, leave it as it is. Only to be read after a failure.
#[apply(c_value)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_last_error() -> *const c_char {
    guard::last_error()
}
