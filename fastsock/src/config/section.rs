//! The macro that writes a section of the settings table.

/// A section of the table of settings: its docs, its struct, its field in `Config` and its heading. A setting is its docs and one line:
/// `name => field: type = default, "VARIABLE", "what is allowed", "an example that is not the default", check`; the type is followed by
/// `as bytes` where it is a number of bytes, and by `as directory` where it is the path of one.
/// From it come the field, its default, its chained setter, its variable, its error line and the printed tables.
macro_rules! section {
    (@parse $type:ty) => { <$type as crate::config::value::Value>::parse };
    (@parse $type:ty, bytes) => { crate::config::value::bytes::parse::<$type> };
    (@parse $type:ty, directory) => { <$type as crate::config::value::Value>::parse };
    (@kind $type:ty) => { <$type as crate::config::value::Value>::KIND };
    (@kind $type:ty, bytes) => { crate::config::ValueKind::Size };
    (@kind $type:ty, directory) => { crate::config::ValueKind::Directory };
    ($(#[doc = $about:literal])* $section:ident = $field:ident, $heading:literal;
        $($(#[doc = $doc:literal])* $name:ident => $short:ident: $type:ty $(as $kind:ident)? = $default:expr, $env:literal, $allowed:literal, $example:literal $(, $check:expr)?;)*) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        #[allow(rustdoc::bare_urls, reason = "what is allowed is also an error line, without markup")]
        pub struct $section {
            $($(#[doc = $doc])*
            #[doc = concat!("\n\nVariable: `", $env, "`; allowed: ", $allowed, ".")]
            pub $short: $type,)*
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($short: $default,)* }
            }
        }

        impl crate::config::Config {
            $(#[doc = concat!("Sets `", stringify!($field), ".", stringify!($short), "`, the variable `", $env, "`.")]
            #[must_use]
            pub fn $name(mut self, value: impl Into<$type>) -> Self {
                self.$field.$short = value.into();
                self
            })*
        }

        pub(super) const ROWS: &[crate::config::Setting] = &[$(crate::config::Setting {
            name: stringify!($name),
            variable: $env,
            section: $heading,
            kind: crate::config::section::section!(@kind $type $(, $kind)?),
            allowed: $allowed,
            example: $example,
            about: concat!($($doc),*),
            is_secret: <$type as crate::config::value::Value>::IS_SECRET,
            set: |config, text| {
                let value = crate::config::section::section!(@parse $type $(, $kind)?)(text)?;
                $(let check: fn(&$type) -> _ = $check;
                crate::config::value::Verdict::verdict(check(&value))?;)?
                config.$field.$short = value;
                Ok(())
            },
            show: |config| crate::config::value::Value::show(&config.$field.$short),
            holds: |config| {
                let _ = config;
                $(let check: fn(&$type) -> _ = $check;
                crate::config::value::Verdict::verdict(check(&config.$field.$short))?;)?
                Ok(())
            },
        },)*];
    };
}
pub(super) use section;
