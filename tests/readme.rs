//! The README's settings table says what the code has. `FASTSOCK_BLESS=1` writes it anew.

use std::{env, fs, path::Path};

use fastsock::Config;

const BEGIN: &str = "<!-- settings: written by tests/readme.rs -->\n";
const END: &str = "<!-- /settings -->";

#[test]
fn the_settings_table_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", table());
    if env::var_os("FASTSOCK_BLESS").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        assert!(
            readme == expected,
            "README.md: run this test with FASTSOCK_BLESS=1"
        );
    }
}

fn table() -> String {
    let mut table = String::from("| variable | default | meaning |\n|---|---|---|\n");
    for setting in Config::settings() {
        let default = match setting.show(&Config::default()) {
            text if text.is_empty() => String::new(),
            text => format!("`{text}`"),
        };
        let default = match setting.variable {
            "FASTSOCK_BROKER" => "`auto`; embedded in a host: `embedded`".into(),
            "FASTSOCK_ADMIN_ADDR" => "`127.0.0.1:3001`; embedded in a host: none".into(),
            _ => default,
        };
        let (about, allowed) = (setting.about.trim(), setting.allowed);
        table += &format!(
            "| `{}` | {default} | {about} Allowed: {allowed}. |\n",
            setting.variable
        );
    }
    table
}
