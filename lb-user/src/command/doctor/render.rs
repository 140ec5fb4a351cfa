//! The checks as a table for people: state, name, and beside them what was found, its effect and the remedy, wrapped.

use std::{env, fmt::Write as _, io};

use super::{Check, State};

/// The width where no terminal says another.
const WIDTH: usize = 100;
/// Narrower than this, wrapping makes a text harder to read, not easier.
const LEAST_TEXT: usize = 40;

/// How to write.
pub(super) struct Style {
    width: usize,
    colours: bool,
}

impl Style {
    /// The terminal's width and colours, if standard output is one and its user has not set NO_COLOR (<https://no-color.org>).
    pub(super) fn of_stdout(is_terminal: bool) -> Self {
        if !is_terminal {
            return Self { width: WIDTH, colours: false };
        }
        let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        let colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { width: if columns == 0 { WIDTH } else { columns }, colours }
    }
}

/// The whole table, with a line of totals.
pub(super) fn table(checks: &[Check], style: &Style) -> String {
    let state_width = checks.iter().map(|check| check.state.as_str().len()).max().unwrap_or(0);
    let name_width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let indent = state_width + name_width + 4;
    let text_width = style.width.saturating_sub(indent + 1).max(LEAST_TEXT);

    let mut out = String::new();
    for check in checks {
        let mut lines = wrapped(&format!("{}. {}", check.found, check.effect), text_width);
        if let Some(remedy) = &check.remedy {
            lines.extend(wrapped(&format!("Remedy: {remedy}"), text_width));
        }
        let state = coloured(&format!("{:state_width$}", check.state.as_str()), check.state, style.colours);
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{state}  {:name_width$}  {first}", check.name);
        for line in lines {
            let _ = writeln!(out, "{:indent$}{line}", "");
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let totals = [State::Ok, State::Unknown, State::Limited, State::Missing, State::Problem];
    let totals: Vec<String> = totals.into_iter().map(|state| format!("{} {}", count(state), state.as_str())).collect();
    let _ = writeln!(out, "\n{}", totals.join(", "));
    out
}

fn coloured(text: &str, state: State, colours: bool) -> String {
    let colour = match state {
        State::Ok => 32,
        State::Unknown => 36,
        State::Limited | State::Missing => 33,
        State::Problem => 31,
    };
    if colours { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Lines of at most `width` characters, broken at spaces; a longer word has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_at_spaces_and_long_words_are_kept_whole() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a /very/long/path b", 6), ["a", "/very/long/path", "b"]);
        assert_eq!(wrapped("", 6), Vec::<String>::new());
    }

    #[test]
    fn columns_line_up_and_the_rest_is_indented() {
        let checks = [
            Check::ok("btf", "there", "Types are known."),
            Check::ok("eth0: xdp", "generic only", "Packets are copied before the program sees them.")
                .with_remedy(State::Limited, "a card"),
        ];
        let plain = table(&checks, &Style { width: 66, colours: false });
        let expected = "\
ok       btf        there. Types are known.
limited  eth0: xdp  generic only. Packets are copied before the
                    program sees them.
                    Remedy: a card

1 ok, 0 unknown, 1 limited, 0 missing, 0 problem
";
        assert_eq!(plain, expected);
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let checks = [Check::ok("btf", "none", "Nothing works.").with_remedy(State::Missing, "y")];
        let with = table(&checks, &Style { width: 80, colours: true });
        assert!(with.starts_with("\u{1b}[33mmissing\u{1b}[0m  btf"), "{with:?}");
        let without = with.replace("\u{1b}[33m", "").replace("\u{1b}[0m", "");
        assert_eq!(without, table(&checks, &Style { width: 80, colours: false }));
    }

    #[test]
    fn a_narrow_terminal_still_gets_whole_words() {
        let checks = [Check::ok("a", "found", "An effect in a few words.")];
        let narrow = table(&checks, &Style { width: 5, colours: false });
        assert!(narrow.contains("found. An effect in a few words."), "{narrow}");
    }
}
