//! Which version of the library is linked.

use std::ffi::c_char;

use macro_rules_attribute::apply;

use crate::guard::c_value;

/// Returns the version of the library, such as "0.1.0". Static.
#[apply(c_value)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
