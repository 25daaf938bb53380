//! The border: what every call from C passes before it reaches Rust, and what becomes of its failures.

use std::{
    cell::{Cell, RefCell},
    ffi::CString,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, thread,
};

use crate::{
    signals::Blocked,
    status::{Failure, fastsock_status},
};

/// Wraps the body of an exported function, which returns `Result<(), Failure>`, and checks its signature.
///
/// cbindgen reads the function as it stands in the source. The compiler gets the same signature with a body that
/// catches panics, and a proof that C can hold every type of it: safer-ffi's `ConcreteReprC`. That is what safer-ffi's own
/// `#[ffi_export]` checks; it cannot be used itself, since it writes `#[export_name]` without `unsafe`, which edition 2024
/// refuses, and its parser does not know `#[unsafe(no_mangle)]`.
macro_rules! c_abi {
    (
        $(#[$attr:meta])*
        pub unsafe extern "C" fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty $body:block
    ) => {
        $(#[$attr])*
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
            $crate::guard::call(move || $body)
        }
        const _: fn() = || {
            $($crate::guard::is_c::<$ty>();)*
            $crate::guard::is_c::<$ret>();
        };
    };
}
pub(crate) use c_abi;

/// As `c_abi!` for the few functions that cannot fail and return a value; a panic gives its zero.
macro_rules! c_value {
    (
        $(#[$attr:meta])*
        pub unsafe extern "C" fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty $body:block
    ) => {
        $(#[$attr])*
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
            let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || $body));
            // SAFETY: only integers and raw pointers are returned this way, and all zeros is one of each.
            value.unwrap_or_else(|_| unsafe { std::mem::zeroed() })
        }
        const _: fn() = || {
            $($crate::guard::is_c::<$ty>();)*
            $crate::guard::is_c::<$ret>();
        };
    };
}
pub(crate) use c_value;

/// Compiles only for types that C can hold.
pub(crate) fn is_c<T: safer_ffi::layout::ConcreteReprC>() {}

/// Runs the body of one call: keeps its failure for `fastsock_last_error`, and stops a panic.
pub(crate) fn call(body: impl FnOnce() -> Result<(), Failure>) -> fastsock_status {
    match LAST_ERROR.try_with(|_| ()) {
        Ok(()) => call_here(body),
        Err(_) => call_on_a_thread(body),
    }
}

/// Runs it on another thread, and waits. In handlers of `atexit` and destructors of statics, this one has lost its thread-locals
/// already, on which the core relies.
fn call_on_a_thread(body: impl FnOnce() -> Result<(), Failure>) -> fastsock_status {
    struct Lent<T>(T);
    // SAFETY: this thread waits, so that only one at a time uses what was lent.
    unsafe impl<T> Send for Lent<T> {}
    let lent = Lent((body, inside()));
    let run = move || {
        let Lent((body, inside)) = { lent };
        let _mark = Mark::set(inside);
        call_here(body)
    };
    let _signals = Blocked::new(); // it inherits them
    let builder = thread::Builder::new().name("fastsock-exit".into());
    // SAFETY: it is joined before this returns, so all that it borrows outlives it.
    match unsafe { builder.spawn_unchecked(run) } {
        Ok(thread) => thread.join().unwrap_or(fastsock_status::PANIC),
        Err(_) => fastsock_status::IO,
    }
}

fn call_here(body: impl FnOnce() -> Result<(), Failure>) -> fastsock_status {
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let failure = match outcome {
        Ok(Ok(())) => return fastsock_status::OK,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::panic(&*panic),
    };
    let status = failure.status;
    if status != fastsock_status::END {
        remember(failure);
    }
    status
}

/// The line of this thread's last failure, or NULL.
pub(crate) fn last_error() -> *const std::ffi::c_char {
    let line = LAST_ERROR.try_with(|line| {
        line.borrow()
            .as_ref()
            .map_or(ptr::null(), |line| line.as_ptr())
    });
    line.unwrap_or(ptr::null()) // a thread that is going away has none
}

fn remember(failure: Failure) {
    // It may repeat a name, and a device can have any: in a log of lines that must not begin a new one.
    let line = failure.line.replace(char::is_control, "\u{fffd}");
    // A thread that is going away has nowhere to keep it, and nobody to read it.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = CString::new(line).ok());
}

/// Which callback this thread is in: from inside one, some calls would wait for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// None.
    Nothing,
    /// A hook of the bridge at this address, on its dispatching thread.
    Hook(*const ()),
    /// A log callback, or the one that frees the userdata, on any thread: the library may be at any point of its work.
    Callback,
}

/// Marks this thread until the mark is dropped.
#[derive(Debug)]
pub(crate) struct Mark(Inside);

impl Mark {
    pub(crate) fn set(inside: Inside) -> Self {
        Self(INSIDE.replace(inside))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

/// Which callback this thread is in.
pub(crate) fn inside() -> Inside {
    INSIDE.get()
}

thread_local! {
    static LAST_ERROR: RefCell<Option<CString>> = const { RefCell::new(None) };
    static INSIDE: Cell<Inside> = const { Cell::new(Inside::Nothing) };
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use macro_rules_attribute::apply;

    use super::*;

    #[allow(unreachable_pub, reason = "the macro takes what is exported")]
    #[apply(c_abi)]
    pub unsafe extern "C" fn panics(number: u32) -> fastsock_status {
        assert!(number == 7, "not seven");
        Ok(())
    }

    /// Has one `probe` for all types and another for those that C can hold: for these the call is ambiguous.
    trait NotForC<Which> {
        fn probe() {}
    }
    impl<T: ?Sized> NotForC<()> for T {}
    impl<T: safer_ffi::layout::ConcreteReprC> NotForC<u8> for T {}

    #[test]
    fn what_c_cannot_hold_does_not_compile() {
        <String as NotForC<_>>::probe();
        <Vec<u8> as NotForC<_>>::probe();
        <&str as NotForC<_>>::probe();
        <&[u8] as NotForC<_>>::probe();
        <Option<u32> as NotForC<_>>::probe();
        <Result<u32, u32> as NotForC<_>>::probe();
        <crate::config::fastsock_config as NotForC<_>>::probe(); // only behind a pointer
        is_c::<Option<&crate::config::fastsock_config>>();
    }

    #[test]
    fn a_panic_is_a_status_and_the_next_call_works() {
        // SAFETY: no pointers.
        let (first, second) = unsafe { (panics(8), panics(7)) };
        assert_eq!(first, fastsock_status::PANIC);
        // SAFETY: the call above failed, so there is a line.
        let line = unsafe { CStr::from_ptr(last_error()) };
        assert_eq!(line.to_str(), Ok("panic: not seven"));
        assert_eq!(second, fastsock_status::OK);
    }
}
