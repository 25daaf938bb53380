//! `fastsock man`: the man page. Options and commands are those of the command line, settings those of the table.

use std::io;

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};

use crate::{
    flags::{AFTER_HELP, ORDER, command},
    settings::{Settings, all_known, section_of},
};

/// The page fastsock(1), in roff.
pub(crate) fn page() -> String {
    let mut text = Vec::new();
    let written = write(&mut text);
    debug_assert!(written.is_ok(), "memory takes what is written");
    String::from_utf8_lossy(&text).into_owned()
}

fn write(text: &mut Vec<u8>) -> io::Result<()> {
    let mut command = command().mut_args(|arg| arg.hide_short_help(false)); // what -h has no room for
    command.build();
    let man = Man::new(command.clone()).manual("Fastsock");
    man.render_title(text)?;
    man.render_name_section(text)?;
    man.render_synopsis_section(text)?;
    man.render_description_section(text)?;
    man.render_options_section(text)?;
    commands(&mut command).to_writer(text)?;
    settings().to_writer(text)?;
    for (heading, rows) in TABLES {
        table(heading, rows).to_writer(text)?;
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(SEE_ALSO)]);
    roff.to_writer(text)
}

/// A paragraph for each command, and for those below it.
fn commands(command: &mut Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    roff.text([roman(AFTER_HELP)]);
    for sub in command
        .get_subcommands_mut()
        .filter(|sub| !sub.is_hide_set())
    {
        add_command(&mut roff, sub);
    }
    roff
}

fn add_command(roff: &mut Roff, command: &mut Command) {
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let about = command.get_about().map(ToString::to_string);
    entry(roff, vec![bold(usage)], &about.unwrap_or_default());
    for arg in command.get_arguments() {
        if arg.is_hide_set()
            || arg.is_global_set()
            || matches!(arg.get_id().as_str(), "help" | "version")
        {
            continue;
        }
        let value = arg.get_value_names().and_then(|names| names.first());
        let takes_value = arg.get_action().takes_values();
        let mut tag = Vec::new();
        tag.extend(arg.get_long().map(|long| bold(format!("--{long} "))));
        tag.extend(
            value
                .filter(|_| takes_value)
                .map(|value| italic(value.as_str())),
        );
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        roff.control("RS", ["4"]);
        entry(roff, tag, &help);
        roff.control("RE", []);
    }
    for sub in command
        .get_subcommands_mut()
        .filter(|sub| !sub.is_hide_set())
    {
        add_command(roff, sub);
    }
}

fn settings() -> Roff {
    let (defaults, mut section) = (Settings::default(), "");
    let mut roff = Roff::new();
    roff.control("SH", ["SETTINGS AND ENVIRONMENT"]);
    roff.text([roman(ORDER)]);
    for known in all_known() {
        if section_of(known) != section {
            section = section_of(known);
            roff.control("SS", [section]);
        }
        let tag = vec![
            bold(known.variable()),
            roman("="),
            italic(defaults.show(known)),
        ];
        let about = known.about().trim().replace('`', "");
        entry(
            &mut roff,
            tag,
            &format!("{about} Give {}.", known.allowed()),
        );
    }
    roff
}

fn table(heading: &str, rows: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    for (name, about) in rows {
        entry(&mut roff, vec![bold(*name)], about);
    }
    roff
}

/// A tag, and what there is to say of it.
fn entry(roff: &mut Roff, tag: Vec<Inline>, about: &str) {
    roff.control("TP", []);
    roff.text(tag);
    roff.text([roman(about)]);
}

/// What else an operator looks up here.
const TABLES: [(&str, &[(&str, &str)]); 3] = [
    (
        "SIGNALS",
        &[
            (
                "SIGTERM",
                "Drains over FASTSOCK_DRAIN_WINDOW, if that is set, then stops within 8 s. A second one ends the program at once.",
            ),
            ("SIGINT", "The same without a drain."),
            (
                "SIGHUP",
                "Opens the log file anew, and reads certificates, tokens and the settings of the log again.",
            ),
            ("SIGUSR1, SIGUSR2", "Nothing; one line at debug."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            (
                "0",
                "It was asked to stop, and did; --check has found no problem.",
            ),
            (
                "1",
                "A bad setting, a taken port, or a second signal; a command that a running gateway did not carry out. One line says which.",
            ),
            ("2", "--check has found problems."),
        ],
    ),
    (
        "FILES",
        &[
            (".env", "Settings, in the working directory."),
            (
                "logs/fastsock.log",
                "The log, unless FASTSOCK_LOG_FILE says otherwise.",
            ),
            (
                "/etc/fastsock/fastsock.env, /var/lib/fastsock",
                "Settings and data where the Debian package runs it as a service.",
            ),
        ],
    ),
];

const SEE_ALSO: &str =
    "docs/operate.md and docs/settings.md of the project, or /usr/share/doc/fastsock.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_setting_and_every_command() {
        let page = page();
        let plain = page.replace("\\-", "-");
        for known in all_known() {
            assert!(plain.contains(known.variable()), "{}", known.variable());
        }
        for usage in [
            "fastsock send",
            "fastsock dead-letters replay",
            "fastsock top",
        ] {
            assert!(plain.contains(usage), "{usage}: {plain}");
        }
        let of_option = "what differs from the defaults";
        assert!(plain.matches(of_option).count() > 1, "{plain}");
        assert!(plain.starts_with(".ie"), "{plain}");
        assert!(!plain.contains("fastsock man"), "hidden");
    }
}
