//! What sort of value a setting takes.

/// What sort of value a setting takes: how it is written in TOML and JSON, and which units it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueKind {
    /// `true` or `false`; as text also `on` and `off`.
    Switch,
    /// A whole number.
    Integer,
    /// Whole milliseconds, or text with a unit.
    Time,
    /// Whole bytes, or text with a unit.
    Size,
    /// One of a few words.
    Choice,
    /// Any other text.
    Text,
    /// An IP address, with a port or without.
    Address,
    /// The path of a file.
    Path,
    /// The paths of several files.
    Paths,
    /// The path of a directory.
    Directory,
    /// Several texts.
    List,
    /// A table of header names and values.
    Headers,
    /// Several tables.
    Tables,
}

impl ValueKind {
    /// Its name in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Switch => "on or off",
            Self::Integer => "integer",
            Self::Time => "time",
            Self::Size => "size",
            Self::Choice => "one word",
            Self::Text => "text",
            Self::Address => "address",
            Self::Path => "path",
            Self::Paths => "list of paths",
            Self::Directory => "path of a directory",
            Self::List => "list of texts",
            Self::Headers => "JSON object",
            Self::Tables => "list of tables",
        }
    }

    /// What may stand in place of a bare number, in words.
    pub(super) fn units(self) -> &'static str {
        match self {
            Self::Time => "a time with its unit: 250ms, 30s, 5m, 1h, 1d",
            Self::Size => "a size with its unit: 64KiB, 64MiB, 1GiB, 64kB, 64MB, 1GB",
            _ => "",
        }
    }

    /// That of several.
    pub(super) const fn list(self) -> Self {
        match self {
            Self::Path => Self::Paths,
            _ => Self::List,
        }
    }
}
