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

/// Returns the version of the library as a number: 1000000 * major + 1000 * minor + patch. FASTSOCK_VERSION_NUMBER is that of the
/// header in your build.
#[apply(c_value)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_version_number() -> u32 {
    const NUMBER: u32 = number(env!("CARGO_PKG_VERSION"));
    NUMBER
}

/// Of "1.2.3" or "1.2.3-rc.1".
const fn number(version: &str) -> u32 {
    let (text, mut index) = (version.as_bytes(), 0);
    let (mut number, mut part) = (0, 0);
    while index < text.len() && text[index] != b'-' && text[index] != b'+' {
        match text[index] {
            b'.' => (number, part) = ((number + part) * 1000, 0),
            digit => part = part * 10 + (digit - b'0') as u32,
        }
        index += 1;
    }
    number + part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_number() {
        assert_eq!(number("0.1.0"), 1000);
        assert_eq!(number("1.20.3"), 1_020_003);
        assert_eq!(number("12.0.345-rc.1"), 12_000_345);
    }
}
