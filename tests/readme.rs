//! The documents say what is there: settings, names, links, programs and configurations.

#[path = "readme/configurations.rs"]
mod configurations;
#[path = "readme/links.rs"]
mod links;
#[path = "readme/metrics.rs"]
mod metrics;
#[path = "readme/names.rs"]
mod names;
#[path = "readme/pages.rs"]
mod pages;
#[path = "readme/settings.rs"]
mod settings;
